"""Nights as jobs of a cluster, scored there as they would be here; a slow test trains there too."""

import json
import os
import shutil
import signal
import subprocess
import time
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from cluster.lake.output.schemas import FLAGS, REGISTRY, RUNS
from cluster.lake.storage.opening import open_store
from jobs.demo import data as demo
from jobs.score import score
from jobs.spec.spec import load
from jobs.train import TrainRequest, train
from tests.cluster.runtime.ray_head import ROOT, RayHead, jobs_of, logs_of, submit, submitting
from tests.conftest import S3Server
from tests.night.conftest import cut_into_files, write_spec

DAY = "2026-01-03"
_TRAINING = {"days": "2026-01-01..2026-01-02", "epochs": 2, "workers": 1, "baselines": []}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lake")
    demo.write(folder, days=3, first_day=date(2026, 1, 1), scale=0.05)
    return folder / "flows"


def _spec(folder: Path, source: str, target: str) -> Path:
    folder.mkdir(exist_ok=True)
    return write_spec(folder, source, target, training=_TRAINING)


def _result(ended: "subprocess.CompletedProcess[str]") -> Any:
    """The JSON that is all of stdout."""
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return json.loads(ended.stdout)


def _score_here(spec: Path) -> int:
    """Score the day without a cluster; the flagged rows."""
    return score(load(spec), DAY, engine="local").counts.flagged


def _table(uri: str) -> DeltaTable:
    store = open_store(uri).child(FLAGS)
    return DeltaTable(store.delta_uri, storage_options=store.delta_options)


def _flags(uri: str) -> pa.Table:
    """The flags as committed, by their id, without the name of their run."""
    return _table(uri).to_pyarrow_table().drop_columns(["run_id"]).sort_by("uid")


def test_a_day_on_s3_scored_as_a_job_has_the_flags_of_a_night_here(
    head: RayHead, s3_server: S3Server, s3_uri: str, data: Path, tmp_path: Path
) -> None:
    lake = open_store(s3_uri)
    for path in sorted(data.rglob("*.parquet")):
        lake.put(f"flows/{path.relative_to(data).as_posix()}", path.read_bytes())
    spec = _spec(tmp_path / "there", f"{s3_uri}/flows", f"{s3_uri}/out")
    bundle = train(load(spec), TrainRequest(engine="local")).bundle
    where = {"AWS_ENDPOINT_URL": s3_server.endpoint}  # the head's nodes have the keys, not this
    sent = ("--environment", "image", "--env", "AWS_ENDPOINT_URL")
    there = _result(submit(head, *sent, "score", str(spec), "--day", DAY, "--json", **where))
    assert there["rows"] == there["scored"] + there["quarantined"] + there["filtered"] > 0
    assert there["bundle"] == bundle

    out = lake.child("out")
    for found in out.child(REGISTRY).list():
        lake.put(f"again/{REGISTRY}/{found.key}", out.child(REGISTRY).read(found.key))
    again = _spec(tmp_path / "here", f"{s3_uri}/flows", f"{s3_uri}/again")
    here = _score_here(again)
    flags = _flags(f"{s3_uri}/out")
    assert flags.num_rows == there["flagged"] == here > 10
    assert flags.equals(_flags(f"{s3_uri}/again"))
    secret = s3_server.environment["AWS_SECRET_ACCESS_KEY"]
    assert secret not in str(jobs_of(head))
    assert not [path for path in logs_of(head) if secret.encode() in path.read_bytes()]


@pytest.mark.slow
def test_a_night_whose_job_is_killed_goes_on_where_it_was_when_it_is_submitted_again(
    head: RayHead, data: Path, tmp_path: Path
) -> None:
    """The folder is one that all nodes share."""
    shutil.copytree(data, tmp_path / "flows")
    cut_into_files(tmp_path / "flows" / f"day={DAY}", 60)
    spec = _spec(tmp_path / "there", str(tmp_path / "flows"), str(tmp_path / "out"))
    image = ("--environment", "image")
    _result(submit(head, *image, "train", str(spec), "--json"))
    shutil.copytree(tmp_path / "out" / REGISTRY, tmp_path / "again" / REGISTRY)
    quiet = _spec(tmp_path / "here", str(tmp_path / "flows"), str(tmp_path / "again"))
    expected = _score_here(quiet)

    journalled = _kill_driver_when_some_are_journalled(head, spec, tmp_path / "out")
    assert 0 < journalled < 60
    night = _result(submit(head, *image, "score", str(spec), "--day", DAY, "--json"))
    assert night["flagged"] == expected
    found, wanted = (str(tmp_path / name) for name in ("out", "again"))
    assert _flags(found).equals(_flags(wanted))
    once = _result(submit(head, *image, "nightly", str(spec), "--json"))
    skipped = once.pop("skipped")
    assert once == {"trained": None, "days": [], "failed": {}}
    assert not any(one["waiting"] for one in skipped)
    assert _table(found).version() == _table(wanted).version()  # one commit


def _kill_driver_when_some_are_journalled(head: RayHead, spec: Path, out: Path) -> int:
    """Submit the score, and SIGKILL its driver in the middle; how many splits it has done."""
    arguments = ("--environment", "image", "score", str(spec), "--day", DAY, "--json")
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        submitting(head, *arguments), cwd=ROOT, env=head.environment, stdout=quiet, stderr=quiet
    ) as submitted:
        deadline = time.monotonic() + 120
        while len(_journal(out)) < 3:
            assert time.monotonic() < deadline, "nothing is scored"
            assert submitted.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)  # between two looks at the condition
        for pid in _drivers(head):
            os.kill(pid, signal.SIGKILL)
        done = len(_journal(out))
    assert submitted.returncode == 137
    return done


def _journal(out: Path) -> list[Path]:
    return list(out.glob(f"{RUNS}/*/tasks/*/*.json"))


def _drivers(head: RayHead) -> list[int]:
    """The processes that run a submitted score of this head; not the shell that started each."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                words = (path / "cmdline").read_bytes().split(b"\0")
                ours = bytes(head.folder) in (path / "environ").read_bytes()
            except OSError:
                continue
            if ours and words[1:4] == [b"-m", b"jobs.submitted", b"score"]:
                found.append(int(path.name))
    return found
