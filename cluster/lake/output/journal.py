"""The journal of a run, its checkpoint: which tasks are done, and how often each was tried."""

import uuid
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from cluster.lake.storage.store import Missing, Store
from models import canonical_json
from models.refusal import Refusal

# Records are small reads that wait for the network: more threads than CPUs.
_THREADS = 16
_AHEAD = 256  # records in memory at a time
# Folders of records that are listed in parallel: for a million records, 4 MB of answers each.
_FOLDERS_AT_ONCE = 4
# Up to one record in this many is read by its name, more are listed. Estimated, not measured: one
# GET of 20 ms in 16 threads takes as long as 25 keys of a LIST of 1,000 in 0.2 s in 4 threads.
_KEYS_A_GET = 25
_HEAD, _TAIL = '"tasks":[\n', "\n]}\n"  # around the lines of a plan


class Attempt(NamedTuple):
    """An attempt at a task."""

    driver: str  # of the command whose worker made it
    steps: tuple[int, ...]  # places of the splits that it began; none where it marked none
    died: bool | None  # whether its process died before its parent; None where nobody has seen


class Journal:
    """The folder `<store>/<run_id>/`.

    It holds the plan, a marker for each attempt, and for its steps and its end where it is tried
    apart, a record for each task that is done, segments that sum up many records, the ending of the
    scoring, and the result of the run.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self.store = store.child(run_id)

    def write_plan(self, facts: dict[str, Any], tasks: Iterable[dict[str, Any]]) -> list[str]:
        """Write the plan unless there is one. Returns the tasks of the plan that is there, as JSON.

        The plan is one JSON document with a line a task, so that a million tasks need not be held
        as objects.
        """
        opening = canonical_json.encode(facts)[:-1].decode() + ("," if facts else "")
        lines = ",\n".join(canonical_json.encode(task).decode() for task in tasks)
        text = f"{opening}{_HEAD}{lines}{_TAIL}"
        if not self.store.create("plan.json", text.encode()):
            text = self.store.read("plan.json").decode()
        return self._tasks(text)

    def read_plan(self) -> list[str] | None:
        """The tasks of the plan, as JSON; None where there is no plan."""
        try:
            return self._tasks(self.store.read("plan.json").decode())
        except Missing:
            return None

    def _tasks(self, text: str) -> list[str]:
        return _lines(text, f"{self.store.uri}/plan.json")

    def begin_attempt(self, task_id: str, driver: str) -> int:
        """The number of this attempt at the task, from 1, by a worker of this driver.

        No two attempts have the same number, whatever process or machine they run in.
        """
        document = {"task": task_id, "driver": driver, "attempt_of": uuid.uuid4().hex}
        data = canonical_json.encode(document)
        number = 1
        while not self.store.create(f"attempts/{task_id}-{number}", data):
            number += 1
        return number

    def begin_step(self, task_id: str, attempt: int, place: int) -> None:
        """Mark that the attempt has begun the split at this place of its task."""
        self.store.put(f"steps/{task_id}-{attempt}/{place:06}", b"{}")

    def end_attempt(self, task_id: str, attempt: int, died: bool) -> None:
        """Note how the process of an attempt ended, as its parent saw it."""
        self._once(f"ends/{task_id}-{attempt}", {"died": died})

    def note_hanging(self, task_id: str) -> None:
        """Note that an attempt at the task beside others does not end."""
        self._once(f"hanging/{task_id}", {})

    def has_hung(self, task_id: str) -> bool:
        return self.store.exists(f"hanging/{task_id}")

    def read_attempt(self, task_id: str, attempt: int) -> Attempt:
        """What is known of an attempt that was begun."""
        begun = self._read(f"attempts/{task_id}-{attempt}") or {}
        end = self._read(f"ends/{task_id}-{attempt}")
        steps = self.store.list(f"steps/{task_id}-{attempt}")
        return Attempt(
            driver=str(begun.get("driver", "")),
            steps=tuple(int(step.key.rpartition("/")[2]) for step in steps),
            died=None if end is None else bool(end["died"]),
        )

    def doubt(self, split_id: str, rule: str, driver: str) -> bool:
        """Note that the split cannot be read now; whether another driver has noted the same."""
        first = self._once(f"doubts/{split_id}", {"rule": rule, "driver": driver})
        return bool(first["rule"] == rule and first["driver"] != driver)

    def record(self, task_id: str, receipt: dict[str, Any]) -> dict[str, Any]:
        """Record that the task is done, unless it is recorded. Returns the record that is there."""
        return self._once(record_key(task_id), receipt)

    def records(self, tasks: Collection[str], planned: int = 0) -> Iterator[dict[str, Any]]:
        """The records of these tasks, of those that have one.

        A few tasks, compared with all those `planned`, are read by name; otherwise the records are
        listed.
        """
        if not tasks:
            return
        if len(tasks) * _KEYS_A_GET <= planned:
            yield from self._read_all([record_key(task) for task in tasks])
            return

        def among(folder: str) -> list[str]:
            keys = [found.key for found in self.store.list(f"tasks/{folder}")]
            return [key for key in keys if _task_id(key) in tasks]

        folders = self.store.folders("tasks")
        with ThreadPoolExecutor(_FOLDERS_AT_ONCE) as threads:
            keys = [key for some in threads.map(among, folders) for key in some]
        yield from self._read_all(keys)

    def discard(self, tasks: Collection[str]) -> None:
        """Forget that these tasks are done, so that they are done again."""
        for found in self.store.list("segments"):
            segment = self._read(found.key)
            if segment is not None and not segment["tasks"].keys().isdisjoint(tasks):
                self.store.delete(found.key)
        for task in tasks:
            self.store.delete(record_key(task))

    def reopen(self) -> None:
        """Take the result away: from here on there is work."""
        self.store.delete("result.json")

    def is_begun(self) -> bool:
        """Whether there is a plan."""
        return self.store.exists("plan.json")

    def write_segment(self, document: dict[str, Any]) -> None:
        """Write the sum of several records, beside earlier segments."""
        self.store.put(f"segments/{uuid.uuid4().hex}.json", canonical_json.encode(document))

    def segments(self) -> Iterator[dict[str, Any]]:
        """All segments."""
        yield from self._read_all([found.key for found in self.store.list("segments")])

    def write_ending(self, document: dict[str, Any]) -> None:
        """Write how the scoring ended, before the commit, over an earlier one."""
        self.store.put("ending.json", canonical_json.encode(document))

    def read_ending(self) -> dict[str, Any] | None:
        return self._read("ending.json")

    def write_result(self, document: dict[str, Any]) -> None:
        """Write the result of the run, over an earlier one."""
        self.store.put("result.json", canonical_json.encode(document))

    def read_result(self) -> dict[str, Any] | None:
        return self._read("result.json")

    def _read_all(self, keys: list[str]) -> Iterator[dict[str, Any]]:
        """The documents with these keys that exist, read in parallel."""

        def read(key: str) -> bytes | None:
            try:
                return self.store.read(key)
            except Missing:
                return None

        with ThreadPoolExecutor(_THREADS) as threads:
            for start in range(0, len(keys), _AHEAD):
                some = keys[start : start + _AHEAD]
                for key, data in zip(some, threads.map(read, some), strict=True):
                    if data is not None:
                        yield self._decode(key, data)

    def _once(self, key: str, document: dict[str, Any]) -> dict[str, Any]:
        data = canonical_json.encode(document)
        if not self.store.create(key, data):
            data = self.store.read(key)
        return self._decode(key, data)

    def _read(self, key: str) -> dict[str, Any] | None:
        try:
            return self._decode(key, self.store.read(key))
        except Missing:
            return None

    def _decode(self, key: str, data: bytes) -> dict[str, Any]:
        return canonical_json.decode(data, f"{self.store.uri}/{key}")


def record_key(task_id: str) -> str:
    """The key of a task's record, in one of 16 folders by the first digit of the id.

    S3 lists a thousand keys a request, one request after the other: a million records in one folder
    took minutes.
    """
    return f"tasks/{task_id[0]}/{task_id}.json"


def _task_id(key: str) -> str:
    return key.rpartition("/")[2].removesuffix(".json")


def _lines(text: str, where: str) -> list[str]:
    _, begun, rest = text.partition(_HEAD)
    if not begun or not rest.endswith(_TAIL):
        raise Refusal(f"{where}: expected a plan with a line for each task, found something else")
    lines = rest.removesuffix(_TAIL)
    return lines.split(",\n") if lines else []
