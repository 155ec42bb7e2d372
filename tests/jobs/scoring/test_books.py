"""The books: sums that depend neither on order, nor on restarts, nor on other drivers."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.lake.input.input_file import RejectedFile
from cluster.lake.input.snapshot import Snapshot
from cluster.lake.output.journal import Journal
from cluster.lake.output.schemas import FLAGS, QUARANTINE
from cluster.lake.output.shard import Shard
from cluster.lake.storage.opening import open_store
from cluster.scoring.receipt import HourCounts, QuarantineRule, Receipt
from cluster.splits.counts import Counts
from cluster.splits.key_sample import KeySample
from jobs.scoring.books import Books, RunBooks, UnbalancedError
from jobs.scoring.segments import Compaction
from models.scores.histogram import ScoreHistogram

ROWS = 50


def receipt(number: int) -> Receipt:
    """The receipt of a task of two splits; the numbers follow from its own."""
    chance = np.random.default_rng(number)
    scores, keys = ScoreHistogram(), KeySample()
    scores.update(chance.lognormal(size=ROWS - 2).astype(np.float32))
    keys.update(chance.integers(0, 2**63, ROWS).astype(np.uint64))
    task = f"t{number:05}"
    shard = Shard(f"day=1/part-{task}.parquet", 10 + number, "ab", 3)
    late = QuarantineRule(f"late-{number}", None, "changed", 1)
    return Receipt(
        task=task,
        attempt=1 + number % 2,
        counts=Counts(
            splits=2,
            rows=ROWS,
            scored=ROWS - 2,
            quarantined=2,
            flagged=3,
            tasks=1,
            retried=number % 2,
        ),
        scores=scores,
        keys=keys,
        hours={number // 10: HourCounts(ROWS, 3)},
        quarantine=(
            QuarantineRule(f"f{number % 3}", "amount", "infinite", 1, (number,)),
            *([late] if number % 7 == 0 else []),
        ),
        shards={FLAGS: shard} | ({QUARANTINE: shard} if number % 5 == 0 else {}),
        stages={"read": 0.5},
    )


def sum_up(numbers: list[int]) -> Books:
    books = Books()
    for number in numbers:
        books.add(receipt(number))
    return books


EMPTY = Snapshot(
    "/lake", "1", (), (RejectedFile("broken", "unreadable", "not Parquet"),), pa.schema([])
)


def describe(books: Books) -> dict[str, Any]:
    """All facts of the books, whatever the order in which they came."""
    document = books.to_document()
    document["unreadable"].sort(key=lambda rule: rule["file"])
    document["shards"] = list(books.shards(FLAGS)), list(books.shards(QUARANTINE))
    return document


def test_a_receipt_comes_back_from_json_as_it_was() -> None:
    text = json.dumps(receipt(7).to_document())
    again = Receipt.from_document(json.loads(text))
    assert json.dumps(again.to_document()) == text
    assert (again.counts, again.hours) == (receipt(7).counts, receipt(7).hours)
    assert (again.quarantine, again.shards) == (receipt(7).quarantine, receipt(7).shards)


def test_sums_do_not_depend_on_the_order_or_on_segments() -> None:
    numbers = list(range(40))
    expected = describe(sum_up(numbers))
    counts = expected["counts"]
    assert (counts["rows"], counts["retried"], counts["splits"]) == (2000, 20, 80)
    assert counts["tasks"] == len(expected["tasks"]) == 40
    random.Random(0).shuffle(numbers)
    parts = Books()
    for some in (numbers[:11], numbers[11:30], numbers[30:]):
        parts.merge(Books.from_document(json.loads(json.dumps(sum_up(some).to_document()))))
    assert describe(sum_up(numbers)) == describe(parts) == expected


def test_examples_are_those_of_the_first_task_and_a_file_is_named_where_it_is_one() -> None:
    def rule(numbers: list[int]) -> QuarantineRule:
        return books_of(numbers, 0).quarantine()[-1]

    assert rule([6, 3, 9]) == QuarantineRule("f0", "amount", "infinite", 3, (3,))
    assert rule([4, 3, 9]) == QuarantineRule(None, "amount", "infinite", 3, (3,))


def test_a_task_that_is_answered_twice_is_a_fault() -> None:
    with pytest.raises(UnbalancedError, match="t00003 was answered twice"):
        sum_up([3, 4, 3])


def books_of(numbers: list[int], tasks: int, splits: int | None = None) -> RunBooks:
    planned = Counts(tasks=tasks, splits=2 * tasks if splits is None else splits)
    books = RunBooks(EMPTY, planned)
    books.merge(sum_up(numbers))
    return books


def test_books_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(UnbalancedError, match="3 tasks were planned and 2 answered"):
        books_of([0, 1], 3).check()
    with pytest.raises(UnbalancedError, match="5 splits were planned and 4 answered"):
        books_of([0, 1], 2, 5).check()
    with pytest.raises(UnbalancedError, match="the snapshot has 0 rows, the splits 100, and 0"):
        books_of([0, 1], 2).check()
    books_of([], 0).check()


def test_files_come_before_columns_in_the_quarantine() -> None:
    books = books_of([7, 1], 2)
    found = [(rule.column, rule.file, rule.rows) for rule in books.quarantine()]
    assert found == [(None, "broken", 0), (None, "late-7", 1), ("amount", "f1", 2)]
    assert books.unreadable_files == {"broken", "late-7"}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(open_store(str(tmp_path)), "run")


def record(journal: Journal, compaction: Compaction, number: int) -> None:
    stored = journal.record(f"t{number:05}", receipt(number).to_document())
    compaction.add(Receipt.from_document(stored))


def record_all(journal: Journal, numbers: list[int]) -> None:
    """Record these tasks as a driver does that starts the run."""
    compaction = Compaction(journal, segment=10)
    compaction.recover([])
    for number in numbers:
        record(journal, compaction, number)


def test_finished_tasks_are_found_in_segments_and_records(journal: Journal) -> None:
    record_all(journal, list(range(35)))
    assert len(list(journal.segments())) == 3
    for key in [found.key for found in journal.store.list("tasks")][:30]:
        journal.store.delete(key)  # only the segments know of them now
    found = Compaction(journal, segment=10).recover([f"t{n:05}" for n in range(100)])
    assert describe(found) == describe(sum_up(list(range(35))))


def test_records_without_a_segment_get_one_when_the_run_goes_on(journal: Journal) -> None:
    record_all(journal, list(range(8)))
    assert not list(journal.segments())
    compaction = Compaction(journal, segment=10)
    compaction.recover([f"t{n:05}" for n in range(20)])
    for number in (8, 9):
        record(journal, compaction, number)
    (segment,) = journal.segments()
    assert list(segment["tasks"]) == [f"t{n:05}" for n in range(10)]


def test_segments_of_drivers_that_ran_side_by_side_count_once(journal: Journal) -> None:
    record_all(journal, list(range(20)))
    record_all(journal, list(range(5, 25)))  # another driver, with some of the same tasks
    found = Compaction(journal).recover([f"t{n:05}" for n in range(25)])
    assert describe(found) == describe(sum_up(list(range(25))))


def test_tasks_of_no_plan_are_not_counted(journal: Journal) -> None:
    record_all(journal, list(range(12)))
    found = Compaction(journal).recover([f"t{n:05}" for n in range(5, 12)])
    assert sorted(found.tasks) == [f"t{n:05}" for n in range(5, 12)]
