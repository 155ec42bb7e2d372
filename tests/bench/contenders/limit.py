"""The limit: a hand-written loop without Ray, as fast as it could be made.

One process a core, of one thread each; each takes the next largest file until none is left. The
features are read first, with strings as dictionaries; id, time and addresses only of row groups
with flags, and only the flagged rows are kept. No journal, no books, no checksums, no reasons.
"""

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.bench.contenders import fused
from tests.bench.contenders.task import KEPT, Task, parse, report

_DICTIONARIES = ["src", "dst", "proto", "service"]
# Below this a file is read at once: the calls cost more than the memory.
_SMALL_ROWS = 65_536
_START_S = 120.0  # a process that is not ready by then has failed


class Loop:
    """What one process does."""

    def __init__(self, task: Task, backend: str | None) -> None:
        pa.set_cpu_count(1)
        self.task = task
        self.filesystem = task.filesystem()
        self.scorer = fused.Scorer(fused.read(task.bundle), backend)

    def run(self, files: list[str], turn: Any) -> tuple[int, int]:
        """Score files until none is left; rows and flags. `turn` is the place in the list."""
        rows = flagged = 0
        for number, file in self._opened(files, turn):
            rows += file.metadata.num_rows
            parts = [self._flags(file, groups) for groups in _lots(file)]
            found = [part for part in parts if part is not None]
            if found:
                flagged += sum(part.num_rows for part in found)
                path = self.task.out / f"part-{number:05}.parquet"
                pq.write_table(pa.concat_tables(found), path)
        return rows, flagged

    def _opened(self, files: list[str], turn: Any) -> Iterator[tuple[int, pq.ParquetFile]]:
        """The files of this process; from S3 the next is fetched while one is scored."""
        if not self.task.remote:
            while (number := _next(turn)) < len(files):
                yield number, pq.ParquetFile(files[number], read_dictionary=_DICTIONARIES)
            return
        with ThreadPoolExecutor(1) as ahead:
            number = _next(turn)
            coming = ahead.submit(self._fetch, files, number)
            while number < len(files):
                data, this = coming.result(), number
                number = _next(turn)
                coming = ahead.submit(self._fetch, files, number)
                yield this, pq.ParquetFile(data, read_dictionary=_DICTIONARIES)

    def _fetch(self, files: list[str], number: int) -> pa.BufferReader | None:
        """The whole file in one request: all but a few of its bytes are needed."""
        if number >= len(files):
            return None
        with self.filesystem.open_input_file(files[number]) as file:
            return pa.BufferReader(file.read_buffer(file.size()))

    def _flags(self, file: pq.ParquetFile, groups: list[int]) -> pa.Table | None:
        columns = list(self.scorer.columns)
        features = file.read_row_groups(groups, columns, use_threads=False)
        scores = self.scorer.scores(features)
        places = np.flatnonzero(scores > self.task.threshold)
        if not len(places):
            return None
        kept = file.read_row_groups(groups, list(KEPT), use_threads=False).take(pa.array(places))
        return kept.append_column("score", pa.array(scores[places]))


def _lots(file: pq.ParquetFile) -> list[list[int]]:
    """Row groups to read at once: one, or all of a small file."""
    groups = list(range(file.num_row_groups))
    return [groups] if file.metadata.num_rows <= _SMALL_ROWS else [[group] for group in groups]


def _next(turn: Any) -> int:
    with turn.get_lock():
        number: int = turn.value
        turn.value += 1
    return number


def _work(
    task: Task, backend: str | None, files: list[str], turn: Any, ready: Any, answers: Any
) -> None:
    loop = Loop(task, backend)
    ready.wait()
    answers.put(loop.run(files, turn))


def main(description: str | None, backend: str | None = None) -> None:
    task = parse(description)
    files = task.files()
    # fork: what is imported is shared, and nothing here has started a thread yet
    context = multiprocessing.get_context("fork")
    turn, answers = context.Value("q", 0), context.SimpleQueue()
    ready = context.Barrier(task.processes + 1)
    arguments = (task, backend, files, turn, ready, answers)
    processes = [context.Process(target=_work, args=arguments) for _ in range(task.processes)]
    for process in processes:
        process.start()
    ready.wait(timeout=_START_S)
    started = time.monotonic()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("a process of the loop failed")
    counts = [answers.get() for _ in processes]
    report(started, sum(rows for rows, _ in counts), sum(flagged for _, flagged in counts))


if __name__ == "__main__":
    main(__doc__)
