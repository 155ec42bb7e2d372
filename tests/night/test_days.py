"""Nights over days that are integers, with a misspelled day and a bad name beside them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.lake.days import DayRange
from jobs.monitoring.live import LiveMetrics
from jobs.monitoring.metric_names import Metric
from jobs.nightly import Night, backfill, nightly
from jobs.output import open_output
from jobs.score import open_run
from jobs.spec.spec import Spec, load

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
    rng = np.random.default_rng(day)
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
    assert [one.day for one in third.deleted] == ["11"]
    told = {sample.metric: sample.value for sample in metrics.collect()}
    assert told[Metric.DAYS_DELETED] == 1
    assert scored(backfill(spec, DayRange("11", "15"), engine="local")) == []


def test_workers_are_told_places_that_hold_in_any_folder(spec: Spec, tmp_path: Path) -> None:
    nightly(spec, engine="local")
    job = open_run(spec, "10", open_output(spec)).job
    assert (job.input_uri, job.output_uri) == (str(tmp_path / "in"), str(tmp_path / "out"))
