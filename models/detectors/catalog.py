"""Every detector by its name: those that stand alone, and those that are built from these.

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

from models.detectors.ensemble import Ensemble
from models.detectors.options import Catalog
from models.detectors.single import SINGLE
from models.detectors.stacked_devnet import StackedDevNet

_COMBINED = Catalog.from_imports(globals())
CATALOG = Catalog(sorted({**SINGLE, **_COMBINED}.items()))
