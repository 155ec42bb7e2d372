"""Trials in a process of their own: one that hangs or dies is ended, and the next go on."""

import os
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from tests.formats.trial import Outcome, Trials, name_inputs

_SPAWN = get_context("spawn")


def try_all(inputs: Iterable[Sequence[Path]], folder: Path, bound_s: float) -> Iterator[Outcome]:
    """The outcome of each input, in order; one that takes longer than `bound_s` is a fault."""
    worker = _Worker(folder)
    try:
        for paths in inputs:
            name = name_inputs(paths)
            worker.connection.send(paths)
            if not worker.connection.poll(bound_s):
                yield Outcome("fault", f"hang: no end after {bound_s:,.0f} s", name, bound_s)
            else:
                try:
                    yield worker.connection.recv()
                    continue
                except EOFError:
                    worker.process.join()
                    yield Outcome("fault", f"the process died: {worker.process.exitcode}", name)
            worker.end()
            worker = _Worker(folder)
    finally:
        worker.end()


class _Worker:
    def __init__(self, folder: Path) -> None:
        self.connection, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=_work, args=(theirs, folder), daemon=True)
        self.process.start()
        theirs.close()

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _work(connection: Connection, folder: Path) -> None:
    os.umask(0o077)
    trials = Trials(folder / str(os.getpid()), count_rows)
    while True:
        try:
            paths = connection.recv()
        except EOFError:
            return
        connection.send(trials.run(paths))


def count_rows(path: Path) -> int | None:
    """The rows of a file by its footer, or by DuckDB where pyarrow reads none."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except Exception:
        try:
            counted = duckdb.execute("SELECT count(*) FROM read_parquet(?)", [str(path)])
            row = counted.fetchone()
            return None if row is None else int(row[0])
        except duckdb.Error:
            return None
