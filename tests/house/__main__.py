"""Measure the house, or draw it: `python -m tests.house`, `python -m tests.house draw FILE`."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from tests.house import drawing, figures, walk
from tests.house.rooms import House

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Print the figures as a table or as JSON, or write the picture."""
    parser = argparse.ArgumentParser(prog="python -m tests.house", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--no-walk", action="store_true", help="leave out the walk of one split")
    parser.set_defaults(draw=None)
    verbs = parser.add_subparsers()
    verbs.add_parser("draw", help="write the picture as SVG").add_argument("draw", type=Path)
    options = parser.parse_args()
    house = House.read(ROOT)
    if options.draw:
        options.draw.write_text(drawing.draw(house))
        return
    found: dict[str, object] = asdict(figures.measure(house))
    if not options.no_walk:
        for name, one in zip(("day", "worker"), walk.record(ROOT), strict=True):
            file, visits = one.most_visited()
            found[f"walk_{name}_files"] = one.distinct
            found[f"walk_{name}_returns"] = one.returns
            found[f"walk_{name}_most_visited"] = f"{file}, {visits} times"
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name.replace('_', ' '):<28} {value}")


if __name__ == "__main__":
    main()
