"""Metrics of real runs: scraped while they run, and equal to what they committed."""

import json
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.lake.output.table import has_day
from cluster.lake.storage.delta import open_table
from cluster.lake.storage.opening import open_store
from jobs.monitoring.endpoint import Destinations, publish, publish_run
from jobs.monitoring.live import LiveMetrics
from jobs.monitoring.metric_names import Metric
from jobs.monitoring.watch_status import WatchStatus
from jobs.score import score
from jobs.scoring.result import RunResult
from jobs.spec.spec import Spec, load
from tests.conftest import free_port
from tests.infra.observability import manifests
from tests.jobs.monitoring.test_endpoint import Series, scraped, series
from tests.night.conftest import watch_at
from tests.night.test_score import DAY, spoil

GATES = {"flag_rate": [0, 0.5], "quarantine_rate": 0.5, "volume": None}


class Scraper(threading.Thread):
    """Scrapes a port until the block ends; what it answered, in order."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port, self.answers, self.over = port, list[Series](), threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.02):  # between two scrapes
            self.answers.append(scraped(self.port))

    def __enter__(self) -> "Scraper":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()
        self.answers.append(scraped(self.port))


@pytest.fixture
def spoilt(trained: tuple[Path, Path], tmp_path: Path) -> Spec:
    """A watch with a few rows in the day that cannot be scored."""
    spec = load(watch_at(trained, tmp_path, gates=GATES))
    spoil(spec, "duration", [3, 5], [float("nan"), float("inf")])
    return spec


def run(spec: Spec, port: int) -> tuple[RunResult, list[Series]]:
    with publish_run(spec, "score", Destinations(port)) as metrics, Scraper(port) as scraper:
        result = score(spec, DAY, metrics=metrics)
    return result, scraper.answers


def names(answer: Series) -> set[str]:
    return {name.partition("{")[0] for name in answer}


def test_a_run_is_scraped_while_it_runs_and_agrees_with_what_it_committed(
    spoilt: Spec, trained: tuple[Path, Path]
) -> None:
    result, answers = run(spoilt, free_port())
    assert result.status == "committed"
    assert result.counts.quarantined == 2

    def of(metric: Metric, answer: Series) -> float | None:
        return answer.get(f'{metric.full_name}{{watch="{spoilt.name}"}}')

    last = answers[-1]
    card = json.loads((Path(spoilt.output.uri) / f"reports/day={DAY}/run_card.json").read_text())
    agreed = {
        Metric.READ_ROWS: result.counts.rows,
        Metric.READ_BYTES: card["books"]["bytes"],
        Metric.SCORED_ROWS: result.counts.scored,
        Metric.FILTERED_ROWS: result.counts.filtered,
        Metric.QUARANTINED_ROWS: result.counts.quarantined,
        Metric.FLAGS: result.counts.flagged,
        Metric.RETRIED_TASKS: card["books"]["retried"],
        Metric.DAY_ROWS: result.counts.rows,
        Metric.DAY_FLAGS: result.counts.flagged,
        Metric.DAY_QUARANTINED: result.counts.quarantined,
        Metric.FLAG_RATE: result.counts.flagged / result.counts.scored,
        Metric.QUARANTINE_RATE: result.counts.quarantined / result.counts.rows,
        Metric.QUARANTINE_LIMIT: 0.5,
        Metric.DAY_COMMITTED: 1,
        Metric.THRESHOLD: card["threshold"]["value"],
    }
    assert {metric: of(metric, last) for metric in agreed} == agreed
    stages = {f'stage="{stage}"' for stage in ("read", "encode", "score", "reasons")}
    assert all(any(stage in name for name in last) for stage in stages)

    running = [answer for answer in answers if of(Metric.TASKS_QUEUED, answer)]
    assert running
    assert all((of(Metric.READ_ROWS, answer) or 0) < result.counts.rows for answer in running)
    assert all((of(Metric.ACTORS_PLANNED, answer) or 0) >= 1 for answer in running)
    assert all(of(Metric.LAST_COMMIT, answer) == 0 for answer in running)
    assert time.time() - 600 < (of(Metric.LAST_COMMIT, last) or 0) <= time.time()

    exported = {name for answer in answers for name in names(answer)}
    training = series((trained[1].parent / "training.prom").read_text())
    assert training[f'anomaray_training_epochs_done{{watch="{spoilt.name}"}}'] == 2
    exported |= names(training)
    # `nightly` alone leaves days out: tests/night/test_days.py.
    by_night = (Metric.DAYS_SKIPPED, Metric.DAYS_WAITING, Metric.DAYS_DELETED)
    exported |= {metric.full_name for metric in by_night}
    assert exported == {metric.full_name for metric in Metric}
    assert manifests.named() <= exported


def test_prometheus_scrapes_a_run_and_the_lake_and_can_answer_all_panels(
    spoilt: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, lake = free_port(), free_port()
    status = WatchStatus(spoilt)
    follow = LiveMetrics.follow_scoring
    with prometheus(tmp_path, {"anomaray-runs": port, "anomaray-exporter": lake}) as ask:

        @contextmanager
        def follow_until_scraped(*parts: Any) -> Iterator[None]:
            with follow(*parts):
                until(ask, "anomaray_tasks_queued > 0")
                yield

        monkeypatch.setattr(LiveMetrics, "follow_scoring", follow_until_scraped)
        result, _ = run(spoilt, port)
        status.refresh()
        with publish([status.collect], Destinations(lake)):
            found = until(ask, "anomaray_day_flags")
            assert [value for _, value in found] == [result.counts.flagged]
        assert ask("max_over_time(anomaray_run_active[5m])")[0][1] == 1
        assert ask("max_over_time(anomaray_tasks_queued[5m])")[0][1] >= 1
        for query in manifests.queries():
            ask(query)
        for rule in manifests.rules():
            ask(rule["expr"])


@contextmanager
def prometheus(folder: Path, jobs: dict[str, int]) -> Iterator[Any]:
    """A Prometheus that scrapes these ports four times a second; yields how to ask it."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed: apt-get install prometheus")
    scrapes = [
        {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        for name, port in jobs.items()
    ]
    config = {
        "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms"},
        "rule_files": [str(manifests.RULES)],
        "scrape_configs": scrapes,
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    web = free_port()
    command = [program, f"--config.file={folder / 'prometheus.yml'}"]
    command += [f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{web}"]

    def ask(query: str) -> list[tuple[dict[str, str], float]]:
        words = urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(f"http://127.0.0.1:{web}/api/v1/query?{words}") as answer:
            found = json.loads(answer.read())["data"]["result"]
        return [(one["metric"], float(one["value"][1])) for one in found]

    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        until(ask, "up")
        yield ask
    finally:
        process.terminate()
        process.wait(timeout=20)


def until(ask: Any, query: str) -> list[tuple[dict[str, str], float]]:
    """The first answer that is not empty."""
    deadline = time.monotonic() + 60
    while True:
        try:
            found: list[tuple[dict[str, str], float]] = ask(query)
        except OSError:
            found = []
        if found:
            return found
        assert time.monotonic() < deadline, f"no answer to {query}"
        time.sleep(0.1)  # between two looks at the condition


def test_a_day_that_a_gate_refuses_is_a_run_that_failed(spoilt: Spec) -> None:
    strict = spoilt.model_copy(
        update={"gates": spoilt.gates.model_copy(update={"quarantine_rate": 0.0})}
    )
    result, answers = run(strict, free_port())
    label = f'{{watch="{spoilt.name}"}}'
    assert result.status == "refused"
    assert answers[-1][f"anomaray_day_committed{label}"] == 0
    assert answers[-1][f"anomaray_quarantine_ratio{label}"] > 0
    assert answers[-1][f"anomaray_last_commit_timestamp_seconds{label}"] == 0
    assert not has_day(open_table(open_store(strict.output.uri).child("flags")), DAY)
