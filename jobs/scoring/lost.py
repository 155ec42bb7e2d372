"""Tasks that are done by their receipts, but whose shards are gone or not as they were written."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from cluster.lake.output.schemas import FLAGS, QUARANTINE, RUNS, SCORES
from cluster.lake.output.shard import Shard, find_missing, is_as_written
from cluster.lake.storage.store import Store
from cluster.scoring.receipt import LABELLED
from jobs.scoring.books import Books
from jobs.scoring.run import Run

# Shards of a table that are read back to compare their digests: as many take about 1.3 s, at 20 ms
# a read in 16 threads. Of more, the sizes are compared.
_MOST_READ = 1000
_THREADS = 16


def find_lost_tasks(run: Run, books: Books, *, verify: bool = False) -> set[str]:
    """The tasks with a shard that is not there, or has another size.

    With `verify`, also the tasks with a shard of another digest, unless a table has too many.
    """
    lost: set[tuple[str, str]] = set()
    for table in (FLAGS, SCORES, QUARANTINE, LABELLED):
        folder = f"{RUNS}/{run.run_id}/{LABELLED}" if table == LABELLED else table
        store, shards = run.output.child(folder), list(books.shards(table))
        gone = find_missing(store, {shard.key: shard.size for shard in shards})
        if verify and len(shards) <= _MOST_READ:
            gone |= _find_altered(store, [one for one in shards if one.key not in gone])
        lost |= {(table, key) for key in gone}
    return books.find_tasks(lost) if lost else set()


def _find_altered(store: Store, shards: Sequence[Shard]) -> set[str]:
    with ThreadPoolExecutor(_THREADS) as threads:
        good: Iterable[bool] = threads.map(lambda shard: is_as_written(store, shard), shards)
        return {shard.key for shard, same in zip(shards, good, strict=True) if not same}
