"""PyOD's detectors as one detector of Anomaray, saved as arrays.

    detector: {name: pyod.model, model: KNN, options: {n_neighbors: 10}}

A model of PyOD is a Python object, which PyOD itself saves with pickle. Here only the arrays that
its scores depend on are saved. An opened bundle makes a new model from them, so nothing in a bundle
can run. MODELS are those that this allows, REFUSED the others with the reason.
"""

import importlib
import inspect
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.batch import Batch, Contributions
from models.detectors.detector import Detector, expect
from models.layers.dense_inputs import Inputs
from models.layout import Layout
from models.refusal import Refusal

Arrays = dict[str, NDArray[np.float64]]

# Rows that a model is made with before its arrays are put in; nothing of them stays.
_DRAFT_ROWS = 128
# Numbers in options at most: they decide how long the draft takes.
_MOST_OPTION = 10_000
# Scores end here, as float32 ends at 3e38 and shares are differences of scores.
_MOST = 1e30


@dataclass(frozen=True)
class Kind:
    """Where a model is, and which arrays its scores depend on.

    A model without `arrays` computes its state from the training rows: these are saved, and it is
    fitted again when a bundle is opened.
    """

    module: str
    arrays: tuple[str, ...] = ()  # paths of attributes: "detector_.means_"
    free: tuple[str, ...] = ()  # those of `arrays` whose length depends on the training rows


MODELS = {
    "GMM": Kind(
        "gmm", ("detector_.weights_", "detector_.means_", "detector_.precisions_cholesky_")
    ),
    "HBOS": Kind("hbos", ("hist_", "bin_edges_")),
    "INNE": Kind("inne", ("_centroids", "_ratio", "_centroids_radius")),
    "KDE": Kind("kde"),
    "KNN": Kind("knn"),
    "LODA": Kind("loda", ("projections_", "histograms_", "limits_")),
    "LOF": Kind("lof"),
    "MCD": Kind("mcd", ("detector_.location_", "detector_.precision_")),
    "OCSVM": Kind(
        "ocsvm",
        (
            "detector_.support_vectors_",
            "detector_._dual_coef_",
            "detector_._intercept_",
            "detector_._gamma",
        ),
        free=("detector_.support_vectors_", "detector_._dual_coef_"),
    ),
    "PCA": Kind(
        "pca",
        ("scaler_.mean_", "scaler_.scale_", "selected_components_", "selected_w_components_"),
        free=("selected_components_", "selected_w_components_"),
    ),
    "Sampling": Kind("sampling", ("subset",)),
}
_OF_BATCH = "the score of a row depends on the other rows of its batch"
REFUSED = {
    "ABOD": "its score of a row that equals a training row is no number",
    "CBLOF": "it finds no clusters in most samples",
    "CD": _OF_BATCH,
    "COF": f"{_OF_BATCH}, and one row has none",
    "COPOD": f"{_OF_BATCH}: use ecod",
    "DIF": f"{_OF_BATCH}, and it saves networks",
    "ECOD": f"{_OF_BATCH}: use ecod",
    "IForest": "its trees are objects of compiled code that follow any number in them, so a forged "
    "one reads foreign memory: use isolation_forest",
    "KPCA": "it saves a random generator, and as many numbers as rows times rows",
    "LMDD": _OF_BATCH,
    "LOCI": "a fit of 2,000 rows takes more than a minute",
    "MAD": "it takes one column only",
    "ROD": _OF_BATCH,
    "SOD": f"{_OF_BATCH}, and one row has none",
    "SOS": _OF_BATCH,
}


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
        allowed = inspect.signature(_load(self.model)).parameters.keys() - {"n_jobs", "verbose"}
        expect(
            set(self.options) <= allowed, self, "options", f"some of {', '.join(sorted(allowed))}"
        )
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
        arrays = _fit(self.config, columns, seed)
        self._model = _restore(self.config, arrays, columns.shape[1])
        self._make_room({name: array.shape for name, array in arrays.items()})
        for name, array in arrays.items():
            self.get_buffer(_name(name)).copy_(torch.from_numpy(array))
        self.usual_numbers.copy_(rows.numeric.median(0).values)
        self.usual_codes.copy_(rows.codes.mode(0).values)
        self.base.copy_(self._measure(self._make_usual(rows.take(slice(0, 1))))[0])

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        loaded = super().load_state_dict(state_dict, strict, assign)
        arrays = {name: self.get_buffer(_name(name)).cpu().numpy() for name in self.config.state}
        self._model = _restore(self.config, arrays, self.inputs.width)
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


def _load(model: str) -> Any:
    return getattr(importlib.import_module(f"pyod.models.{MODELS[model].module}"), model)


def _name(path: str) -> str:
    return f"state_{path.replace('.', '')}"


def _to_numpy(columns: Tensor) -> NDArray[np.float64]:
    return columns.detach().cpu().numpy().astype(np.float64)


def _make(config: PyODConfig, seed: int = 0) -> Any:
    """An untrained model.

    Neighbours are looked up in a tree: without one sklearn rounds their distances differently in
    another batch. PCA leaves out components of no variance, by which it would divide: one-hot
    columns have some.
    """
    kind = _load(config.model)
    own: dict[str, Any] = {"random_state": seed, "algorithm": "kd_tree"}
    if config.model == "PCA":
        own["n_components"] = 0.99
    known = inspect.signature(kind).parameters
    return kind(**{name: value for name, value in own.items() if name in known} | config.options)


def _fit(config: PyODConfig, columns: NDArray[np.float64], seed: int) -> Arrays:
    """The arrays of a model that is fitted to the rows."""
    kind = MODELS[config.model]
    if not kind.arrays:
        return {"rows": columns}
    try:
        model = _make(config, seed).fit(columns)
        arrays = {path: np.asarray(_read(model, path), np.float64) for path in kind.arrays}
    except Exception as error:  # whatever PyOD raises for rows and options
        raise Refusal(
            f"PyOD's {config.model} cannot be fitted to {len(columns):,} rows of "
            f"{columns.shape[1]} columns ({type(error).__name__}): choose another model or options"
        ) from error
    return arrays


def _restore(config: PyODConfig, arrays: Arrays, width: int) -> Any:
    """A model with these arrays, which a stranger may have written.

    Raises Refusal for arrays that are not the model's: compiled code would read beyond their ends.
    """
    kind = MODELS[config.model]
    try:
        if not kind.arrays:
            _expect_rows(arrays, width)
            return _make(config).fit(arrays["rows"])
        rows = max(_DRAFT_ROWS, 2 * width)
        draft = _make(config).fit(np.random.default_rng(0).normal(size=(rows, width)))
        for path in kind.arrays:
            _write(draft, path, arrays[path], path in kind.free)
        if config.model == "OCSVM":
            _complete_support(draft.detector_)
        draft.decision_function(np.zeros((2, width)))
    except Exception as error:  # of the arrays, or of options that need more rows than the draft's
        raise Refusal(
            f"expected the arrays of PyOD's {config.model} with {config.options}, found others "
            f"({type(error).__name__}: {error}): choose other options, or train again"
        ) from error
    return draft


def _expect_rows(arrays: Arrays, width: int) -> None:
    rows = arrays["rows"]
    if rows.ndim != 2 or rows.shape[1] != width or not np.isfinite(rows).all():
        raise ValueError(f"rows of {width} finite columns")


def _complete_support(machine: Any) -> None:
    """What libsvm needs beside its vectors; it reads as many coefficients as there are vectors."""
    vectors = len(machine.support_vectors_)
    if machine._dual_coef_.shape != (1, vectors):
        raise ValueError("as many coefficients as support vectors")
    machine.support_ = np.arange(vectors, dtype=np.int32)
    machine._n_support = np.array([vectors, vectors], np.int32)


def _read(model: Any, path: str) -> Any:
    for name in path.split("."):
        model = getattr(model, name)
    return model


def _write(model: Any, path: str, array: NDArray[np.float64], free: bool) -> None:
    """Put an array where the draft has one of its shape; a `free` one may be longer or shorter."""
    *outer, last = path.split(".")
    owner = _read(model, ".".join(outer)) if outer else model
    draft = np.asarray(getattr(owner, last))
    fits = array.ndim == draft.ndim if free else array.shape == draft.shape
    if not fits or not np.isfinite(array).all():
        raise ValueError(f"{path} of the shape {draft.shape}, finite")
    setattr(owner, last, array.copy() if array.ndim else float(array))
