"""Removing what nothing needs from an output: files of replaced days and of runs that died.

Ages are measured by the store's own clock, on which all its files agree, and never by that of this
machine. A run that is not committed is known by its journal, from whatever machine it runs.
"""

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cluster.lake.output.journal import Journal
from cluster.lake.output.schemas import FLAGS, QUARANTINE, RUNS, SCORES
from cluster.lake.output.table import list_files
from cluster.lake.storage.delta import open_table, read_key
from cluster.lake.storage.store import Object, Store
from models import canonical_json

# A run whose journal was written to within this time may be at work, whatever age is asked for.
_AT_WORK = timedelta(days=1)
_LOG = "_delta_log"
_ENTRY = re.compile(rf"{_LOG}/\d{{20}}\.json")
_RUN = re.compile(r"part-([0-9a-f]{16})-")


def read_store_time(store: Store) -> datetime:
    """The time by the store's clock (UTC): that of an object which is written now."""
    key = f"_clock-{uuid.uuid4().hex}"
    store.put(key, b"")
    try:
        return store.stat(key).modified
    finally:
        store.delete(key)


def limit_use(now: datetime, age: timedelta) -> datetime:
    """The time since which a run must have used something to be at work with it."""
    return now - max(age, _AT_WORK)


@dataclass
class _Log:
    """What the log of a table says of its files."""

    runs: dict[str, str] = field(default_factory=dict)  # the last run of each day
    adds: dict[tuple[str, str], set[str]] = field(default_factory=dict)  # by day and run
    bundles: dict[tuple[str, str], str] = field(default_factory=dict)  # newest run by day, bundle
    late: set[str] = field(default_factory=set)  # removed since the horizon: a reader may be there

    def needed(self, runs: dict[str, str]) -> set[str]:
        """Files of the newest commit of each bundle, which may be champion again, and of the runs
        by day that the flags are of."""
        keep = {(day, run) for (day, _), run in self.bundles.items()} | set(runs.items())
        return self.late.union(*(self.adds.get(one, set()) for one in keep))


def vacuum(output: Store, now: datetime, age: timedelta, dry_run: bool) -> list[str]:
    """Remove files older than `age` that nothing needs; returns their keys.

    `now` is `read_store_time`. Needed is what a table has, or had within the age; what the newest
    commit of a bundle has; and what a run wrote that is not at its end. A run that did nothing for
    so long, and for a day, is ended: its journal goes before its files, so that the same run begins
    anew. With `dry_run`, nothing is removed.
    """
    horizon = now - age
    logs = {name: _read_log(output.child(name), horizon) for name in (FLAGS, QUARANTINE, SCORES)}
    open_runs, removed = set(), []
    for run in output.child(RUNS).folders():
        objects = output.list(f"{RUNS}/{run}")
        if not objects or _is_at_its_end(output, run):
            continue
        if max(found.modified for found in objects) >= limit_use(now, age):
            open_runs.add(run)
        elif run not in logs[FLAGS].runs.values():  # committed, it lacks nothing but its card
            removed += _end_run(output, objects, dry_run)
    for name, log in logs.items():
        store = output.child(name)
        needed = _list_present(store) | log.needed(logs[FLAGS].runs)
        for key in _list_unneeded(store, needed, open_runs, horizon):
            removed.append(f"{name}/{key}")
            if not dry_run:
                store.delete(key)  # by the store, which follows no link that has come meanwhile
    return removed


def _end_run(output: Store, objects: tuple[Object, ...], dry_run: bool) -> list[str]:
    """Remove the journal of a run that nobody will finish; what makes a task done goes first."""
    keys = [found.key for found in objects]
    keys.sort(key=lambda key: key.split("/")[2] not in ("segments", "tasks"))
    for key in () if dry_run else keys:
        output.delete(key)
    return keys


def _is_at_its_end(output: Store, run: str) -> bool:
    """Whether the run was committed and nobody has begun it again: then it would have no result."""
    result = Journal(output.child(RUNS), run).read_result()
    return result is not None and result["status"] == "committed"


def _list_unneeded(
    store: Store, needed: set[str], open_runs: set[str], horizon: datetime
) -> Iterator[str]:
    for found in store.list():
        run = _RUN.search(found.key)
        hidden = found.key.startswith(("_", "."))  # the log, and what other tools keep there
        if hidden or found.key in needed or found.modified >= horizon:
            continue
        if run is None or run[1] not in open_runs:
            yield found.key


def _list_present(store: Store) -> set[str]:
    files = list_files(open_table(store))
    return {read_key(store, path) for path in files.column("path").to_pylist()} if files else set()


def _read_log(store: Store, horizon: datetime) -> _Log:
    store.refuse_links()
    log = _Log()
    for found in store.list(_LOG):  # in the order of versions
        if not _ENTRY.fullmatch(found.key):
            continue
        actions = list(_read_actions(store, found.key))
        if found.modified >= horizon:
            removes = (action["remove"]["path"] for action in actions if "remove" in action)
            log.late.update(read_key(store, path) for path in removes)
        infos = (action["commitInfo"] for action in actions if "commitInfo" in action)
        info: dict[str, Any] = next(infos, {})
        if not {"day", "run_id"} <= info.keys():
            continue
        day, run = info["day"], info["run_id"]
        adds = {read_key(store, action["add"]["path"]) for action in actions if "add" in action}
        # A run that is committed again adds only what it lacked.
        log.adds.setdefault((day, run), set()).update(adds)
        log.runs[day] = run
        if "bundle" in info:
            log.bundles[day, info["bundle"]] = run
    return log


def _read_actions(store: Store, key: str) -> Iterator[dict[str, Any]]:
    for line in store.read(key).splitlines():
        if line:
            yield canonical_json.decode(line, f"{store.uri}/{key}")
