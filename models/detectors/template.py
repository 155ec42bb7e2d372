# What `python -m models new NAME` copies, without these lines. It is not in the catalogue.
"""Template: how far each value of a row is from the mean. Replace this sentence."""

# A whole detector that keeps the contract of models/detectors/detector.py. Change one thing after
# another: the tests of the contract run over it from the start. The notes say what to replace.

from dataclasses import dataclass

import torch
from torch import Tensor

from models.batch import Batch, Contributions
from models.detectors.detector import Detector, expect
from models.detectors.search_space import OneOf, Space
from models.layers.dense_inputs import Inputs
from models.layout import Layout
from models.refusal import Refusal


# Replace: the options. Each has a type, a default, a unit, and a check in `__post_init__`.
# `sample_rows` stays if the detector has a `fit`.
@dataclass(frozen=True)
class TemplateConfig:
    """Options of `template`."""

    least_variance: float = 1e-3  # least variance of a column, in squared scaled units
    sample_rows: int = 100_000  # rows of the training days that it is fitted on

    def __post_init__(self) -> None:
        expect(self.least_variance > 0, self, "least_variance", "more than 0")
        expect(self.sample_rows >= 2, self, "sample_rows", "2 or more")


class Template(Detector):
    """Adds up how far each value of a row is from the mean of its column.

    The score is the sum over columns of (value - mean)^2 / variance. Categories are one-hot
    columns. Shares are the terms of the sum; `expected` is the mean, for each category the most
    frequent code.
    """

    # Replace: the docstring above. Its first paragraph is the line in docs/detectors.md; then say
    # how the score is computed, with paper and equation, and what shares and `expected` are.

    Config = TemplateConfig
    # Replace: "gradient" if it learns by minimising `loss`, and then delete `fit`. A detector that
    # learns from labels sets `labels` too.
    learns = "sample"
    mean: Tensor
    variance: Tensor

    @classmethod
    def unfit(cls, layout: Layout) -> str | None:
        # Replace: which columns it cannot learn from. Delete the method if it takes all columns.
        others = layout.features[len(layout.numeric) + len(layout.categories) :]
        return f"expected numbers and categories, found '{others[0]}'" if others else None

    @classmethod
    def space(cls) -> Space:
        # Replace: options that are worth tuning. Delete the method if there are none.
        return {"least_variance": OneOf((1e-4, 1e-3, 1e-2))}

    def __init__(self, layout: Layout, config: TemplateConfig) -> None:
        super().__init__(layout, config)
        # Turns a batch into one matrix [rows, width]. With embed=True categories with many values
        # get learned embeddings, for detectors that learn by gradient.
        self.inputs = Inputs(layout, embed=False)
        # Replace: what it learns. Buffers and parameters are saved; their shapes may depend on
        # layout and config only.
        self.register_buffer("mean", torch.zeros(self.inputs.width))
        self.register_buffer("variance", torch.ones(self.inputs.width))

    def loss(self, batch: Batch) -> Tensor:
        """The score; there is no other loss."""
        return self.score(batch)

    @torch.no_grad()
    def fit(self, sample: Batch, seed: int) -> None:
        """Measure mean and variance; `seed` is not used. Raises Refusal for fewer than 2 rows."""
        # Replace: how it learns. Draw random numbers from a generator with this seed only.
        columns = self.inputs(sample)
        if len(columns) < 2:
            raise Refusal(f"expected at least 2 rows to measure a variance, found {len(columns)}")
        variance, mean = torch.var_mean(columns, 0)
        self.mean.copy_(mean)
        self.variance.copy_(variance.clamp_min(self.config.least_variance))

    def score(self, batch: Batch) -> Tensor:
        # Replace: the score [rows]. It may not depend on the other rows of the batch.
        return self._measure_terms(self.inputs(batch)).sum(1)

    def contributions(self, batch: Batch) -> Contributions:
        # Replace: shares that add up to the score. For a score without terms inherit from
        # `bases.integrated_gradients_detector`, which has this method.
        columns = self.inputs(batch)
        terms = self._measure_terms(columns)
        return Contributions(
            self.inputs.sum_by_feature(terms),
            self.inputs.decode(self.mean.expand(len(columns), -1)),
            self.inputs.map_places(terms, batch),
        )

    def _measure_terms(self, columns: Tensor) -> Tensor:
        """What each column adds to the score: [rows, width]."""
        return (columns - self.mean).square() / self.variance
