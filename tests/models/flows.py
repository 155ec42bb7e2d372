"""Small tables of network flows for the tests of the encoder."""

import random
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import torch

from models.batch import Batch
from models.columns import (
    Boolean,
    Categorical,
    FeatureColumn,
    IPAddress,
    Numeric,
    Port,
    Timestamp,
)
from models.encoding.encoder import Encoder
from models.encoding.fit import EncoderFit
from models.encoding.raw_batch import RawBatch

COLUMNS: tuple[FeatureColumn, ...] = (
    Numeric("duration", scale="robust", log1p=True),
    Numeric("bytes", scale="quantile"),
    Numeric("packets", low=0, high=1e6),
    Categorical("proto"),
    Categorical("service", encoding="embedding", max_values=2),
    Boolean("established"),
    IPAddress("src", same_network_as="dst"),
    Port("dst_port", top=2),
    Timestamp("ts"),
)
START = datetime(2026, 11, 22, 12)  # a Sunday


def flows(rows: int = 200, seed: int = 7) -> pa.Table:
    """Flows without nulls or problems."""
    if not rows:
        return flows(1).slice(0, 0)
    chance = random.Random(seed)
    columns: dict[str, Any] = {
        "duration": [chance.expovariate(0.2) for _ in range(rows)],
        "bytes": [chance.lognormvariate(6, 2) for _ in range(rows)],
        "packets": [chance.randrange(1, 100) for _ in range(rows)],
        "proto": [chance.choice(["tcp", "tcp", "udp"]) for _ in range(rows)],
        "service": [
            chance.choice(["http", "http", "http", "dns", "dns", "ssh"]) for _ in range(rows)
        ],
        "established": [chance.random() < 0.8 for _ in range(rows)],
        "src": [f"10.0.0.{chance.randrange(1, 250)}" for _ in range(rows)],
        "dst": [f"10.0.{chance.randrange(3)}.{chance.randrange(1, 250)}" for _ in range(rows)],
        "dst_port": [chance.choice([80, 80, 80, 53, 53, 50_000]) for _ in range(rows)],
        "ts": pa.array(
            [START + timedelta(minutes=chance.randrange(-300, 300)) for _ in range(rows)],
            pa.timestamp("us"),
        ),
    }
    return pa.table(columns)


def batch_of(table: pa.Table) -> pa.RecordBatch:
    return (
        table.combine_chunks().to_batches()[0]
        if len(table)
        else pa.RecordBatch.from_pylist([], table.schema)
    )


def fit(table: pa.Table, columns: tuple[FeatureColumn, ...] = COLUMNS) -> Encoder:
    statistics = EncoderFit(columns, table.schema)
    statistics.update(batch_of(table))
    return statistics.finish()


def one_column(values: Any, column: FeatureColumn) -> Encoder:
    """An encoder fitted on a single column."""
    return fit(pa.table({column.name: values}), (column,))


def encode(encoder: Encoder, table: pa.Table) -> Batch:
    extracted = encoder.extract(batch_of(table))
    encoded: Batch = encoder(extracted)
    return encoded


def column_of(encoder: Encoder, table: pa.Table, name: str) -> list[float]:
    names = [i.name for i in encoder.layout.numeric]
    values: list[float] = encode(encoder, table).numeric[:, names.index(name)].tolist()
    return values


def extract_one(encoder: Encoder, values: Any) -> RawBatch:
    """The raw values of its only column."""
    return encoder.extract(batch_of(pa.table({encoder.required[0]: values})))


def assert_same(left: Batch, right: Batch) -> None:
    assert torch.equal(left.numeric, right.numeric)
    assert torch.equal(left.codes, right.codes)
