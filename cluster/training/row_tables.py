"""Raw encoder inputs as Arrow tables, which Ray Data streams to the workers."""

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from models.encoding.raw_batch import Array, RawBatch


def to_table(extracted: RawBatch, labels: np.ndarray) -> pa.Table:
    """A table with fixed-size lists `values`, `codes`, `signal 0`, …, `tokens 0`, …, and `label`:
    float32, NaN if unknown."""
    columns = {
        "values": _lists(extracted.values, pa.float32()),
        "codes": _lists(extracted.codes.astype(np.int32), pa.int32()),
    }
    for i, signal in enumerate(extracted.signals):
        columns[f"signal {i}"] = _lists(signal, pa.from_numpy_dtype(signal.dtype))
    for i, tokens in enumerate(extracted.tokens):
        columns[f"tokens {i}"] = _lists(tokens, pa.int32())
    return pa.table({**columns, "label": pa.array(labels, pa.float32())})


def from_table(table: pa.Table) -> tuple[RawBatch, Tensor]:
    """The rows that `to_table` was given, and their labels: float32 [rows]."""
    table = table.combine_chunks()

    def all_of(kind: str) -> tuple[Array, ...]:
        names = [f"{kind} {i}" for i in range(table.num_columns)]
        return tuple(_matrix(table.column(n)) for n in names if n in table.column_names)

    extracted = RawBatch(
        _matrix(table.column("values")),
        _matrix(table.column("codes")).astype(np.int64),
        (),
        all_of("signal"),
        all_of("tokens"),
    )
    label = table.column("label").to_numpy().astype(np.float32, copy=True)
    return extracted, torch.from_numpy(label)


def _lists(array: Array, kind: pa.DataType) -> pa.Array:
    if not array.shape[1]:
        return pa.array([[]] * len(array), pa.list_(kind, 0))
    flat = pa.array(np.ascontiguousarray(array).reshape(-1), kind)
    return pa.FixedSizeListArray.from_arrays(flat, array.shape[1])


def _matrix(column: pa.ChunkedArray) -> Array:
    """A copy of the column, [rows, width]."""
    width, dtype = column.type.list_size, column.type.value_type.to_pandas_dtype()
    if not len(column) or not width:
        return np.empty((len(column), width), dtype)
    flat = column.chunk(0).flatten().to_numpy(zero_copy_only=False)
    matrix: Array = flat.astype(dtype, copy=True).reshape(-1, width)
    return matrix
