"""Small committed days in all tables of an output, for tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from cluster.lake.output.journal import Journal
from cluster.lake.output.schemas import FLAGS, QUARANTINE, RUNS, SCORES
from cluster.lake.output.shard import Shard, shard_key, write_shard
from cluster.lake.output.table import Commit, LakeTable, count_commits
from cluster.lake.output.vacuum import read_store_time, vacuum
from cluster.lake.storage.delta import open_table
from cluster.lake.storage.store import Store
from tests.cluster.lake.flag_rows import SCHEMA, rows

TABLES = (QUARANTINE, SCORES, FLAGS)
A, B, C = "a" * 16, "b" * 16, "c" * 16


@dataclass(frozen=True)
class Run:
    """A run of a day that writes one shard a table."""

    output: Store
    run_id: str
    bundle: str = "bundle"
    day: str = "d1"
    attempt: int = 1

    @property
    def journal(self) -> Journal:
        return Journal(self.output.child(RUNS), self.run_id)

    def write(self) -> dict[str, Shard]:
        """The plan, and the shards."""
        self.journal.write_plan({"day": self.day}, [])
        key = shard_key(self.day, f"{self.run_id}-task-{self.attempt}")
        first = int(self.run_id[0], 16)
        return {name: write_shard(self.output.child(name), key, rows(first, 1)) for name in TABLES}

    def commit(self, shards: dict[str, Shard], tables: Sequence[str] = TABLES) -> None:
        """Commit the tables in their order, the flags last."""
        versions: dict[str, int] = {}
        for name in tables:
            table = LakeTable(self.output.child(name), SCHEMA, name)
            beside = versions if name == FLAGS else {}
            commit = Commit(self.day, self.run_id, "s1", {"bundle": self.bundle}, beside)
            seen = count_commits(open_table(table.store), self.day)
            versions[name] = table.commit(commit, [shards[name]], seen)

    def end(self) -> None:
        self.journal.write_result({"status": "committed"})

    def play(self) -> None:
        self.commit(self.write())
        self.end()

    def files(self) -> int:
        """The shards of the run that are there, in all tables."""
        named = f"part-{self.run_id}-"
        there = (found.key for name in TABLES for found in self.output.child(name).list())
        return sum(named in key for key in there)


def vacuum_after(output: Store, days: float, hours: float = 168) -> list[str]:
    """Vacuum so many days from now."""
    now = read_store_time(output) + timedelta(days=days)
    return vacuum(output, now, timedelta(hours=hours), dry_run=False)
