"""Where the public data sets are, if they are: beside the checkout. They are never committed."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
