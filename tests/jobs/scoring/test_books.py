"""The books: sums that do not depend on order, on restarts, or on who else summed."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.lake.input.input_file import RejectedFile
from cluster.lake.input.snapshot import Snapshot
from cluster.lake.output.journal import Journal
from cluster.lake.storage.opening import open_store
from cluster.splits.key_sample import KeySample
from jobs.scoring.books import Account, Balance, UnbalancedError
from jobs.scoring.segments import Compaction
from models.scores.histogram import ScoreHistogram

ROWS = 50


def receipt(number: int) -> dict[str, Any]:
    """What a scorer says of a split; the numbers follow from its own."""
    chance = np.random.default_rng(number)
    scores, keys = ScoreHistogram(), KeySample()
    scores.update(chance.lognormal(size=ROWS - 2).astype(np.float32))
    keys.update(chance.integers(0, 2**63, ROWS).astype(np.uint64))
    split = f"s{number:05}"
    shard = {"key": f"day=1/part-{split}.parquet", "size": 10 + number, "sha256": "ab", "rows": 3}
    rule = {"column": "amount", "file": f"f{number % 3}", "rule": "infinite", "rows": 1}
    late = {"file": f"late-{number}", "rule": "changed", "rows": 1, "message": "gone"}
    return {
        "split": split,
        "rows": ROWS,
        "filtered": 0,
        "scored": ROWS - 2,
        "quarantined": 2,
        "flagged": 3,
        "non_finite": 0,
        "attempt": 1 + number % 2,
        "resent": 0,
        "sketch": scores.to_document(),
        "keys": keys.to_document(),
        "hours": {str(number // 10): [ROWS, 3]},
        "shards": [shard],
        "score_shards": [],
        "quarantine_shards": [shard] if number % 5 == 0 else [],
        "labelled": [],
        "rules": [{**rule, "examples": [split]}],
        "unreadable": [late] if number % 7 == 0 else [],
    }


def summed(numbers: list[int]) -> Account:
    account = Account()
    for number in numbers:
        account.merge(Account.of(receipt(number)))
    return account


EMPTY = Snapshot(
    "/lake", "1", (), (RejectedFile("broken", "unreadable", "not Parquet"),), pa.schema([])
)


def facts(account: Account) -> dict[str, Any]:
    """All that is read of an account, without the order in which it came."""
    document = account.to_document()
    document["unreadable"].sort(key=lambda bad: bad["file"])
    document["rules"].sort(key=lambda rule: rule["rule"])
    document["shards"] = list(account.shards("shards")), list(account.shards("quarantine_shards"))
    return document


def test_sums_do_not_depend_on_the_order_or_on_segments() -> None:
    numbers = list(range(40))
    expected = facts(summed(numbers))
    assert (expected["rows"], expected["retried"], len(expected["splits"])) == (2000, 20, 40)
    random.Random(0).shuffle(numbers)
    parts = Account()
    for some in (numbers[:11], numbers[11:30], numbers[30:]):
        parts.merge(Account.from_document(summed(some).to_document()))
    assert facts(summed(numbers)) == facts(parts) == expected


def test_examples_are_those_of_the_first_split_and_a_file_is_named_where_it_is_one() -> None:
    (rule,) = summed([6, 3, 9]).to_document()["rules"]
    assert (rule["examples"], rule["file"], rule["rows"]) == (["s00003"], "f0", 3)
    (rule,) = summed([4, 3, 9]).to_document()["rules"]
    assert (rule["examples"], rule["file"]) == (["s00003"], None)


def test_a_split_that_is_answered_twice_is_a_fault() -> None:
    with pytest.raises(UnbalancedError, match="s00003 was answered twice"):
        summed([3, 4, 3])


def books_of(numbers: list[int], planned: int) -> Balance:
    balance = Balance(EMPTY, planned)
    balance.merge(summed(numbers))
    return balance


def test_books_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(UnbalancedError, match="3 splits were planned and 2 answered"):
        books_of([0, 1], 3).check()
    with pytest.raises(UnbalancedError, match="the snapshot has 0 rows, the splits 100, and 0"):
        books_of([0, 1], 2).check()
    books_of([], 0).check()


def test_files_come_before_columns_in_what_was_set_aside() -> None:
    balance = books_of([7, 1], 2)
    found = [(rule["column"], rule["file"], rule["rows"]) for rule in balance.rules()]
    assert found == [(None, "broken", 0), (None, "late-7", 1), ("amount", "f1", 2)]
    assert balance.unreadable_files == {"broken", "late-7"}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(open_store(str(tmp_path)), "run")


def played(journal: Journal, numbers: list[int]) -> None:
    """What a driver does with the splits that it is answered."""
    compaction = Compaction(journal, segment=10)
    compaction.recover([])
    for number in numbers:
        compaction.add(journal.record(f"s{number:05}", receipt(number)))


def test_what_is_done_is_found_again_in_segments_and_records(journal: Journal) -> None:
    played(journal, list(range(35)))
    assert len(list(journal.segments())) == 3
    for key in [found.key for found in journal.store.list("splits")][:30]:
        journal.store.delete(key)  # so that the segments alone know of them
    found = Compaction(journal, segment=10).recover([f"s{n:05}" for n in range(100)])
    assert facts(found) == facts(summed(list(range(35))))


def test_records_without_a_segment_get_one_when_the_run_goes_on(journal: Journal) -> None:
    played(journal, list(range(8)))
    assert not list(journal.segments())
    compaction = Compaction(journal, segment=10)
    compaction.recover([f"s{n:05}" for n in range(20)])
    for number in (8, 9):
        compaction.add(journal.record(f"s{number:05}", receipt(number)))
    (segment,) = journal.segments()
    assert list(segment["splits"]) == [f"s{n:05}" for n in range(10)]


def test_segments_of_drivers_that_ran_side_by_side_count_once(journal: Journal) -> None:
    played(journal, list(range(20)))
    played(journal, list(range(5, 25)))  # a driver that was answered some of the same splits
    found = Compaction(journal).recover([f"s{n:05}" for n in range(25)])
    assert facts(found) == facts(summed(list(range(25))))


def test_splits_of_no_plan_are_not_counted(journal: Journal) -> None:
    played(journal, list(range(12)))
    found = Compaction(journal).recover([f"s{n:05}" for n in range(5, 12)])
    assert sorted(found.splits) == [f"s{n:05}" for n in range(5, 12)]
