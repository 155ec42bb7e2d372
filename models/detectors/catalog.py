"""Every detector by its name: those that stand alone, and those that are built from them."""

from models.detectors.detector import Detector
from models.detectors.ensemble import Ensemble
from models.detectors.options import Catalog
from models.detectors.single import SINGLE
from models.detectors.stacked_devnet import StackedDevNet

_COMBINED: dict[str, type[Detector]] = {"ensemble": Ensemble, "stacked_devnet": StackedDevNet}
CATALOG = Catalog(dict(sorted({**SINGLE, **_COMBINED}.items())))
