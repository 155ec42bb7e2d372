"""What a store tells to be written outlasts a loss of power."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.power import Disk, Recorder, why_not

_ROOT = Path(__file__).parents[4]

# Each act tells its name to the record when it is done.
_ACTS = """
import os, sys
import pyarrow as pa
from deltalake import DeltaTable
from cluster.lake.output.journal import Journal
from cluster.lake.output.owner import claim_output
from cluster.lake.output.shard import shard_key, write_shard
from cluster.lake.output.table import Commit, LakeTable
from cluster.lake.registry.registry import Promotion, Registry
from cluster.lake.registry.signatures import make_key
from cluster.lake.storage.opening import open_store
from pathlib import Path

def tell(what):
    record = os.open(os.environ["DISK_LOG"], os.O_WRONLY | os.O_APPEND)
    os.write(record, f"told\\t{what}\\n".encode())
    os.close(record)

rows = pa.table({"uid": ["a", "b"]})
output = open_store(sys.argv[1])
journal, registry = Journal(output.child("_runs"), "run"), Registry(output.child("registry"))
table = LakeTable(output.child("flags"), rows.schema, "flags")
shards = []

def shard(name):
    shards.append(write_shard(table.store, shard_key("2026-01-01", name), rows))

def commit(run):
    table.commit(Commit("2026-01-01", run, run), shards, None)

acts = {
    "claim": lambda: claim_output(output, "flows"),
    "bundle": lambda: registry.add_bundle({"bundle.json": b"{}", "weights": b"1"}),
    "threshold": lambda: registry.add_threshold(b"1"),
    "promote": lambda: registry.promote(Promotion("44136fa355b3678a", "6b86b273ff34fce1")),
    "put": lambda: output.put("reports/day=1/card.html", b"one"),
    "put over": lambda: output.put("reports/day=1/card.html", b"two"),
    "create again": lambda: output.create("reports/day=1/card.html", b"three"),
    "plan": lambda: journal.write_plan({}, [{"id": "0"}]),
    "attempt": lambda: journal.begin_attempt("0", 2),
    "shard": lambda: shard("0-0-1"),
    "record": lambda: journal.record("0", {"task": "0"}),
    "first commit": lambda: commit("run"),
    "another shard": lambda: shard("0-0-2"),
    "second commit": lambda: commit("another"),
    "result": lambda: journal.write_result({}),
    "result again": lambda: journal.write_result({"again": 1}),
    "delete": lambda: output.delete("reports/day=1/card.html"),
    "key": lambda: make_key(Path(sys.argv[1]) / "key.pem"),
}
for name, act in acts.items():
    act()
    tell(name)
DeltaTable(table.store.uri).alter.set_table_properties({"delta.checkpointInterval": "4"})
commit("one with a checkpoint")
tell("checkpoint")
"""


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_what_is_told_to_be_written_is_on_the_disk(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "disk", tmp_path / "record")
    subprocess.run(
        [sys.executable, "-c", _ACTS, str(recorder.root / "deep" / "out")],
        cwd=_ROOT,
        env=os.environ | recorder.environment(),
        check=True,
    )
    disk, told = Disk(), 0
    for line in recorder.read():
        if line[0] == "told":
            told += 1
            assert disk.at_risk() == [], f"after {line[1]}"
        disk.play(line)
    assert told == 19
    assert any(path.endswith(".checkpoint.parquet") for path in disk.seen)
