"""A detector that is run by onnxruntime on a CPU, without torch.

Its graphs hold the encoder's arithmetic and the detector: raw values and codes go in, scores or
evidence come out. `models.exporting` makes them.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from models.encoding.extractor import Extractor
from models.encoding.raw_batch import Array, RawBatch
from models.evidence import Evidence
from models.refusal import Refusal

Floats = npt.NDArray[np.float32]

SCORE = "score"
EVIDENCE = Evidence._fields


class Graphs(NamedTuple):
    """Two ONNX models."""

    scorer: bytes
    explainer: bytes | None  # None if the detector explains its scores by gradients


class Model(Protocol):
    """A detector with its encoder, on one device."""

    def score(self, raw: RawBatch) -> Floats:
        """The score of each row, float32 [rows]."""

    def explain(self, raw: RawBatch) -> Iterator[tuple[RawBatch, Evidence]]:
        """Yield the rows in parts, each with the evidence for its scores."""


class CompiledModel:
    """Runs the graphs of a bundle. Threads may share it: a call computes in its own thread, without
    Python's lock."""

    def __init__(
        self, extractor: Extractor, graphs: Graphs, open_eager: Callable[[], Model]
    ) -> None:
        """`open_eager` gives the same detector in torch, for what the graphs do not have.

        Raises Refusal for graphs that are not of this extractor.
        """
        self.layout = extractor.layout
        self._open_eager, self._lock = open_eager, threading.Lock()
        self._eager: Model | None = None
        self._scorer = Graph("scorer.onnx", graphs.scorer)
        self._explainer = None
        if graphs.explainer is not None:
            self._explainer = Graph("explainer.onnx", graphs.explainer)

    def score(self, raw: RawBatch) -> Floats:
        """The score of each row, float32 [rows]."""
        found = [
            self._scorer.run(padded)[SCORE][: part.rows]
            for part, padded in raw.cut(self.layout.chunk_rows)
        ]
        return np.concatenate([np.empty(0, np.float32), *found])

    def explain(self, raw: RawBatch) -> Iterator[tuple[RawBatch, Evidence]]:
        """Yield the rows in parts, each with the evidence for its scores."""
        if self._explainer is None:
            with self._lock:
                self._eager = self._eager or self._open_eager()
            yield from self._eager.explain(raw)
            return
        for part, padded in raw.cut(self.layout.explained_rows):
            yield part, _to_evidence(self._explainer.run(padded)).take(slice(part.rows))


def make_feed(raw: RawBatch) -> dict[str, Array]:
    """The inputs of a graph by name. Values and codes are [columns, rows]: each column of rows is
    contiguous, as Arrow has it."""
    feed: dict[str, Array] = {
        "values": np.ascontiguousarray(raw.values.T),
        "codes": np.ascontiguousarray(raw.codes.T),
    }
    feed |= {f"signal{i}": np.ascontiguousarray(one) for i, one in enumerate(raw.signals)}
    return feed | {f"tokens{i}": np.ascontiguousarray(one) for i, one in enumerate(raw.tokens)}


class Graph:
    """An ONNX model in onnxruntime, in the thread that calls it."""

    def __init__(self, name: str, data: bytes) -> None:
        import onnxruntime  # type: ignore[import-untyped,unused-ignore]

        if b"location" in data:  # the key of weights in another file, which could be any
            raise Refusal(f"expected {name} with its weights in it; found names of other files")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self.name = name
        try:
            self.session = onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own errors have no common base
            raise Refusal(
                f"expected {name} to be a model that onnxruntime {onnxruntime.__version__} can "
                f"run; found another ({type(error).__name__}): train again"
            ) from error
        self.inputs = [one.name for one in self.session.get_inputs()]
        self.outputs = [one.name for one in self.session.get_outputs()]

    def run(self, padded: RawBatch) -> dict[str, Array]:
        """The outputs for a chunk by their names."""
        feed = make_feed(padded)
        try:
            found: list[Any] = self.session.run(None, {name: feed[name] for name in self.inputs})
        except Exception as error:
            raise Refusal(
                f"expected {self.name} of this encoder; found another ({type(error).__name__}): "
                "train again"
            ) from error
        return dict(zip(self.outputs, found, strict=True))


def _to_evidence(found: dict[str, Array]) -> Evidence:
    groups: dict[str, list[Array]] = {name: [] for name in EVIDENCE}
    for name, array in found.items():
        groups[name.partition(".")[0]].append(array)
    (shares,), (numeric,), (codes,), *wide = groups.values()
    return Evidence(shares, numeric, codes, *map(tuple, wide))
