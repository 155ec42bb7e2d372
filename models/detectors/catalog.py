"""Every detector by its name: ours, and by `find`, `configure` and `build` those of other packages.

>>> import torch
>>> from models.batch import Batch
>>> from models.layout import Layout, NumericInput
>>> layout = Layout((NumericInput("bytes", "real"), NumericInput("packets", "real")), ())
>>> detector = CATALOG.build("gaussian", layout, {"sample_rows": 1000})
>>> numbers = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
>>> no_categories = torch.zeros(1000, 0, dtype=torch.int64)
>>> detector.fit(Batch(numbers, no_categories), seed=0)
>>> rows = Batch(torch.tensor([[0.1, 0.2], [0.1, 9.0]]), no_categories[:2])
>>> detector.score(rows).round()  # one score a row; higher is more anomalous
tensor([ 0., 77.])
>>> detector.contributions(rows).shares[1].round()  # what each column added to the second score
tensor([ 0., 77.])
"""

from models.detectors.detector import Detector
from models.detectors.ensemble import Ensemble
from models.detectors.options import Catalog
from models.detectors.plugins import Package, find_plugin, list_plugins, require_package
from models.detectors.single import SINGLE
from models.detectors.stacked_devnet import StackedDevNet


class OpenCatalog(Catalog):
    """Our detectors, as a mapping. Its methods know those of other packages too.

    Where a package has a detector with the name of one of ours, ours is meant.
    """

    def find(self, name: str) -> type[Detector]:
        plugin = None if name in self else find_plugin(name)
        return plugin.load() if plugin else super().find(name)

    def list_names(self) -> list[str]:
        """Our detectors, then those that other packages install by an entry point."""
        return list(dict.fromkeys([*self, *(plugin.name for plugin in list_plugins())]))

    def find_package(self, name: str) -> Package | None:
        """The package of a detector; None for one of ours."""
        plugin = None if name in self else find_plugin(name)
        return plugin.package if plugin else None

    def require_package(self, name: str, trained: Package | None) -> None:
        """Raise Refusal unless a saved detector is ours, or of the package that `trained` it."""
        if name not in self or trained is not None:
            require_package(name, trained)


_COMBINED = Catalog.from_imports(globals())
CATALOG = OpenCatalog(sorted({**SINGLE, **_COMBINED}.items()))
