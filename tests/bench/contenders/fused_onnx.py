"""The folded autoencoder as an ONNX graph, built by hand, run by onnxruntime."""

from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-not-found,import-untyped,unused-ignore]
from onnx import (  # type: ignore[import-not-found,unused-ignore]
    TensorProto,
    helper,
    numpy_helper,
)

from tests.bench.contenders.fused import FACTORS, Floats, Fused, Ints

_OPSET = 20  # the first with Gelu
_IR = 10


class OnnxKernel:
    """onnxruntime, one thread."""

    def __init__(self, fused: Fused) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        graph = Graph(fused).model()
        self._session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, values: Floats, combined: Ints, codes: Ints) -> Floats:
        inputs = {"values": values, "combined": combined, "codes": codes}
        scores: Floats = self._session.run(None, inputs)[0]
        return scores


class Graph:
    """Writes the graph node by node; every method returns the name of its output."""

    def __init__(self, fused: Fused) -> None:
        self.fused = fused
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._axis = self._constant(np.array([0]))

    def model(self) -> bytes:
        n, k = len(self.fused.numbers), len(self.fused.sizes)
        score = self._score(self._outputs())
        self._nodes.append(helper.make_node("Identity", [score], ["score"]))
        describe = helper.make_tensor_value_info
        graph = helper.make_graph(
            self._nodes,
            "autoencoder",
            [
                describe("values", TensorProto.FLOAT, [n, None]),
                describe("combined", TensorProto.INT32, [None]),
                describe("codes", TensorProto.INT32, [k, None]),
            ],
            [describe("score", TensorProto.FLOAT, [None])],
            self._constants,
        )
        opsets = [helper.make_opsetid("", _OPSET)]
        model: bytes = helper.make_model(
            graph, opset_imports=opsets, ir_version=_IR
        ).SerializeToString()
        return model

    def _outputs(self) -> str:
        """The last layer's outputs [n + codes, rows]."""
        fused = self.fused
        share = self._node("Gather", self._constant(fused.table), "combined")
        first = self._node("Gemm", "values", self._constant(fused.first), share, transA=1)
        hidden = self._node("Gelu", first)
        for i, (weight, bias) in enumerate(fused.layers):
            hidden = self._node("Gemm", hidden, self._constant(weight), self._constant(bias))
            if i != fused.latent:
                hidden = self._node("Gelu", hidden)
        last_bias = self._constant(fused.last_bias[:, None])
        return self._node("Gemm", self._constant(fused.last), hidden, last_bias, transB=1)

    def _score(self, outputs: str) -> str:
        fused, n = self.fused, len(self.fused.numbers)
        parts = self._split(outputs, [n, *fused.sizes])
        residual = self._node("Sub", "values", parts[0])
        scaled = self._node(
            "Mul", self._node("Mul", residual, residual), self._constant(fused.precision[:, None])
        )
        factors = self._product(self._node("Add", scaled, self._constant(np.float32(1))), n)
        codes = self._split("codes", [1] * len(fused.sizes))
        for logits, code, precision in zip(parts[1:], codes, fused.category_precision, strict=True):
            factors.append(self._category(logits, code, precision))
        log = self._node("Log", self._node("Concat", *factors, axis=0))
        return self._node("ReduceSum", log, self._axis, keepdims=0)

    def _product(self, factors: str, count: int) -> list[str]:
        """Products of `FACTORS` rows each, and the rows left over."""
        each = count // FACTORS
        if not each:
            return [factors]
        sizes = [each] * FACTORS + ([count % FACTORS] if count % FACTORS else [])
        product, *others = self._split(factors, sizes)
        for other in others[: FACTORS - 1]:
            product = self._node("Mul", product, other)
        return [product, *others[FACTORS - 1 :]]

    def _category(self, logits: str, code: str, precision: float) -> str:
        """1 + Brier / v, the Brier score as (sum e^2 / S - 2 e_hit) / S + 1 with S = sum e."""
        peak = self._node("ReduceMax", logits, self._axis, keepdims=1)
        odds = self._node("Exp", self._node("Sub", logits, peak))
        total = self._node("ReduceSum", odds, self._axis, keepdims=1)
        squares = self._node("ReduceSum", self._node("Mul", odds, odds), self._axis, keepdims=1)
        hit = self._node("GatherElements", odds, code, axis=0)
        twice = self._node("Add", hit, hit)
        inner = self._node("Sub", self._node("Div", squares, total), twice)
        brier = self._node("Div", inner, total)
        scaled = self._node("Mul", brier, self._constant(np.float32(precision)))
        return self._node("Add", scaled, self._constant(np.float32(1 + precision)))

    def _split(self, values: str, sizes: list[int]) -> list[str]:
        names = [f"split{len(self._nodes)}_{i}" for i in range(len(sizes))]
        inputs = [values, self._constant(np.array(sizes))]
        self._nodes.append(helper.make_node("Split", inputs, names, axis=0))
        return names

    def _node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def _constant(self, values: Any) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(
            numpy_helper.from_array(np.ascontiguousarray(values).reshape(np.shape(values)), name)
        )
        return name
