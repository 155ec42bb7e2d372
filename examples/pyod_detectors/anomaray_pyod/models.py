"""The models of PyOD that can be saved as arrays, and how they are made from arrays again."""

import importlib
import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaray_pyod.forest import FOREST, put_trees, take_trees
from models.refusal import Refusal

Arrays = dict[str, NDArray[np.float64]]

# Rows that a model is made with before its arrays are put in; nothing of them stays.
_DRAFT_ROWS = 128


@dataclass(frozen=True)
class Kind:
    """Where a model is, and which arrays its scores depend on.

    A model without `arrays` computes its state from the training rows: these are saved, and it is
    fitted again when a bundle is opened.
    """

    module: str
    arrays: tuple[str, ...] = ()  # paths of attributes: "detector_.means_"
    free: tuple[str, ...] = ()  # those of `arrays` whose length depends on the training rows
    fixed: tuple[str, ...] = ()  # arguments that keep their default


MODELS = {
    "GMM": Kind(
        "gmm", ("detector_.weights_", "detector_.means_", "detector_.precisions_cholesky_")
    ),
    "HBOS": Kind("hbos", ("hist_", "bin_edges_")),
    "IForest": Kind("iforest", FOREST, fixed=("max_features", "behaviour")),
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
    "KPCA": "it saves a random generator, and as many numbers as rows times rows",
    "LMDD": _OF_BATCH,
    "LOCI": "a fit of 2,000 rows takes more than a minute",
    "MAD": "it takes one column only",
    "ROD": _OF_BATCH,
    "SOD": f"{_OF_BATCH}, and one row has none",
    "SOS": _OF_BATCH,
}


def load(name: str) -> Any:
    """The class of a model."""
    return getattr(importlib.import_module(f"pyod.models.{MODELS[name].module}"), name)


def _make(name: str, options: dict[str, Any], seed: int = 0) -> Any:
    """An untrained model.

    Neighbours are looked up in a tree: without one sklearn rounds their distances differently in
    another batch. PCA leaves out components of no variance, by which it would divide: one-hot
    columns have some.
    """
    kind = load(name)
    own: dict[str, Any] = {"random_state": seed, "algorithm": "kd_tree"}
    if name == "PCA":
        own["n_components"] = 0.99
    known = inspect.signature(kind).parameters
    return kind(**{name: value for name, value in own.items() if name in known} | options)


def list_arguments(name: str) -> set[str]:
    """The arguments of a model that a spec may set."""
    fixed = {"n_jobs", "random_state", "verbose", *MODELS[name].fixed}
    return set(inspect.signature(load(name)).parameters) - fixed


def fit(name: str, options: dict[str, Any], rows: NDArray[np.float64], seed: int) -> Arrays:
    """The arrays of a model that is fitted to rows. Raises Refusal for what PyOD cannot fit."""
    kind = MODELS[name]
    if not kind.arrays:
        return {"rows": rows}
    try:
        model = _make(name, options, seed).fit(rows)
        if kind.arrays == FOREST:
            return take_trees(model.detector_)
        return {path: np.asarray(_read(model, path), np.float64) for path in kind.arrays}
    except Exception as error:  # whatever PyOD raises for rows and options
        raise Refusal(
            f"PyOD's {name} cannot be fitted to {len(rows):,} rows of {rows.shape[1]} columns "
            f"({type(error).__name__}): choose another model or options"
        ) from error


def restore(name: str, options: dict[str, Any], arrays: Arrays, width: int) -> Any:
    """A model with these arrays, which a stranger may have written.

    Raises Refusal for arrays that are not the model's: compiled code would read beyond their ends.
    """
    kind = MODELS[name]
    try:
        if not kind.arrays:
            _expect_rows(arrays, width)
            return _make(name, options).fit(arrays["rows"])
        rows = max(_DRAFT_ROWS, 2 * width)
        draft = _make(name, options).fit(np.random.default_rng(0).normal(size=(rows, width)))
        if kind.arrays == FOREST:
            put_trees(draft.detector_, arrays)
        else:
            for path in kind.arrays:
                _write(draft, path, arrays[path], path in kind.free)
        if name == "OCSVM":
            _complete_support(draft.detector_)
        draft.decision_function(np.zeros((2, width)))
    except Exception as error:  # of the arrays, or of options that need more rows than the draft's
        raise Refusal(
            f"expected the arrays of PyOD's {name} with {options}, found others "
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
