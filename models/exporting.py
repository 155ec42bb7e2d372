"""Exports a detector with its encoder to ONNX: raw values and codes in, scores or evidence out.

Torch's exporter by tracing is used, not the one by `torch.export`: on the detectors of the
catalogue it takes 0.1 to 0.5 s where the other takes 5, and its graphs were as fast.
"""

import io
import math
import warnings
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn

from models.compiled import (
    EVIDENCE,
    SCORE,
    CompiledModel,
    Graph,
    Graphs,
    make_feed,
)
from models.detectors.detector import Detector
from models.eager import EagerModel
from models.encoding.encoder import Encoder
from models.encoding.raw_batch import RawBatch

OPSET = 20  # the first with Gelu
# Scores that differ by more from those of torch are not taken: relative to the score, or to the
# median of all where a score is near zero.
TOLERANCE = 1e-4
_SUMS = ("ReduceSum", "ReduceMean")
# Places by which rows are moved to see that their scores stay the same, bit for bit: no multiple of
# the numbers that a CPU computes at once.
_SHIFT = 7


class Compiled(NamedTuple):
    """The graphs of a detector, or why it stays with torch."""

    graphs: Graphs | None
    reason: str | None  # without graphs
    difference: float | None  # the largest, relative, with graphs


def compile_detector(
    encoder: Encoder, detector: Detector, rows: RawBatch, threshold: float
) -> Compiled:
    """Export a detector on the CPU, and compare its scores of these rows with torch's.

    The graphs are taken if the largest relative difference is at most TOLERANCE, and if the same
    rows are above the threshold; those that are at it do not count.
    """
    if detector.eager is not None:
        return Compiled(None, detector.eager, None)
    eager = EagerModel(encoder, detector, torch.device("cpu"))
    try:
        graphs = export(encoder, detector)
        model = CompiledModel(encoder, graphs, lambda: eager)
        found = model.score(rows)
    except Exception as error:  # the exporter and the runtime have no error of their own
        return Compiled(None, f"it cannot be exported ({type(error).__name__})", None)
    wanted = eager.score(rows)
    if model.score(rows.take(slice(_SHIFT, None))).tobytes() != found[_SHIFT:].tobytes():
        return Compiled(None, "compiled scores depend on the places of rows in a chunk", None)
    size = np.maximum(np.abs(wanted), np.median(np.abs(wanted)) if len(wanted) else 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        differences = np.where(found == wanted, 0, np.abs(found - wanted) / size)
    difference = float(np.max(differences, initial=0))
    if not difference <= TOLERANCE:
        return Compiled(None, f"its scores differ by {difference:.2g} when compiled", None)
    at = wanted == np.float32(threshold)  # a threshold may be the score of one of these rows
    if (((found > threshold) != (wanted > threshold)) & ~at).any():
        return Compiled(None, "other rows are flagged when it is compiled", None)
    return Compiled(graphs, None, difference)


def export(encoder: Encoder, detector: Detector) -> Graphs:
    """The graphs of a detector that has its weights. They compute chunks of a fixed size."""
    layout = encoder.layout
    scorer = _export(_Scores(encoder, detector), encoder, layout.chunk_rows, [SCORE])
    if detector.explains_by_gradients:
        return Graphs(scorer, None)
    counts = (1, 1, 1, len(layout.signals), len(layout.tokens), -1, len(layout.signals))
    graph = _Evidence(encoder, detector)
    feed = _make_tensors(encoder, layout.explained_rows)
    with torch.no_grad():
        maps = len(graph(*feed)) - sum(counts) - 1
    names = [
        f"{name}.{i}"
        for name, count in zip(EVIDENCE, counts, strict=True)
        for i in range(maps if count < 0 else count)
    ]
    return Graphs(scorer, _export(graph, encoder, layout.explained_rows, names))


class _Scores(nn.Module):
    def __init__(self, encoder: Encoder, detector: Detector) -> None:
        super().__init__()
        self.encoder, self.detector = encoder, detector
        self.signals = len(encoder.layout.signals)

    def forward(self, values: Tensor, codes: Tensor, *wide: Tensor) -> Tensor:
        signals, tokens = wide[: self.signals], wide[self.signals :]
        return self.detector.score(self.encoder.scale(values.T, codes.T, signals, tokens)).float()


class _Evidence(_Scores):
    def forward(self, values: Tensor, codes: Tensor, *wide: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        signals, tokens = wide[: self.signals], wide[self.signals :]
        batch = self.encoder.scale(values.T, codes.T, signals, tokens)
        found = self.detector.contributions(batch)
        wanted = found.expected
        return (
            found.shares,
            wanted.numeric,
            wanted.codes,
            *wanted.signals,
            *wanted.tokens,
            *found.maps,
            *batch.signals,
        )


def _make_tensors(encoder: Encoder, rows: int) -> tuple[Tensor, ...]:
    feed = make_feed(encoder.make_empty().pad(rows))
    return tuple(torch.from_numpy(array) for array in feed.values())


def _export(graph: nn.Module, encoder: Encoder, rows: int, outputs: list[str]) -> bytes:
    file = io.BytesIO()
    chunk = encoder.make_empty().pad(rows)
    feed = make_feed(chunk)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that shapes are constants, which they are
        torch.onnx.export(
            graph.eval(),
            tuple(torch.from_numpy(array) for array in feed.values()),
            file,  # type: ignore[arg-type]  # by tracing, any file is written
            dynamo=False,
            opset_version=OPSET,
            input_names=list(feed),
            output_names=outputs,
        )
    return _sum_by_products(file.getvalue(), chunk)


def _sum_by_products(data: bytes, rows: RawBatch) -> bytes:
    """Replace sums and means over the last axes of an ONNX model by products with a vector. `rows`
    are a chunk, which says what shapes the arrays have.

    onnxruntime sums the numbers of a row in an order that depends on where the row lies in memory,
    so that its last bit depends on its place in the chunk; a product's does not.
    """
    model = onnx.load_from_string(data)
    graph = model.graph
    summed = {node.input[0] for node in graph.node if node.op_type in _SUMS}
    more = sorted(summed - {one.name for one in graph.output})
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in more)
    arrays = Graph("the exported graph", model.SerializeToString()).run(rows)
    del graph.output[len(graph.output) - len(more) :]
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
    nodes = []
    for node in graph.node:
        if node.op_type in _SUMS and arrays[node.input[0]].dtype == np.float32:
            shape = list(arrays[node.input[0]].shape)
            axes = sorted(int(axis) % len(shape) for axis in constants[node.input[1]])
            if axes == list(range(len(shape) - len(axes), len(shape))):
                made = _multiply(node, shape, len(axes))
                nodes += made.node
                graph.initializer.extend(made.initializer)
                continue
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return bytes(model.SerializeToString())


def _multiply(node: onnx.NodeProto, shape: list[int], axes: int) -> onnx.GraphProto:
    """The nodes, and their constants, in place of one that sums or averages the last `axes` axes of
    an array of this shape."""
    kept, reduced = shape[:-axes], math.prod(shape[-axes:])
    keeps = not node.attribute or onnx.helper.get_node_attr_value(node, "keepdims")
    weight = 1 / reduced if node.op_type == "ReduceMean" else 1.0
    (out,) = node.output
    constants: dict[str, npt.NDArray[Any]] = {
        f"{out}/rows": np.array([-1, reduced], np.int64),
        f"{out}/weights": np.full((reduced, 1), weight, np.float32),
        f"{out}/shape": np.array([*kept, *([1] * axes if keeps else [])], np.int64),
    }
    rows, weights, final = constants
    steps = [
        ("Reshape", [node.input[0], rows], f"{out}/flat"),
        ("MatMul", [f"{out}/flat", weights], f"{out}/sums"),
        ("Reshape", [f"{out}/sums", final], out),
    ]
    return onnx.helper.make_graph(
        [onnx.helper.make_node(kind, given, [made]) for kind, given, made in steps],
        out,
        [],
        [],
        [onnx.numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
