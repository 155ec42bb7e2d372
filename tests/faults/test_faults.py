"""The short form of `make chaos`: two trials of different faults, with a fresh seed.

The seed is printed; `ANOMARAY_CHAOS_SEED` sets it.
"""

import os
import random
import secrets

import pytest
from deltalake import CommitProperties, Transaction, write_deltalake

from cluster.lake.output.schemas import SCORES
from tests.conftest import S3Server
from tests.faults.faults import FAULTS
from tests.faults.lake import DAY, Base, build, difference, using
from tests.faults.reader import counted
from tests.faults.report import line
from tests.faults.trial import Outcome, Trial, run_trial

SEED = int(os.environ.get("ANOMARAY_CHAOS_SEED") or secrets.randbelow(2**31))
TRIALS = 2


def drawn() -> list[str]:
    """Faults of this seed: half of them on S3, and none that takes more than a minute."""
    short = [fault for fault in FAULTS.values() if not fault.slow]
    random.Random(SEED).shuffle(short)
    local = [fault.name for fault in short if not fault.s3]
    s3 = [fault.name for fault in short if fault.s3]
    return [*local[: TRIALS // 2], *s3[: TRIALS // 2]]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """The trained lake that every trial gets a copy of."""
    return build(tmp_path_factory.mktemp("chaos") / "base")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", range(TRIALS))
def test_whatever_happens_the_day_is_committed_once(
    number: int, base: Base, s3_server: S3Server
) -> None:
    outcome = played(drawn()[number], number, base, s3_server)
    assert not outcome.violations, outcome.to_document()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [fault.name for fault in FAULTS.values() if fault.slow])
def test_whatever_happens_for_long_the_day_is_committed_once(
    name: str, base: Base, s3_server: S3Server
) -> None:
    outcome = played(name, TRIALS, base, s3_server)
    assert not outcome.violations, outcome.to_document()


def played(name: str, number: int, base: Base, server: S3Server) -> Outcome:
    fault = FAULTS[name]
    if reason := fault.missing():
        pytest.skip(reason)
    outcome = Outcome(SEED, number, name, "s3" if fault.s3 else "local")
    with using(server):
        run_trial(base, fault.play, outcome, server if fault.s3 else None, fault.on_ray)
    print(line(outcome))
    return outcome


def test_the_comparison_sees_each_kind_of_damage() -> None:
    """A harness that cannot fail shows nothing."""
    expected = {"a": 1.0, "b": 2.0}
    rows = [("a", 1.0), ("b", 2.0)]
    assert difference(rows, expected) == (0, 0, 0)
    assert difference(rows[:1], expected) == (1, 0, 0)
    assert difference([*rows, ("a", 1.0)], expected) == (0, 1, 0)
    assert difference([("a", 1.0), ("b", 2.0000002)], expected) == (0, 0, 1)
    assert difference([*rows, ("c", 3.0)], expected) == (0, 0, 1)
    assert counted(rows) == counted(rows[::-1]) != counted([*rows, rows[0]])


def test_a_damaged_table_is_seen_by_the_judge_and_by_the_reader(base: Base) -> None:
    def damage(trial: Trial) -> None:
        day = ("score", str(trial.lake.spec), "--day", DAY)
        assert trial.finish(trial.start(*day, "--engine", "local")) == 0
        table = trial.lake.table()
        before = CommitProperties(app_transactions=[Transaction(f"day={DAY}/{SCORES}", 0)])
        table.create_write_transaction([], "append", table.schema(), commit_properties=before)
        table = trial.lake.table()
        rows = table.to_pyarrow_table()
        write_deltalake(table, rows.slice(0, 2), mode="append")
        table = trial.lake.table()
        lost = rows.column("uid")[-1].as_py()
        table.delete(f"uid = '{lost}'")

    outcome = run_trial(base, damage, Outcome(SEED, 0, "damage", "local"), None)
    assert (outcome.lost, outcome.doubled, outcome.different) == (1, 2, 0)
    assert outcome.partial_reads >= 3
