"""A reader that looks at all tables all the time, and remembers every day that it saw."""

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from deltalake.exceptions import TableNotFoundError

from tests.faults.lake import TABLES, Lake, Row, read_day

Rows = frozenset[tuple[Row, int]]  # and how often each
Seen = tuple[Rows, ...]  # the rows of the day by table, in the order of `TABLES`

# Between two looks, of which each takes some 30 ms of a core that the run wants, too; on S3 the
# server does as well. Whatever was committed between two is looked at in the end.
_PAUSE_S, _PAUSE_S3_S = 0.4, 0.6


class Reader:
    """Polls from `with` to its end; then `partial` tells what it should not have seen."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._seen: Counter[Seen] = Counter()
        self.failures: Counter[str] = Counter()
        self._end = threading.Event()
        self._looking = threading.Lock()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> "Reader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(timeout=60)

    @property
    def looks(self) -> int:
        return sum(self._seen.values())

    @property
    def states(self) -> int:
        """How many different days were seen."""
        return len(self._seen)

    @property
    def partial(self) -> int:
        """How many looks showed what was never a whole day, or tables of different days."""
        whole = {
            tuple(counted(day[name].items()) for name in TABLES) for day in self._lake.whole_days
        }
        return sum(
            times for seen, times in self._seen.items() if self._without_left_out(seen) not in whole
        )

    def _without_left_out(self, seen: Seen) -> Seen:
        return tuple(
            frozenset((row, n) for row, n in rows if self._lake.judged([row])) for rows in seen
        )

    def _poll(self) -> None:
        pause = _PAUSE_S3_S if self._lake.server else _PAUSE_S
        while not self._end.wait(pause):
            with self._looking:
                self.look()

    @contextmanager
    def still(self) -> Iterator[None]:
        """No look is taken, while the harness itself moves the lake."""
        with self._looking:
            yield

    def look(self, version: int | None = None) -> None:
        """Look at the tables once, as they are or were at a version of the flags."""
        try:
            rows = read_day(self._lake, version)
        except Exception as error:  # whatever it is, it is counted and shown
            self.failures[f"{type(error).__name__}: {error}"[:200]] += 1
            return
        self._seen[tuple(counted(rows[name]) for name in TABLES)] += 1

    def look_back(self) -> None:
        """Look at every version that the flags ever had."""
        try:
            newest = self._lake.table().version()
        except TableNotFoundError:
            return
        for version in range(newest + 1):
            self.look(version)


def counted(rows: Iterable[Row]) -> Rows:
    return frozenset(Counter(rows).items())
