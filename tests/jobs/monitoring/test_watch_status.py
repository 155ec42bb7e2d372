"""The status of a watch, from its records in the lake alone."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from cluster.lake.output.table import Commit, LakeTable
from cluster.lake.storage.opening import open_store
from jobs.monitoring.endpoint import Destinations
from jobs.monitoring.exporter import run_exporter
from jobs.monitoring.metric_names import Metric
from jobs.monitoring.watch_status import WatchStatus
from jobs.spec.spec import Spec, load
from models.refusal import Refusal
from tests.conftest import free_port
from tests.jobs.monitoring.test_endpoint import Series, scraped
from tests.jobs.test_main import ROOT, SPEC

ENTRY = {
    "watch": "flows",
    "day": "2026-01-05",
    "status": "committed",
    "rows": 1000,
    "flagged": 9,
    "quarantined": 100,
    "link": "day=2026-01-05/run_card.html",
    "run_id": "a",
    "when": "2026-01-06T02:00:00+00:00",
    "scored": 900,
    "seconds": 12.5,
    "threshold": 3.5,
    "score_drift": 0.25,
}


def spec_at(folder: Path, name: str = "flows") -> Path:
    folder.mkdir(exist_ok=True)
    document = yaml.safe_load(SPEC.replace("s3://nobody", str(folder)))
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**document, "name": name}))
    return path


def put_entry(spec: Spec, day: str, **changes: Any) -> None:
    entry = json.dumps({**ENTRY, "day": day, **changes}).encode()
    open_store(spec.output.uri).put(f"reports/day={day}/entry.json", entry)


def commit(spec: Spec, *days: str) -> None:
    schema = pa.schema([("id", pa.string())])
    table = LakeTable(open_store(spec.output.uri).child("flags"), schema, "flags")
    for day in days:
        table.commit(Commit(day, f"run of {day}", f"snapshot of {day}"), [], None)


def read_status(spec: Spec) -> dict[Metric, float]:
    status = WatchStatus(spec)
    status.refresh()
    assert {sample.labels for sample in status.collect()} == {(spec.name,)}
    return {sample.metric: sample.value for sample in status.collect()}


def test_a_new_watch_has_no_commit_and_the_limits_of_its_gates(tmp_path: Path) -> None:
    assert read_status(load(spec_at(tmp_path))) == {
        Metric.LAKE_READABLE: 1,
        Metric.LAST_COMMIT: 0,
        Metric.FLAG_RATE_LOWEST: 0,
        Metric.FLAG_RATE_HIGHEST: 0.05,
        Metric.QUARANTINE_LIMIT: 0.01,
    }


def test_the_newest_day_counts_whichever_day_was_committed_last(tmp_path: Path) -> None:
    spec = load(spec_at(tmp_path))
    before = time.time() - 1
    commit(spec, "2026-01-04", "2026-01-06", "2026-01-05")
    found = read_status(spec)
    assert found[Metric.LAST_DAY] == datetime(2026, 1, 6, tzinfo=UTC).timestamp()
    assert before < found[Metric.LAST_COMMIT] <= time.time()


def test_days_that_are_not_dates_have_a_commit_and_no_newest_day(tmp_path: Path) -> None:
    spec = load(spec_at(tmp_path))
    commit(spec, "all")
    found = read_status(spec)
    assert found[Metric.LAST_COMMIT] > 0
    assert Metric.LAST_DAY not in found


def test_the_day_that_ended_last_counts_even_if_it_was_refused(tmp_path: Path) -> None:
    spec = load(spec_at(tmp_path))
    put_entry(spec, "2026-01-06")
    put_entry(spec, "2026-01-05", status="refused", score_drift=None)
    earlier = tmp_path / "out/reports/day=2026-01-06/entry.json"
    os.utime(earlier, (time.time() - 60, time.time() - 60))
    found = read_status(spec)
    assert found[Metric.DAY_COMMITTED] == 0
    assert found[Metric.DAY_END] == datetime(2026, 1, 6, 2, tzinfo=UTC).timestamp()
    assert found[Metric.DAY_DURATION] == 12.5
    assert found[Metric.FLAG_RATE] == 9 / 900
    assert found[Metric.QUARANTINE_RATE] == 0.1
    assert found[Metric.THRESHOLD] == 3.5
    assert Metric.SCORE_DRIFT not in found


@pytest.mark.parametrize("data", [b"", b"[]", b'{"status": "committed"}', b"\xff"])
def test_unreadable_records_replace_the_old_values(
    data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = load(spec_at(tmp_path))
    put_entry(spec, "2026-01-05")
    status = WatchStatus(spec)
    status.refresh()
    open_store(spec.output.uri).put("reports/day=2026-01-05/entry.json", data)
    status.refresh()
    limits = {Metric.FLAG_RATE_LOWEST, Metric.FLAG_RATE_HIGHEST, Metric.QUARANTINE_LIMIT}
    found = {sample.metric: sample.value for sample in status.collect()}
    assert found.keys() - limits == {Metric.LAKE_READABLE}
    assert found[Metric.LAKE_READABLE] == 0
    assert "no metrics of flows from the lake" in capsys.readouterr().err


def test_an_exporter_serves_all_watches_as_they_change_until_it_is_stopped(tmp_path: Path) -> None:
    paths = [spec_at(tmp_path / name, name) for name in ("flows", "cards")]
    flows, cards = (load(path) for path in paths)
    commit(flows, "2026-01-05")
    port = free_port()
    options = ["--metrics-port", str(port), "--every", "1"]
    command = [sys.executable, "-m", "jobs", "exporter", *map(str, paths), *options]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as process:
        try:
            first = answer_with(port, 'anomaray_lake_readable{watch="cards"}', 1)
            assert first['anomaray_last_commit_timestamp_seconds{watch="cards"}'] == 0
            assert first['anomaray_last_commit_timestamp_seconds{watch="flows"}'] > 0
            put_entry(cards, "2026-01-06", status="refused")
            answer_with(port, 'anomaray_day_committed{watch="cards"}', 0)
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


def answer_with(port: int, name: str, value: float) -> Series:
    """The first answer in which a series has this value."""
    deadline = time.monotonic() + 60
    while True:
        try:
            found = scraped(port)
        except OSError:
            found = {}
        if found.get(name) == value:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)  # between two looks at the condition


def test_two_specs_of_one_name_are_refused(tmp_path: Path) -> None:
    spec = load(spec_at(tmp_path))
    with pytest.raises(Refusal, match="two specs have the name flows"):
        run_exporter([spec, spec], Destinations(0), 60)
