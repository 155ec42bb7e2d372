"""Publishing metrics: over HTTP, in a file, and with a destination that fails."""

import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.lake.storage.opening import open_store
from cluster.splits.counts import Counts
from cluster.splits.engine import Pool
from jobs.cli.app import app
from jobs.monitoring.endpoint import Destinations, publish
from jobs.monitoring.live import LiveMetrics
from jobs.monitoring.metric_names import Metric, Sample
from jobs.report.profile import Clock
from jobs.scoring.books import RunBooks
from models.refusal import Refusal
from tests.conftest import free_port
from tests.jobs.scoring.test_books import EMPTY, receipt
from tests.jobs.test_main import ROOT, SPEC

Series = dict[str, float]


def series(text: str) -> Series:
    """Value by `name{label="value",…}`, labels sorted by name."""
    lines = (line.rpartition(" ") for line in text.splitlines() if line[:1] != "#")
    return {name: float(value) for name, _, value in lines}


def scraped(port: int) -> Series:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return series(answer.read().decode())


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_metric_names_are_unique_and_follow_the_conventions() -> None:
    names = [metric.full_name for metric in Metric]
    assert len(set(names)) == len(names)
    for metric in Metric:
        assert re.fullmatch(r"anomaray(_[a-z]+)+", metric.full_name)
        assert metric.description.endswith(".")
        assert set(metric.labels) <= {"watch", "verb", "stage"}
        assert (metric.kind == "counter") == metric.full_name.endswith("_total")


def test_a_scrape_returns_the_current_values_of_the_sources() -> None:
    flags = 0.0
    port = free_port()

    def source() -> Iterator[Sample]:
        yield Sample(Metric.FLAGS, ("flows",), flags)

    with publish([source], Destinations(port)):
        assert scraped(port) == {'anomaray_flags_total{watch="flows"}': 0}
        flags = 7.0
        assert scraped(port) == {'anomaray_flags_total{watch="flows"}': 7}
    with pytest.raises(OSError, match="refused"):
        scraped(port)


def test_the_file_appears_whole_is_readable_by_all_and_keeps_the_last_values(
    tmp_path: Path,
) -> None:
    file, flags = tmp_path / "night.prom", 0.0

    def source() -> Iterator[Sample]:
        yield Sample(Metric.FLAGS, ("flows",), flags)

    before = os.umask(0o077)
    try:
        with publish([source], Destinations(file=file)):
            assert series(file.read_text()) == {'anomaray_flags_total{watch="flows"}': 0}
            flags = 7.0
    finally:
        os.umask(before)
    assert series(file.read_text()) == {'anomaray_flags_total{watch="flows"}': 7}
    assert file.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["night.prom"]


def test_a_folder_that_goes_away_does_not_end_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with publish([list], Destinations(file=folder / "night.prom")):
        (folder / "night.prom").unlink()
        folder.rmdir()
    assert "the metrics were not written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [("night.txt", "expected NAME.prom"), ("nowhere/night.prom", "No such file or directory")],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    name: str, message: str, tmp_path: Path
) -> None:
    with (
        pytest.raises(Refusal, match=rf"--metrics-file .*{message}"),
        publish([list], Destinations(file=tmp_path / name)),
    ):
        pytest.fail("the work has begun")


@pytest.mark.parametrize(
    "verb",
    [
        ["train"],
        ["score", "--day", "2026-01-05"],
        ["nightly"],
        ["backfill", "--days", "2026-01-05"],
    ],
)
def test_a_port_in_use_is_one_clear_error_before_the_work(
    verb: list[str], taken: int, tmp_path: Path
) -> None:
    spec = tmp_path / "flows.yaml"
    spec.write_text(SPEC.replace("s3://nobody", str(tmp_path)))
    ended = CliRunner().invoke(app, [verb[0], str(spec), *verb[1:], "--metrics-port", str(taken)])
    assert isinstance(ended.exception, Refusal)
    expected = f"--metrics-port {taken}: cannot listen on 127.0.0.1:{taken}: Address already in use"
    assert str(ended.exception).startswith(expected)
    assert not (tmp_path / "out").exists()


def test_an_address_that_is_not_ours_is_refused() -> None:
    destinations = Destinations(0, "203.0.113.9")
    with (
        pytest.raises(Refusal, match=r"cannot listen on 203\.0\.113\.9"),
        publish([list], destinations),
    ):
        pytest.fail("the work has begun")


def test_counters_add_up_over_days_without_the_work_of_earlier_processes() -> None:
    metrics = LiveMetrics("flows", "nightly")
    seen: list[float] = []
    for first in (0, 10):
        books = RunBooks(EMPTY, Counts(tasks=4, splits=8))
        pool, clock = Pool(3), Clock()
        books.add(receipt(first))  # by a driver that was killed
        with metrics.follow_scoring(books, pool, clock):
            for number in (first + 1, first + 2):
                books.add(receipt(number))
                clock.actors.update({"score": 1.5, "read": 0.5})
                seen.append(value(metrics, Metric.FLAGS))
            assert value(metrics, Metric.SPLITS_PLANNED) == 8
            assert value(metrics, Metric.SPLITS_DONE) == 6
            assert value(metrics, Metric.TASKS_PLANNED) == 4
            assert value(metrics, Metric.TASKS_DONE) == 3
            assert value(metrics, Metric.TASKS_QUEUED) == 1
            assert value(metrics, Metric.ACTORS_PLANNED) == 3
            assert 0 <= value(metrics, Metric.ACTOR_WAIT) <= 1
        seen.append(value(metrics, Metric.FLAGS))
    assert seen == [3, 6, 6, 9, 12, 12]
    assert value(metrics, Metric.READ_ROWS) == 4 * 50
    assert value(metrics, Metric.QUARANTINED_ROWS) == 4 * 2
    assert value(metrics, Metric.RETRIED_TASKS) == 2
    assert value(metrics, Metric.ACTOR_SECONDS, "score") == 6.0
    names = {sample.metric for sample in metrics.collect()}
    assert not names & {Metric.TASKS_QUEUED, Metric.ACTORS_RUNNING}  # no day is scored now


def value(metrics: LiveMetrics, metric: Metric, *more: str) -> float:
    (found,) = (
        sample.value
        for sample in metrics.collect()
        if sample.metric is metric and sample.labels[1:] == more
    )
    return found


@pytest.mark.parametrize("failed", [False, True])
def test_a_run_reports_how_it_ended(failed: bool) -> None:
    metrics = LiveMetrics("flows", "score")
    assert value(metrics, Metric.RUN_ACTIVE, "score") == 1
    assert Metric.RUN_SUCCESS not in {sample.metric for sample in metrics.collect()}
    metrics.end_day(committed=not failed)
    metrics.end_run()
    assert value(metrics, Metric.RUN_ACTIVE, "score") == 0
    assert value(metrics, Metric.RUN_SUCCESS, "score") == float(not failed)


def test_the_exporter_needs_neither_ray_nor_torch() -> None:
    code = "import sys, jobs.monitoring.exporter; print({'ray', 'torch'} & sys.modules.keys())"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert answer.stdout == b"set()\n"


def test_a_verb_that_is_refused_leaves_its_failure_in_the_file(tmp_path: Path) -> None:
    spec, file = tmp_path / "flows.yaml", tmp_path / "flows.prom"
    spec.write_text(SPEC.replace("s3://nobody", str(tmp_path)))
    open_store(str(tmp_path)).put("flows/day=2026-01-05/part.parquet", b"no Parquet")
    ended = CliRunner().invoke(app, ["train", str(spec), "--metrics-file", str(file)])
    assert isinstance(ended.exception, Refusal)
    metrics = series(file.read_text())
    assert metrics['anomaray_run_success{verb="train",watch="flows"}'] == 0
    assert metrics['anomaray_last_commit_timestamp_seconds{watch="flows"}'] == 0
