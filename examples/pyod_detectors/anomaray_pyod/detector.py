"""PyOD's detectors as one detector of Anomaray, saved as arrays.

    detector: {name: pyod.model, model: KNN, options: {n_neighbors: 10}}

A model of PyOD is a Python object, which PyOD itself saves with pickle. Here only the arrays that
its scores depend on are saved. An opened bundle makes a new model from them, so nothing in a bundle
can run. MODELS are those that this allows, REFUSED the others with the reason.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomaray_pyod.models import MODELS, REFUSED, fit, list_arguments, restore
from models.batch import Batch, Contributions
from models.detectors.detector import Detector, expect
from models.layers.dense_inputs import Inputs
from models.layout import Layout
from models.refusal import Refusal

# Numbers in options at most: they decide how long the draft of a model takes.
_MOST_OPTION = 10_000
# Scores end here, as float32 ends at 3e38 and shares are differences of scores.
_MOST = 1e30


@dataclass(frozen=True)
class PyODConfig:
    """Options of `pyod.model`."""

    model: str = "HBOS"  # a class of PyOD, as PyOD writes it
    options: dict[str, Any] = field(default_factory=dict)  # its arguments
    sample_rows: int = 10_000  # rows of the training days that it is fitted on
    # The shape of each array of the fitted model; `fit` fills it in.
    state: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.model in REFUSED:
            raise Refusal(f"PyOD's {self.model} is not usable here: {REFUSED[self.model]}")
        expect(self.model in MODELS, self, "model", f"one of {', '.join(MODELS)}")
        expect(self.sample_rows >= 2, self, "sample_rows", "2 or more")
        allowed = list_arguments(self.model)
        known = f"some of {', '.join(sorted(allowed))}"
        expect(set(self.options) <= allowed, self, "options", known)
        numbers = [v for v in self.options.values() if isinstance(v, int | float)]
        expect(
            all(abs(number) <= _MOST_OPTION for number in numbers),
            self,
            "options",
            f"numbers up to {_MOST_OPTION:,}",
        )


class PyOD(Detector):
    """A model of PyOD, such as HBOS, KNN, LOF, PCA, MCD or OCSVM, saved as arrays.

    The score is `decision_function` of the model, in float64, over the numbers and the one-hot
    categories of a row. `expected` is the usual row: medians, and for each category the most
    frequent code.

    A model of PyOD gives no reasons, so the shares are differences of scores. On the way from a row
    to the usual row, one feature after another takes its usual value; the share of a feature is by
    how much the score falls at its step. The way is gone in the order of the columns and in the
    opposite order, and the mean of both is taken. So the shares add up to the score less that of
    the usual row, and where no more than two features interact they are the Shapley values
    (Strumbelj and Kononenko, 2014, with one order and its reverse). Explaining a row takes two
    scores for each feature.
    """

    Config = PyODConfig
    learns = "sample"
    usual_numbers: Tensor
    usual_codes: Tensor
    base: Tensor

    @classmethod
    def unfit(cls, layout: Layout) -> str | None:
        others = layout.features[len(layout.numeric) + len(layout.categories) :]
        return f"expected numbers and categories, found '{others[0]}'" if others else None

    def __init__(self, layout: Layout, config: PyODConfig) -> None:
        super().__init__(layout, config)
        self.inputs = Inputs(layout, embed=False)
        self.register_buffer("usual_numbers", torch.zeros(len(layout.numeric)))
        self.register_buffer("usual_codes", torch.zeros(len(layout.categories), dtype=torch.int64))
        self.register_buffer("base", torch.zeros((), dtype=torch.float64))
        self._make_room(config.state)
        self._model: Any = None

    def loss(self, batch: Batch) -> Tensor:
        """The score; there is no other loss."""
        return self.score(batch)

    @torch.no_grad()
    def fit(self, sample: Batch, seed: int) -> None:
        """Fit the model. Raises Refusal for rows or options that it cannot use."""
        rows = sample.take(slice(0, self.config.sample_rows))
        columns = _to_numpy(self.inputs(rows))
        model, options = self.config.model, self.config.options
        arrays = fit(model, options, columns, seed)
        self._model = restore(model, options, arrays, columns.shape[1])
        self._make_room({name: array.shape for name, array in arrays.items()})
        for name, array in arrays.items():
            self.get_buffer(_name(name)).copy_(torch.from_numpy(array))
        self.usual_numbers.copy_(rows.numeric.median(0).values)
        self.usual_codes.copy_(rows.codes.mode(0).values)
        self.base.copy_(self._measure(self._make_usual(rows.take(slice(0, 1))))[0])

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        loaded = super().load_state_dict(state_dict, strict, assign)
        arrays = {name: self.get_buffer(_name(name)).cpu().numpy() for name in self.config.state}
        model, options = self.config.model, self.config.options
        self._model = restore(model, options, arrays, self.inputs.width)
        return loaded

    @torch.no_grad()
    def score(self, batch: Batch) -> Tensor:
        return self._measure(batch).float()

    def base_score(self) -> float:
        return float(self.base)

    @torch.no_grad()
    def contributions(self, batch: Batch) -> Contributions:
        usual = self._make_usual(batch)
        orders = range(len(self.layout.features)), reversed(range(len(self.layout.features)))
        shares = sum(self._walk(batch, usual, order) for order in orders) / 2
        return Contributions(shares.float(), usual)

    def _walk(self, batch: Batch, usual: Batch, order: Any) -> Tensor:
        """By how much the score falls as each feature takes its usual value: float64 [rows, n]."""
        numbers, codes, features = (
            batch.numeric.clone(),
            batch.codes.clone(),
            batch.numeric.shape[1],
        )
        score = self._measure(batch)
        falls = score.new_zeros(len(numbers), features + codes.shape[1])
        for place in order:
            if place < features:
                numbers[:, place] = usual.numeric[:, place]
            else:
                codes[:, place - features] = usual.codes[:, place - features]
            before, score = score, self._measure(Batch(numbers, codes))
            falls[:, place] = before - score
        return falls

    def _make_usual(self, batch: Batch) -> Batch:
        rows = len(batch.numeric)
        return Batch(self.usual_numbers.expand(rows, -1), self.usual_codes.expand(rows, -1))

    def _measure(self, batch: Batch) -> Tensor:
        """The score of each row, float64 [rows], on the device of the batch."""
        columns = self.inputs(batch)
        if self._model is None:
            raise Refusal("expected a fitted model of PyOD, found one that is not: train it")
        if not len(columns):
            return columns.new_zeros(0, dtype=torch.float64)
        found = np.clip(self._model.decision_function(_to_numpy(columns)), -_MOST, _MOST)
        return torch.from_numpy(found).to(columns.device)

    def _make_room(self, state: dict[str, tuple[int, ...]]) -> None:
        """A buffer for each array, whose shapes the config keeps."""
        for name, shape in state.items():
            empty = torch.zeros(shape, dtype=torch.float64, device=self.base.device)
            self.register_buffer(_name(name), empty)
        self.config = replace(self.config, state=state)


def _name(path: str) -> str:
    return f"state_{path.replace('.', '')}"


def _to_numpy(columns: Tensor) -> NDArray[np.float64]:
    return columns.detach().cpu().numpy().astype(np.float64)
