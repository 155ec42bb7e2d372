"""Rows of signals on their way: read from Parquet, carried as tables, scored and explained."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from cluster.lake.days import ALL
from cluster.lake.input.partitions import Source
from cluster.lake.input.snapshot import take_snapshot
from cluster.lake.input.splits import cut_splits
from cluster.splits import chunks
from cluster.splits.admission import CHUNKS, Intake
from cluster.training.row_tables import from_table, to_table
from models.columns import FeatureColumn, Image, Numeric, Roles, Sequence, Text, Vector, Video
from models.detectors.catalog import CATALOG
from models.eager import EagerModel
from models.encoding.encoder import Encoder
from models.encoding.raw_batch import Array, RawBatch, join
from tests.models.flows import batch_of, fit
from tests.models.media import mixed

COLUMNS: tuple[FeatureColumn, ...] = (
    Image("picture", 8),
    Text("message", 32, 16),
    Vector("embedding"),
    Sequence("series", length=5),
    Sequence("events", length=5),
    Video("clip", 2, 8),
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return mixed(40)


@pytest.fixture(scope="module")
def encoder(table: pa.Table) -> Encoder:
    return fit(table, COLUMNS)


def same(left: RawBatch, right: RawBatch) -> bool:
    arrays: list[list[Array]] = [
        [one.values, one.codes, *one.signals, *one.tokens] for one in (left, right)
    ]
    pairs = zip(*arrays, strict=True)
    return all(  # to the bit: padding is NaN, which equals nothing
        a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs
    )


def test_rows_come_back_from_a_table_as_they_were(encoder: Encoder, table: pa.Table) -> None:
    extracted = encoder.extract(batch_of(table))
    labels = np.arange(len(table), dtype=np.float32)
    parts = pa.concat_tables(
        [to_table(extracted.take(part), labels[part]) for part in (slice(0, 13), slice(13, 40))]
    )
    back, label = from_table(parts)
    assert same(back, extracted)
    assert label.tolist() == labels.tolist()
    assert same(from_table(to_table(encoder.make_empty(), labels[:0]))[0], encoder.make_empty())


def test_a_table_carries_more_than_ten_signals_in_their_order() -> None:
    columns = tuple(Vector(f"v{i}") for i in range(12))
    rows = pa.table({f"v{i}": [[float(i)], [i + 1.0]] for i in range(12)})
    extracted = fit(rows, columns).extract(batch_of(rows))
    assert same(from_table(to_table(extracted, np.zeros(2, np.float32)))[0], extracted)


def test_rows_are_read_in_batches_that_suit_their_width(table: pa.Table, tmp_path: Path) -> None:
    encoder = fit(table, (Video("clip", 8, 128), Text("message")))
    pq.write_table(table, tmp_path / "rows.parquet")
    taken = take_snapshot(Source(str(tmp_path)), ALL)
    (split,) = cut_splits(taken, 1_000, 1 << 30)
    intake = Intake(str(tmp_path), encoder, Roles())
    assert encoder.layout.chunk_rows == 4  # 8 grey frames of 128 x 128 in 4 bytes are 512 KiB
    assert intake.batch_rows == CHUNKS * 4
    batches = list(intake.admit(split))
    assert [batch.extracted.rows for batch in batches] == [CHUNKS * 4, 40 - CHUNKS * 4]
    assert same(join([batch.extracted for batch in batches]), encoder.extract(batch_of(table)))


def test_scores_do_not_depend_on_how_rows_were_batched(encoder: Encoder, table: pa.Table) -> None:
    detector = CATALOG.build("autoencoder", encoder.layout, {}).eval()
    extracted = encoder.extract(batch_of(table))
    model = EagerModel(encoder, detector, CPU)
    whole = model.score(extracted)
    parts = [model.score(extracted.take(slice(a, b))) for a, b in ((0, 3), (3, 40))]
    assert whole.tobytes() == np.concatenate(parts).tobytes()
    told = chunks.explain_rows(model, encoder, extracted, Roles(), 3, set())
    reasons = told.reasons
    assert len(reasons) == len(told.pictures) == 40
    assert not any(told.pictures)
    assert all(
        reason["observed"] and reason["expected"] for reason in reasons.flatten().to_pylist()
    )
    places = np.arange(15 * encoder.layout.explained_rows) % 40  # in parts that are joined again
    many = chunks.explain_rows(model, encoder, extracted.take(places), Roles(), 3, set())
    assert many.reasons.equals(reasons.take(pa.array(places)))


def test_a_picture_shows_the_signal_that_is_most_to_blame_where_it_may_be_shown(
    table: pa.Table,
) -> None:
    encoder = fit(table, (Video("clip", 2, 16), Image("picture", 16), Text("message")))
    detector = CATALOG.build("autoencoder", encoder.layout, {}).eval()
    extracted = encoder.extract(batch_of(table))
    model = EagerModel(encoder, detector, CPU)

    def pictures(*allowed: str) -> list[Any]:
        roles = Roles(pictured=allowed)
        return chunks.explain_rows(model, encoder, extracted, roles, 3, {0, 39}).pictures

    shown = pictures("picture")
    assert [i for i, one in enumerate(shown) if one] == [0, 39]
    assert shown[39]["feature"] == "picture"
    assert shown[39]["png"].startswith(b"\x89PNG")
    assert pictures("clip")[0]["feature"] == "clip"
    assert not any(pictures()), "a sensitive column is in no picture"


def test_the_names_of_channels_are_read_with_the_schema(tmp_path: Path) -> None:
    steps = pa.list_(pa.list_(pa.float32(), 2))
    field = pa.field("s", steps, metadata={b"channels": b'["up", "down"]'})
    schema = pa.schema([field, pa.field("n", pa.float64())])
    rows = pa.table({"s": pa.array([[[1, 2], [3, 4]]], steps), "n": [1.0]}, schema)
    pq.write_table(rows, tmp_path / "rows.parquet")
    read = take_snapshot(Source(str(tmp_path)), ALL).schema
    batch = batch_of(pq.read_table(tmp_path / "rows.parquet"))
    encoder = fit(pa.Table.from_batches([batch]).cast(read), (Sequence("s"), Numeric("n")))
    assert encoder.layout.signals[0].channels == ("up", "down")
