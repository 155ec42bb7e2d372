"""Digests that lakes already hold: each is computed anew and compared with a fixed one.

A digest that changes here orphans bundles, journals and derived rows that were written before.
"""

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cluster.lake.derived import derivation_input
from cluster.lake.derived.derivation import Derivation
from cluster.lake.derived.derive import Deriver
from cluster.lake.derived.history import History
from cluster.lake.derived.windows import Window
from cluster.lake.input.input_file import FileColumn, InputFile, RejectedFile, RowGroup
from cluster.lake.input.partitions import Source
from cluster.lake.input.snapshot import Snapshot
from cluster.lake.input.splits import cut_splits, group_tasks
from cluster.lake.registry.registry import Entry
from cluster.lake.registry.signatures import SigningKey
from jobs.scoring.run import Run
from jobs.spec.spec import Spec, load
from models.bundle import _checksum
from models.layout import CategoryInput, Layout, NumericInput, SignalInput, TokenInput
from models.scores.sketch import ScoreSketch
from models.scores.threshold import Calibration, Threshold

SPEC = """\
name: flows
input: {uri: data/flows, partition: day, filter: "proto != 'müll'"}
columns:
  uid:      {role: id}
  ts:       {role: [time, timestamp]}
  größe:    {role: numeric, log1p: true, range: [0, null]}
  label:    {role: label}
detector: {name: autoencoder, widths: [64, 32]}
training: {learning_rate: 1e-3, days: 2026-01-01..2026-01-13}
threshold: {policy: quantile, contamination: 0.01}
output: {uri: out/flows}
"""

DAY = Snapshot(
    uri="data/flows",
    day="2026-01-14",
    files=(
        InputFile(
            key="day=2026-01-14/größe.parquet",
            size=1_234,
            version="17-1234-5",
            rows=10,
            row_groups=(RowGroup(4, 400), RowGroup(6, 600)),
            columns=(FileColumn("größe", pa.float64()),),
        ),
        InputFile("day=2026-01-14/b.parquet", 99, "etag", 3, (RowGroup(3, 30),), ()),
    ),
    rejected=(RejectedFile("day=2026-01-14/c.parquet", "empty_file", "c has zero bytes"),),
    schema=pa.schema([pa.field("größe", pa.float64())]),
)

LAYOUT = Layout(
    numeric=(NumericInput("größe", "real"), NumericInput("internal", "binary")),
    categories=(CategoryInput("service", 40, embedding=6),),
    signals=(SignalInput("load", "series", (3, 12), masked=True, channels=("a", "b", "c")),),
    tokens=(TokenInput("events", 12, 10),),
)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spec:
    monkeypatch.chdir(tmp_path)
    Path("flows.yaml").write_text(SPEC)
    return load(Path("flows.yaml"))


@pytest.fixture
def calibration() -> Calibration:
    scores = ScoreSketch()
    scores.update(np.arange(20, dtype=np.float32) / 7)
    return Calibration(scores)


def test_a_snapshot_its_splits_and_its_tasks_keep_their_ids() -> None:
    assert DAY.digest == "fb2fb4f39275a7f26bb7153d0392eaf77f133b7ab6f6b27482768eea9f25b89f"
    cut = cut_splits(DAY, max_rows=4, max_bytes=10_000)
    assert [split.id for split in cut] == [
        "4e2a5ca5dd1f9ba39813",
        "0b470f2800d9cf9a038d",
        "2773f8a9b4f9cdb4950b",
        "83d0a293924a3a3f2ab3",
    ]
    assert [task.id for task in group_tasks(cut, max_rows=7, max_bytes=10_000)] == [
        "317a85b5ece451bd7d8d",
        "85a24a2d8636a1e8d0ba",
    ]


def test_derived_rows_keep_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duckdb, "__version__", "2.0.0")
    monkeypatch.setattr(derivation_input, "list_days", lambda source: (DAY.day,))
    monkeypatch.setattr(derivation_input, "take_snapshot", lambda source, day: DAY)
    derivation = Derivation(
        columns=("uid", "größe"),
        time="ts",
        history=(History("src", ("1h", "1d"), of="größe"),),
        window=Window("src", 8, ("größe",)),
    )
    with Deriver(derivation, Source("data/flows", "day"), str(tmp_path)) as deriver:
        assert (
            deriver.input.digest(DAY.day)
            == "bad24ba07e18d787441140775dfc2e5dd800156f86229f5e2086568d88c5622a"
        )


def test_a_spec_and_its_run_keep_their_digests(spec: Spec) -> None:
    # A new key of the spec changes these three: nights that are half done then begin anew.
    assert spec.digest == "36daa7b85f28d081d6d59ef1dafb8ea801ecc177984dae0a2821d0d17dc55a54"
    assert spec.scoring_digest == "519d74046a0890c539bcab20f1bedbee5eac0b7239548655be8efde706cf8018"
    assert (
        spec.training_digest == "5d7d60b73b252f20fbbe886e76f2a0fe2b1407689a3298ab36f5a8a44a3f3c77"
    )
    bundle, threshold = SimpleNamespace(digest="b" * 64), SimpleNamespace(id="c" * 16)
    parts: list[Any] = [None, bundle, threshold, DAY, None, "onnx"]
    run = Run(spec, DAY.day, *parts)
    assert run.run_id == "53b4713a76dafdbb"


def test_a_layout_keeps_its_digest() -> None:
    assert (
        LAYOUT.digest().hex() == "992fa9d4b1211e95bb0b54d3b5898326def1037a710b438e9164ec280f9fe43e"
    )


def test_a_bundle_keeps_its_checksum() -> None:
    document = {"format": 1, "detector": {"name": "pca", "options": {"x": 0.1}}, "größe": [1, None]}
    assert _checksum(document) == "7ad5275878818199211638f577f1f4490432c8e8cc33c1e9208023713a14e335"


def test_a_calibration_and_a_threshold_keep_their_digests(calibration: Calibration) -> None:
    assert calibration.digest == "22b7dcff6140ce4bc472249e86e631a5a1842fd515d3a675dc16c17d1a255997"
    policy = {"policy": "quantile", "contamination": 0.01, "note": "größe"}
    threshold = Threshold(2.5, policy, "b" * 16, calibration.digest)
    assert threshold.id == "a78c862c96f3f827"
    assert (
        sha256(threshold.to_json())
        == "a78c862c96f3f827ef37d861071de91257642bd4aaab33d7ac95c01e15161fc4"
    )


def test_an_entry_of_the_registry_keeps_its_signature() -> None:
    key = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
    entry = Entry(7, "b" * 16, "c" * 16, "größer", "2026-01-14", {"pca": "d"}, {"b": "e"}, "f")
    signature = key.sign(entry.statement("flows"))
    assert signature.key == "ed25519:A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
    assert signature.value == (
        "FJCEWJAxhbNzqQIcaL+PMPwbOvVwmrcJhjQ8jWqYiwNLsmg5TsfFvjzz0rxK3uGVA3TBj4C/xEJ2A0TYJbK3BQ=="
    )
