"""Nights over days that are integers, with a misspelled day and a bad name beside them."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from cluster.lake.days import DayRange
from cluster.scoring import scorer
from jobs import score as scoring
from jobs.monitoring.live import LiveMetrics
from jobs.monitoring.metric_names import Metric
from jobs.nightly import Night, backfill, nightly
from jobs.output import open_output
from jobs.score import open_run
from jobs.spec.spec import Spec, load
from models import bundle
from models.bundle import Bundle

SPEC = """\
name: machines
input: {uri: in, partition: day}
columns:
  load: {role: numeric}
  heat: {role: numeric}
  zone: {role: categorical}
detector: {name: pca}
training: {baselines: []}
threshold: {policy: quantile, contamination: 0.01}
gates: {flag_rate: [0, 1], volume: null}
output: {uri: out}
"""


def write(day: int, name: str = "a.parquet", key: str = "day") -> None:
    rng = np.random.default_rng([day, *name.encode()])
    path = Path(f"in/zone=z{day % 2}/{key}={day}/{name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"load": rng.exponential(size=300), "heat": rng.normal(size=300)})
    pq.write_table(table, path)


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spec:
    monkeypatch.chdir(tmp_path)
    Path("machines.yaml").write_text(SPEC)
    for day in (8, 9, 10):
        write(day)
    return load("machines.yaml")


def scored(night: Night) -> list[tuple[str, str, int]]:
    return [(one.day, one.status, one.counts.scored) for one in night.results]


def skipped(night: Night) -> dict[str, Any]:
    return {one["day"]: one["waiting"] for one in night.to_document()["skipped"]}


def test_every_day_is_scored_in_order_or_named(spec: Spec) -> None:
    first = nightly(spec, engine="local")
    assert scored(first) == [("10", "committed", 300)]
    assert skipped(first) == {"8": False, "9": False}
    assert first.ok
    for day in (11, 12, 7):
        write(day)
    write(11, "odd\\name.parquet")  # stops neither the night nor its day
    write(12, key="Day")
    metrics = LiveMetrics(spec.name, "nightly")
    second = nightly(spec, engine="local", metrics=metrics)
    told = {sample.metric: sample.value for sample in metrics.collect()}
    assert (told[Metric.DAYS_SKIPPED], told[Metric.DAYS_WAITING]) == (3, 1)
    assert scored(second) == [(day, "committed", 300) for day in ("7", "11", "12")]
    assert second.results[1].rejected_files == 1
    assert "odd\\name.parquet" in " ".join(second.results[1].warnings)
    assert skipped(second) == {"8": False, "9": False, "zone=z0/Day=12": True}
    assert not second.ok  # a day waits that no night will score
    assert scored(nightly(spec, engine="local")) == []

    Path("in/zone=z1/day=13").mkdir(parents=True)
    Path("in/zone=z1/day=13/a.csv").write_text("load,heat\n1,2\n")
    write(14)
    pq.write_table(pa.table({"load": ["much"], "heat": [1.0]}), "in/zone=z0/day=14/b.parquet")
    write(15)
    Path("in/zone=z1/day=11/a.parquet").unlink()
    Path("in/zone=z1/day=11/odd\\name.parquet").unlink()
    third = nightly(spec, engine="local", metrics=metrics)
    assert scored(third) == [("15", "committed", 300)]
    assert third.failed.keys() == {"13", "14"}
    assert "a.csv" in third.failed["13"]
    assert "column 'load'" in third.failed["14"]
    assert (third.ok, third.may_pass) == (False, False)
    assert third.deleted == ["11"]
    assert "11" in skipped(third)
    fourth = backfill(spec, DayRange("11", "15"), engine="local", metrics=metrics)
    assert scored(fourth) == []
    assert (fourth.deleted, "11" in skipped(fourth)) == (["11"], False)  # it is said once
    told = {sample.metric: sample.value for sample in metrics.collect()}
    assert told[Metric.DAYS_DELETED] == 1


def flags_of(output: Path, day: str) -> pa.Table:
    table = DeltaTable(str(output / "flags")).to_pyarrow_table()
    found = table.filter(pc.equal(table["day"], day)).drop_columns(["run_id"])
    return found.sort_by([("anomaly_id", "ascending")])


@pytest.mark.parametrize("tasks", [4096, 4, 1])
def test_a_backfill_is_one_stream_with_the_flags_of_each_day_alone(
    spec: Spec, monkeypatch: pytest.MonkeyPatch, tasks: int
) -> None:
    nightly(spec, engine="local")
    for day in range(11, 16):
        write(day)
        write(day, "b.parquet")
    nightly(spec, engine="local")
    alone = {day: flags_of(Path("out"), day) for day in map(str, range(11, 16))}
    shutil.rmtree("out/flags")
    shutil.rmtree("out/_runs")
    opened = []

    def open_bundle(files: dict[str, bytes], digest: str) -> Bundle:
        opened.append(digest)
        return bundle.open_bundle(files, digest)

    monkeypatch.setattr(scorer, "open_bundle", open_bundle)
    monkeypatch.setattr(scoring, "_TASKS", tasks)
    metrics = LiveMetrics(spec.name, "backfill")
    night = backfill(spec, DayRange("11", "15"), engine="local", metrics=metrics)
    assert scored(night) == [(day, "committed", 600) for day in alone]
    assert {day: flags_of(Path("out"), day) for day in alone} == alone
    assert sum(len(flags) for flags in alone.values()) > 0
    assert len(opened) == {4096: 1, 4: 3, 1: 5}[tasks]  # a day has two
    told = {sample.metric: sample.value for sample in metrics.collect()}
    assert told[Metric.READ_ROWS] == told[Metric.SCORED_ROWS] == 3000
    assert all(one.seconds > 0 for one in night.results)


def test_what_breaks_the_stream_fails_its_own_day_alone(spec: Spec) -> None:
    nightly(spec, engine="local")
    for day in range(11, 16):
        write(day)
    for blocked in ("12", "14"):  # no shard of the day can be written
        Path(f"out/flags/day={blocked}").write_text("")
    night = backfill(spec, DayRange("11", "15"), engine="local")
    assert scored(night) == [(day, "committed", 300) for day in ("11", "13", "15")]
    assert night.failed.keys() == {"12", "14"}
    assert all(f"day={day}" in text for day, text in night.failed.items())
    for blocked in ("12", "14"):
        Path(f"out/flags/day={blocked}").unlink()
    again = backfill(spec, DayRange("11", "15"), engine="local")
    assert scored(again) == [(day, "committed", 300) for day in ("12", "14")]


def test_workers_are_told_places_that_hold_in_any_folder(spec: Spec, tmp_path: Path) -> None:
    nightly(spec, engine="local")
    job = open_run(spec, "10", open_output(spec)).job
    assert (job.input_uri, job.output_uri) == (str(tmp_path / "in"), str(tmp_path / "out"))
