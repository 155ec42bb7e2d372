"""The journal of a run: what is done, and how often what was tried. It is the checkpoint."""

import uuid
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cluster.lake.storage.store import Missing, Store
from models import canonical_json
from models.refusal import Refusal

# Records are small reads that wait for the network: more threads than CPUs.
_THREADS = 16
_AHEAD = 256
# Folders of records that are listed side by side: of a million records, 4 MB of answers each.
_LISTED = 4
# Records that few splits may have are asked for by name. Reckoned, not measured: a GET of 20 ms in
# one of 16 threads is as long as 25 keys of a LIST of 1,000 in 0.2 s that has 3 others beside it.
_KEYS_A_GET = 25
_HEAD, _TAIL = '"tasks":[\n', "\n]}\n"  # around the lines of a plan


class Journal:
    """`<store>/<run_id>/`: a plan, markers of attempts and of their steps, a record a split,
    segments that sum up many records, a receipt."""

    def __init__(self, store: Store, run_id: str) -> None:
        self.store = store.child(run_id)

    def write_plan(self, facts: dict[str, Any], tasks: Iterable[dict[str, Any]]) -> list[str]:
        """Write the plan down, once; each task of the plan that counts, as JSON: ours, or those of
        an earlier one.

        It is one JSON document with a line a task, so that nobody has to hold a million tasks as
        objects.
        """
        opening = canonical_json.encode(facts)[:-1].decode() + ("," if facts else "")
        lines = ",\n".join(canonical_json.encode(task).decode() for task in tasks)
        text = f"{opening}{_HEAD}{lines}{_TAIL}"
        if not self.store.create("plan.json", text.encode()):
            text = self.store.read("plan.json").decode()
        return self._tasks(text)

    def read_plan(self) -> list[str] | None:
        """The tasks of the plan that was written down; None where none was."""
        try:
            return self._tasks(self.store.read("plan.json").decode())
        except Missing:
            return None

    def _tasks(self, text: str) -> list[str]:
        return _lines(text, f"{self.store.uri}/plan.json")

    def begin_attempt(self, split_id: str, limit: int) -> int | None:
        """The number of this attempt at the split, from 1; None where `limit` were begun before.

        No two attempts have one number, whichever process or machine they run in.
        """
        document = canonical_json.encode({"split": split_id, "attempt_of": uuid.uuid4().hex})
        for number in range(1, limit + 1):
            if self.store.create(f"attempts/{split_id}-{number}", document):
                return number
        return None

    def begin_step(self, split_id: str, attempt: int, place: int) -> None:
        """Mark that the attempt has come to this place of what it does in order."""
        self.store.put(f"steps/{split_id}-{attempt}/{place:06}", b"{}")

    def last_step(self, split_id: str, attempt: int) -> int | None:
        """The place that the attempt came to; None for one that marked none."""
        steps = self.store.list(f"steps/{split_id}-{attempt}")
        return int(steps[-1].key.rpartition("/")[2]) if steps else None

    def record(self, split_id: str, receipt: dict[str, Any]) -> dict[str, Any]:
        """Record that the split is done, once; the record that counts: ours, or an earlier one."""
        return self._once(record_key(split_id), receipt)

    def records(self, splits: Collection[str], planned: int = 0) -> Iterator[dict[str, Any]]:
        """The records of those of these splits that have one.

        A few of so many `planned` are asked for by name; else all that there are are listed.
        """
        if not splits:
            return
        if len(splits) * _KEYS_A_GET <= planned:
            yield from self._read_all([record_key(split) for split in splits])
            return

        def among(folder: str) -> list[str]:
            found = self.store.list(f"splits/{folder}")
            return [one.key for one in found if _split(one.key) in splits]

        folders = self.store.folders("splits")
        with ThreadPoolExecutor(_LISTED) as threads:
            keys = [key for some in threads.map(among, folders) for key in some]
        yield from self._read_all(keys)

    def write_segment(self, document: dict[str, Any]) -> None:
        """Write down what several records come to; it never replaces another."""
        self.store.put(f"segments/{uuid.uuid4().hex}.json", canonical_json.encode(document))

    def segments(self) -> Iterator[dict[str, Any]]:
        """All segments."""
        yield from self._read_all([found.key for found in self.store.list("segments")])

    def write_receipt(self, document: dict[str, Any]) -> None:
        """The receipt of the run; a later one takes the place of an earlier one."""
        self.store.put("receipt.json", canonical_json.encode(document))

    def read_receipt(self) -> dict[str, Any] | None:
        return self._read("receipt.json")

    def _read_all(self, keys: list[str]) -> Iterator[dict[str, Any]]:
        """Those of the documents that are there, read ahead: some hundreds of them are in memory
        at a time."""

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


def record_key(split_id: str) -> str:
    """In one of 16 folders, by the first digit of the id: S3 lists a thousand keys a request, one
    request after the other, which took minutes for a million records in one folder."""
    return f"splits/{split_id[0]}/{split_id}.json"


def _split(key: str) -> str:
    return key.rpartition("/")[2].removesuffix(".json")


def _lines(text: str, where: str) -> list[str]:
    _, begun, rest = text.partition(_HEAD)
    if not begun or not rest.endswith(_TAIL):
        raise Refusal(f"{where}: expected a plan with a line a task, found something else")
    lines = rest.removesuffix(_TAIL)
    return lines.split(",\n") if lines else []
