"""Every verb on a watch with histories and a window: one is trained, and all tests share it.

`tune`, which needs Ray, is in test_tune.
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from jobs.cli.app import app
from jobs.input_rows import DERIVED
from jobs.monitoring.metric_names import Metric
from jobs.monitoring.watch_status import WatchStatus
from jobs.nightly import nightly
from jobs.remote.command import prepare_command
from jobs.score import score
from jobs.spec.spec import load
from tests.jobs.cli.documents import read_documented
from tests.night.conftest import DAYS, write_spec

DAY = DAYS[5]
LABELLED = DAYS[1]
SECTIONS: dict[str, Any] = {
    "history": [
        {"entity": "src_ip", "horizons": ["1h", "1d"], "of": "orig_bytes"},
        {"entity": "src_ip", "horizons": ["1d"], "delay": "1d", "labels": True},
    ],
    "window": {"entity": "src_ip", "length": 4},
    "training": {
        "days": f"{DAYS[2]}..{DAYS[4]}",
        "epochs": 1,
        "baselines": [],
        "earlier_labels": True,
    },
    "nightly": {"first_day": DAY},
}


def run(verb: str, path: Path, *options: str) -> str:
    ended = CliRunner().invoke(app, [verb, str(path), *options])
    assert ended.exit_code == 0, (ended.output, ended.exception)
    return ended.stdout


def run_json(verb: str, path: Path, *options: str) -> Any:
    text = run(verb, path, *options, "--json")
    document = re.search(r"^[\[{].*", text, re.MULTILINE | re.DOTALL)  # below the log
    assert document, text
    found = json.loads(document[0])
    assert isinstance(found, list) or set(found) == read_documented()[verb]
    return found


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """The flows; the night has no labels yet, as in life."""
    folder = tmp_path_factory.mktemp("lake") / "flows"
    shutil.copytree(data / "flows", folder)
    for path in (folder / f"day={DAY}").glob("*.parquet"):
        rows = pq.read_table(path, partitioning=None).drop_columns(["label", "incident"])
        pq.write_table(rows, path)
    return folder


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory, lake: Path) -> tuple[Path, dict[str, Any]]:
    """The spec of the trained watch, and what its first night did."""
    folder = tmp_path_factory.mktemp("derived")
    path = write_spec(folder, lake, folder / "out", name="flows_derived", **SECTIONS)
    before = run_json("plan", path, "--day", DAY)["derived"]
    assert before["looks_back_on"] == [DAYS[3], DAYS[4]]
    assert not before["done"]
    done = run_json("nightly", path)
    derived = folder / "out" / DERIVED
    assert len(list(derived.iterdir())) == 4  # three days of training, one night
    return path, done


@pytest.fixture
def watch(night: tuple[Path, dict[str, Any]]) -> Path:
    return night[0]


def test_nightly_derives_trains_scores_and_commits_once(
    night: tuple[Path, dict[str, Any]],
) -> None:
    watch, done = night
    (receipt,) = done["days"]
    assert receipt["status"] == "committed"
    parts = (receipt[name] for name in ("scored", "quarantined", "filtered"))
    assert receipt["rows"] == sum(parts)
    assert run_json("nightly", watch)["days"] == []
    assert score(load(watch), DAY).already


def test_plan_shows_the_derived_splits(night: tuple[Path, dict[str, Any]]) -> None:
    watch, done = night
    plan = run_json("plan", watch, "--day", DAY)
    assert plan["derived"]["done"]
    assert plan["rows"] == done["days"][0]["rows"]
    splits = [split for task in plan["tasks"] for split in task["splits"]]
    assert len(splits) == plan["splits"]
    assert all((Path(plan["uri"]) / split["key"]).exists() for split in splits)


def test_check_accepts_the_spec_and_what_init_wrote_with_the_sections_added(
    data: Path, tmp_path: Path
) -> None:
    path = write_spec(tmp_path, data / "flows", tmp_path / "out", **SECTIONS)
    assert run_json("check", path)["errors"] == []
    written = tmp_path / "written.yaml"
    ended = CliRunner().invoke(app, ["init", str(data / "flows"), "--output", str(written)])
    assert ended.exit_code == 0, ended.output
    document = yaml.safe_load(written.read_text())
    written.write_text(yaml.safe_dump(document | SECTIONS, sort_keys=False))
    assert run_json("check", written)["errors"] == []
    assert not run_json("plan", written, "--day", DAY)["derived"]["done"]


def test_backfill_scores_an_earlier_day(watch: Path) -> None:
    (receipt,) = run_json("backfill", watch, "--days", LABELLED)["days"]
    assert receipt["status"] == "committed"


def test_evaluate_measures_a_labelled_day(watch: Path) -> None:
    found = run_json("evaluate", watch, "--days", LABELLED)
    assert found["quality"]["autoencoder"]["rows"] == found["rows"] > 0


def test_leaderboard_ranks_detectors_on_derived_rows(watch: Path) -> None:
    options = ("--days", f"{DAYS[0]}..{DAYS[1]}", "--rows", "500")
    names = ("--detector", "ecod", "--detector", "classifier")
    found = run_json("leaderboard", watch, *options, *names)
    assert [s["detector"] for s in found["standings"] if s["refused"] is None]
    assert found["rows"] > 0


def test_leaderboard_shows_earlier_labels_only_to_detectors_that_learn_from_labels(
    watch: Path,
) -> None:
    document = yaml.safe_load(watch.read_text())
    document["training"]["earlier_labels"] = False
    strict = watch.with_name("strict.yaml")
    strict.write_text(yaml.safe_dump(document, sort_keys=False))
    options = ("--days", f"{DAYS[0]}..{DAYS[1]}", "--rows", "500")
    names = ("--detector", "ecod", "--detector", "classifier")
    found = run_json("leaderboard", strict, *options, *names)["standings"]
    refused = {standing["detector"]: standing["refused"] for standing in found}
    assert "training.earlier_labels" in refused["ecod"]
    assert "training.earlier_labels" not in (refused["classifier"] or "")


def test_threshold_flags_and_registry_need_nothing_derived(watch: Path) -> None:
    assert run_json("threshold", watch, "--no-promote")["calibration_rows"] > 0
    sql = f"SELECT count(*) AS n FROM flags WHERE day = '{DAY}'"
    (row,) = run_json("flags", watch, "--sql", sql)
    assert row["n"] > 0
    assert "why" in run("flags", watch, "--day", DAY)
    (bundle,) = run_json("registry", watch)["bundles"]
    assert bundle["champion"]
    document = yaml.safe_load(watch.read_text())
    document["threshold"]["contamination"] = 0.02
    looser = watch.with_name("looser.yaml")
    looser.write_text(yaml.safe_dump(document, sort_keys=False))
    promoted = run_json("promote", looser, bundle["id"][:5])
    assert promoted["bundle"] == promoted["before"] == bundle["id"]
    back = run_json("rollback", looser)
    assert back["bundle"] == bundle["id"]
    assert back["threshold"] != promoted["threshold"]["id"]


def test_vacuum_lists_derived_rows_that_no_verb_has_read_for_a_day(watch: Path) -> None:
    def list_derived() -> list[str]:
        listed = run_json("vacuum", watch, "--hours", "0")
        assert listed["dry_run"]
        return [key for key in listed["files"] if key.startswith(f"{DERIVED}/")]

    assert list_derived() == []
    for path in (watch.parent / "out" / DERIVED).rglob("*"):
        os.utime(path, (path.stat().st_mtime - 2 * 86_400,) * 2)
    assert list_derived()
    run("vacuum", watch, "--hours", "0", "--no-dry-run", "--yes")
    assert score(load(watch), DAY).already, "derived anew, they are the same rows"
    assert list_derived() == []


def test_the_exporter_reads_the_status_of_the_watch(watch: Path) -> None:
    status = WatchStatus(load(watch))
    status.refresh()
    found = {sample.metric: sample.value for sample in status.collect()}
    assert found[Metric.LAKE_READABLE] == found[Metric.DAY_COMMITTED] == 1


def test_submit_sends_the_spec(watch: Path) -> None:
    command, files = prepare_command(["nightly", str(watch)], ["nightly"])
    assert list(files) == command[1:]


def test_a_detector_of_series_alone_watches_windows(data: Path, tmp_path: Path) -> None:
    columns = {
        "ts": {"role": "time"},
        "src_ip": {"role": "entity"},
        "orig_bytes": {"role": "numeric"},
        "duration": {"role": "numeric"},
    }
    spec = load(
        write_spec(
            tmp_path,
            data / "flows",
            tmp_path / "out",
            name="flows_windows",
            columns=columns,
            window={"entity": "src_ip", "length": 16, "alone": True},
            detector={"name": "anomaly_likelihood"},
            training={"days": f"{DAYS[2]}..{DAYS[4]}", "baselines": []},
            nightly={"first_day": DAY},
        )
    )
    (result,) = nightly(spec).results
    assert result.status == "committed"
    assert result.counts.scored > 0
