"""Kills and races: the same command, run again, ends with the oracle's flags, once."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cluster.lake.input.looks import UnsettledInput
from cluster.lake.input.splits import Split, Task, cut_splits, group_tasks
from cluster.lake.output.journal import Journal
from cluster.lake.output.schemas import QUARANTINE, QUARANTINE_SCHEMA, RUNS
from cluster.lake.output.table import Commit, LakeTable
from cluster.lake.storage.opening import open_store
from cluster.runtime.resources import ActorPlan
from cluster.scoring.findings import TaskFindings
from cluster.scoring.scorer import ATTEMPTS, RunScorer, Scorer
from cluster.splits.stages import Stages
from jobs.score import open_run, score
from jobs.scoring.plan import open_work
from jobs.spec.spec import load
from tests.night.conftest import DAYS, cut_into_files, watch_at
from tests.night.test_score import DAY, committed, oracle

ROOT = Path(__file__).parents[2]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "jobs", *arguments]


def start(*arguments: str) -> subprocess.Popen[bytes]:
    """A driver in a process group of its own, on the local engine unless it is told otherwise."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def kill_when(process: subprocess.Popen[bytes], folder: Path, pattern: str, count: int) -> None:
    """SIGKILL the driver and its Ray as soon as `count` files match below the folder."""
    while process.poll() is None:
        if len(list(folder.glob(pattern))) >= count:
            os.killpg(process.pid, signal.SIGKILL)
            break
        # Wait for the next change or for the end, whichever is first.
        try:
            process.wait(timeout=0.005)
        except subprocess.TimeoutExpired:
            continue
    process.communicate()


def test_a_killed_driver_resumes_without_scoring_a_finished_split_twice(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    path = watch_at(trained, tmp_path)
    spec = load(path)
    cut_into_files(Path(spec.input.uri) / f"day={DAY}", 24)
    runs = Path(spec.output.uri) / "_runs"
    kill_when(start("score", str(path), "--day", DAY), runs, "*/tasks/*/*.json", 5)
    finished = {p.stem for p in runs.glob("*/tasks/*/*.json")}
    assert len(finished) >= 5
    done = start("score", str(path), "--day", DAY, "--json")
    output, errors = done.communicate(timeout=240)
    assert done.returncode == 0, errors.decode()
    receipt = json.loads(output)
    assert receipt["rows"] == receipt["scored"] + receipt["quarantined"]
    assert committed(spec).keys() == oracle(spec).keys()
    again = {p.name.rsplit("-", 1)[0] for p in runs.glob("*/attempts/*-2*")}
    assert not finished & again


class Fragile(RunScorer):
    """Dies of one file, as of a page that makes a decoder run wild."""

    def _read(self, split: Split, findings: TaskFindings, stages: Stages) -> None:
        if split.key.endswith(os.environ["POISON"]):
            os.kill(os.getpid(), signal.SIGKILL)
        super()._read(split, findings, stages)


def test_a_file_that_kills_its_actor_takes_no_other_file_of_its_task_along(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = load(watch_at(trained, tmp_path))
    files = cut_into_files(Path(spec.input.uri) / f"day={DAY}", 8)
    output = open_store(spec.output.uri)
    run = open_run(spec, DAY, output)
    splits = cut_splits(run.snapshot, 10**6, 2**30)
    (task,) = group_tasks(splits, 10**6, 2**30)
    assert len(task.splits) == len(files)
    monkeypatch.setenv("POISON", files[3].name)
    journal = Journal(output.child(RUNS), run.run_id)
    for number in range(ATTEMPTS):  # as many drivers begin it and are killed
        journal.begin_attempt(task.id, f"driver {number}")
    plan = ActorPlan(actors=1, threads=1, cpus=1, gpus=0, torch_threads=1)
    receipt = Fragile(Scorer(plan, [run.job]).model, run.job).answer(task)
    lost = task.splits[3].rows
    assert (receipt.counts.rows, receipt.counts.quarantined) == (task.rows, lost)
    assert [(rule.file, rule.rule) for rule in receipt.quarantine] == [
        (task.splits[3].key, "stops_the_scorer")
    ]


def test_a_folder_that_is_away_for_a_while_is_no_record(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    gates = {"flag_rate": [0, 0.5], "volume": None, "quarantine_rate": 1, "quarantined_files": 9}
    spec = load(watch_at(trained, tmp_path, gates=gates))
    folder, away = Path(spec.input.uri) / f"day={DAY}", tmp_path / "away"
    run = open_run(spec, DAY, open_store(spec.output.uri))
    journal = Journal(run.output.child(RUNS), run.run_id)
    work = open_work(run.snapshot, run.facts, journal, lambda books: ())
    plan = ActorPlan(actors=1, threads=1, cpus=1, gpus=0, torch_threads=1)
    folder.rename(away)
    scorer = Scorer(plan, [run.job])
    for task in work.todo:
        work.add(scorer.answer(DAY, Task.from_document(json.loads(task.text))))
    with pytest.raises(UnsettledInput, match=r"files of 2026-01-0\d could not be read now.*vanish"):
        work.require_settled()
    away.rename(folder)
    result = score(spec, DAY)
    assert (result.run_id, result.status) == (run.run_id, "committed")
    assert result.counts.quarantined == 0
    assert committed(spec).keys() == oracle(spec).keys()


def test_two_drivers_of_one_day_have_one_winner(trained: tuple[Path, Path], tmp_path: Path) -> None:
    path = watch_at(trained, tmp_path)
    spec = load(path)
    drivers = [start("score", str(path), "--day", DAY) for _ in range(2)]
    results: dict[int, tuple[int, str]] = {}

    def finish(number: int) -> None:
        output, errors = drivers[number].communicate(timeout=280)
        results[number] = (drivers[number].returncode, (output + errors).decode())

    threads = [threading.Thread(target=finish, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Both were asked for the same run: it is committed, once, and both may say so.
    assert 0 in [code for code, _ in results.values()], results
    assert committed(spec).keys() == oracle(spec).keys()


def test_a_run_that_finds_its_day_taken_leaves_all_tables_to_the_winner(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    path = watch_at(trained, tmp_path)
    spec = load(path)
    output = open_store(spec.output.uri)
    driver = start("score", str(path), "--day", DAY)
    while not list(Path(output.uri).glob("_runs/*/plan.json")):
        with pytest.raises(subprocess.TimeoutExpired):  # it has not ended yet
            driver.wait(timeout=0.005)
    winner = LakeTable(output.child(QUARANTINE), QUARANTINE_SCHEMA, QUARANTINE)
    winner.commit(Commit(DAY, "winner", "other files"), [], 0)
    _, errors = driver.communicate(timeout=280)
    assert driver.returncode == 2
    assert "committed by run winner" in errors.decode()
    assert winner.is_run_committed(DAY, "winner")
    assert not list(Path(output.uri).glob("flags/_delta_log/*")), "the flags were not committed"


@pytest.mark.slow
def test_a_training_killed_whole_goes_on_after_its_last_epoch(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    training = {"days": f"{DAYS[0]}..{DAYS[4]}", "epochs": 12, "patience": 12, "baselines": []}
    path = watch_at(trained, tmp_path, training=training)
    spec = load(path)
    shutil.rmtree(spec.output.uri)
    folder = Path(spec.output.uri) / "_trainings"
    kill_when(start("train", str(path)), folder, "*/local/*/training.json", 2)
    again = start("train", str(path), "--json")
    output, errors = again.communicate(timeout=280)
    assert again.returncode == 0, errors.decode()
    assert json.loads(output)["epochs"] == 12
    assert "resumed an interrupted training after epoch" in errors.decode()
