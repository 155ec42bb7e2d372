"""The journal of a run: what is done, and how often what was tried. It is the checkpoint."""

import uuid
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cluster.lake import documents
from cluster.lake.store import Missing, Store

# Records are small reads that wait for the network: more threads than CPUs.
_THREADS = 16
_AHEAD = 256


class Journal:
    """`<store>/<run_id>/`: a plan, markers of attempts and of their steps, a record a split,
    segments that sum up many records, a receipt."""

    def __init__(self, store: Store, run_id: str) -> None:
        self.store = store.child(run_id)

    def write_plan(self, document: dict[str, Any]) -> dict[str, Any]:
        """Write the plan down, once; the plan that counts: ours, or an earlier one."""
        return self._once("plan.json", document)

    def read_plan(self) -> dict[str, Any] | None:
        return self._read("plan.json")

    def begin_attempt(self, split_id: str, limit: int) -> int | None:
        """The number of this attempt at the split, from 1; None where `limit` were begun before.

        No two attempts have one number, whichever process or machine they run in.
        """
        document = documents.encode({"split": split_id, "attempt_of": uuid.uuid4().hex})
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
        return self._once(f"splits/{split_id}.json", receipt)

    def records(self, splits: Collection[str]) -> Iterator[dict[str, Any]]:
        """The records of those of these splits that have one."""
        if not splits:
            return
        keys = [found.key for found in self.store.list("splits") if _split(found.key) in splits]
        yield from self._read_all(keys)

    def write_segment(self, document: dict[str, Any]) -> None:
        """Write down what several records come to; it never replaces another."""
        self.store.put(f"segments/{uuid.uuid4().hex}.json", documents.encode(document))

    def segments(self) -> Iterator[dict[str, Any]]:
        """All segments."""
        yield from self._read_all([found.key for found in self.store.list("segments")])

    def write_receipt(self, document: dict[str, Any]) -> None:
        """The receipt of the run; a later one takes the place of an earlier one."""
        self.store.put("receipt.json", documents.encode(document))

    def read_receipt(self) -> dict[str, Any] | None:
        return self._read("receipt.json")

    def _read_all(self, keys: list[str]) -> Iterator[dict[str, Any]]:
        """The documents, read ahead: some hundreds of them are in memory at a time."""
        with ThreadPoolExecutor(_THREADS) as threads:
            for start in range(0, len(keys), _AHEAD):
                some = keys[start : start + _AHEAD]
                for key, data in zip(some, threads.map(self.store.read, some), strict=True):
                    yield self._decode(key, data)

    def _once(self, key: str, document: dict[str, Any]) -> dict[str, Any]:
        data = documents.encode(document)
        if not self.store.create(key, data):
            data = self.store.read(key)
        return self._decode(key, data)

    def _read(self, key: str) -> dict[str, Any] | None:
        try:
            return self._decode(key, self.store.read(key))
        except Missing:
            return None

    def _decode(self, key: str, data: bytes) -> dict[str, Any]:
        return documents.decode(data, f"{self.store.uri}/{key}")


def _split(key: str) -> str:
    return key.removeprefix("splits/").removesuffix(".json")
