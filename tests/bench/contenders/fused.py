"""The autoencoder of a bundle, folded for bulk scoring: numpy arrays, and two ways to run them.

The same mathematics as `models.detectors.autoencoder`, rearranged. Standardisation goes into the
first and the last layer, so that residuals are taken in the input's unit; the one-hot categories
become one look-up in a table of the first layer's outputs; of the logarithms of the residuals' sum,
four are taken of a product at a time. Matrices of inputs and outputs are [columns, rows], so that a
column of Arrow is copied, and clipped, in one pass over contiguous memory.

It reads the bundle's files without torch: importing that takes longer than scoring 200,000 rows.
"""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from safetensors import safe_open

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

# Rows at a time: the activations of 64 units fit the cache.
CHUNK = 4096
_SPECIAL, _NULL = 2, 1  # codes before a vocabulary: 0 is "other", 1 is null
# A look-up table of the first layer has a row for each combination of categories.
_MOST_COMBINATIONS = 4096
# Factors 1 + r^2 / v whose product stays in float32: each would have to be 4e9 to overflow.
FACTORS = 4


@dataclass(frozen=True)
class Fused:
    """The folded arrays. n numbers, k categories of c_1 … c_k codes, h units in the first layer."""

    numbers: tuple[str, ...]
    vocabularies: dict[str, tuple[str, ...]]
    sizes: tuple[int, ...]  # codes of each category
    low: Floats  # [n], least value that is not clipped
    high: Floats  # [n]
    first: Floats  # [n, h]
    table: Floats  # [c_1 × … × c_k, h]: the share of the categories, and the bias
    layers: tuple[tuple[Floats, Floats], ...]  # (weight [in, out], bias [out]) up to the last
    latent: int  # the index in `layers` of the one without an activation
    last: Floats  # [n + c_1 + … + c_k, in]
    last_bias: Floats  # [n + c_1 + … + c_k]
    precision: Floats  # [n], 1 / variance of a residual, in the input's unit
    category_precision: tuple[float, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.vocabularies, *self.numbers)


def read(bundle: Path) -> Fused:
    """The autoencoder of the bundle in a folder. ValueError for one that is not so simple."""
    document = json.loads((bundle / "bundle.json").read_text())
    scaling = _tensors(bundle / "encoder.safetensors")
    network = _tensors(bundle / "detector.safetensors")
    sources = [source["column"] for source in document["encoder"]["sources"]]
    _need_simple(document, sources, scaling)
    vocabularies = {k: tuple(v) for k, v in document["encoder"]["vocabularies"].items()}
    sizes = tuple(len(v) + _SPECIAL for v in vocabularies.values())
    centre, width = scaling["scaling.centre"], scaling["scaling.width"]
    reach = scaling["scaling.clip"] * width
    n = len(centre)
    encoder, decoder = _stack(network, "encoder"), _stack(network, "decoder")
    (weight, bias), (last, last_bias) = encoder[0], decoder[-1]
    first = weight[:, :n].astype(np.float64) / width
    last, last_bias = last.astype(np.float64), last_bias.astype(np.float64)
    last[:n] *= width[:, None]
    last_bias[:n] = last_bias[:n] * width + centre
    variance = network["variance"].astype(np.float64)
    return Fused(
        numbers=tuple(c["name"] for c in sources if c["kind"] == "Numeric"),
        vocabularies=vocabularies,
        sizes=sizes,
        low=centre - reach,
        high=centre + reach,
        first=_float32(first.T),
        table=_table(weight[:, n:], bias - first @ centre, sizes),
        layers=tuple((_float32(w.T), b) for w, b in (*encoder[1:], *decoder[:-1])),
        latent=len(encoder) - 2,
        last=_float32(last),
        last_bias=_float32(last_bias),
        precision=_float32(1 / (variance[:n] * width**2)),
        category_precision=tuple((1 / variance[n:]).tolist()),
    )


def _need_simple(
    document: dict[str, Any], sources: list[dict[str, Any]], scaling: dict[str, Floats]
) -> None:
    """Folding is exact for linear scaling of numbers that are never null, and one-hot codes."""
    simple = document["detector"]["name"] == "autoencoder"
    simple &= all(
        c["kind"] == "Numeric" or (c["kind"] == "Categorical" and c["encoding"] == "onehot")
        for c in sources
    )
    simple &= not any(scaling[f"scaling.{name}"].size for name in ("logged", "nulls", "ranked"))
    if not simple:
        raise ValueError(
            "expected the bundle of an autoencoder over linearly scaled numbers without nulls and "
            "one-hot categories, found another: score it with `python -m jobs score`"
        )


def _tensors(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _stack(network: dict[str, Any], name: str) -> list[tuple[Floats, Floats]]:
    count = sum(key.startswith(f"{name}.") and key.endswith(".weight") for key in network)
    return [(network[f"{name}.{i}.weight"], network[f"{name}.{i}.bias"]) for i in range(count)]


def _float32(values: npt.NDArray[Any]) -> Floats:
    return np.ascontiguousarray(values, np.float32)


def _table(weight: Floats, bias: npt.NDArray[Any], sizes: tuple[int, ...]) -> Floats:
    """What the categories add to the first layer, for every combination of codes."""
    if np.prod(sizes, dtype=int) > _MOST_COMBINATIONS:
        raise ValueError(f"expected at most {_MOST_COMBINATIONS} combinations of categories")
    edges = np.concatenate([[0], np.cumsum(sizes)]).tolist()
    blocks = [weight.T[a:b].astype(np.float64) for a, b in itertools.pairwise(edges)]
    table = bias[None, :]
    for block in blocks:
        table = (table[:, None, :] + block[None, :, :]).reshape(-1, weight.shape[0])
    return _float32(table)


class Kernel(Protocol):
    """Runs the folded network over a chunk."""

    def __call__(self, values: Floats, combined: Ints, codes: Ints) -> Floats:
        """Scores [rows] of clipped numbers [n, rows], the row of the look-up table [rows], and
        the code in each category [k, rows]."""


def kernel(fused: Fused, backend: str | None = None) -> Kernel:
    """The runtime of that name, `onnx` or `torch`; without a name onnxruntime where there is one:
    it was 1.25 times as fast as eager torch, and is imported in a twentieth of the time."""
    if backend in (None, "onnx"):
        try:
            from tests.bench.contenders.fused_onnx import OnnxKernel

            return OnnxKernel(fused)
        except ModuleNotFoundError:
            if backend:
                raise
    from tests.bench.contenders.fused_torch import TorchKernel

    return TorchKernel(fused)


class Scorer:
    """Scores Arrow rows with one matrix that is filled again for every chunk.

    One thread at a time.
    """

    def __init__(self, fused: Fused, backend: str | None = None) -> None:
        self.fused = fused
        self._kernel = kernel(fused, backend)
        self._buffer = np.empty(len(fused.numbers) * CHUNK, np.float32)
        self._bounds = list(zip(fused.low.tolist(), fused.high.tolist(), strict=True))

    @property
    def columns(self) -> tuple[str, ...]:
        return self.fused.columns

    def scores(self, rows: pa.Table | pa.RecordBatch) -> Floats:
        """Scores [rows] of rows that hold `Fused.columns`."""
        filled = [numbers(rows.column(name)) for name in self.fused.numbers]
        found = [codes(rows.column(n), texts) for n, texts in self.fused.vocabularies.items()]
        table_rows = np.ravel_multi_index(tuple(found), self.fused.sizes).astype(np.int32)
        every = np.stack(found)
        result = np.empty(rows.num_rows, np.float32)
        for start in range(0, len(result), CHUNK):
            part = slice(start, min(start + CHUNK, len(result)))
            chunk = np.ascontiguousarray(every[:, part])
            result[part] = self._kernel(self._filled(filled, part), table_rows[part], chunk)
        return result

    def _filled(self, columns: list[npt.NDArray[Any]], part: slice) -> Floats:
        matrix = self._buffer[: len(columns) * (part.stop - part.start)].reshape(len(columns), -1)
        for row, column, (low, high) in zip(matrix, columns, self._bounds, strict=True):
            np.clip(column[part], low, high, out=row)
        return matrix


def numbers(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[Any]:
    """A column as it lies in memory. ValueError where it has nulls."""
    if column.null_count:
        raise ValueError("expected numbers without nulls")
    return np.asarray(_whole(column))


def codes(column: pa.Array | pa.ChunkedArray, vocabulary: tuple[str, ...]) -> Ints:
    """A column's texts as codes, by a table from those that occur to those that are known."""
    whole = _whole(column)
    encoded = whole if pa.types.is_dictionary(whole.type) else whole.dictionary_encode()
    known = {text: code + _SPECIAL for code, text in enumerate(vocabulary)}
    table = [known.get(text, 0) for text in encoded.dictionary.to_pylist()]
    indices = encoded.indices
    if indices.null_count:
        indices = indices.fill_null(len(table))
    found: Ints = np.array([*table, _NULL], np.int32)[np.asarray(indices)]
    return found


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One array; without a copy where it is one already."""
    if isinstance(column, pa.Array):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def blocks(sizes: tuple[int, ...], start: int) -> Iterator[tuple[int, int]]:
    """The ranges of the categories among the outputs, after the first `start`."""
    for size in sizes:
        yield start, start + size
        start += size
