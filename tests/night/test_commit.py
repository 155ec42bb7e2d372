"""A day is committed whole, although days pass and champions come and go between its commands."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from deltalake import DeltaTable

from cluster.lake.output.committed import CommittedDays
from cluster.lake.output.schemas import FLAGS, QUARANTINE, REGISTRY, RUNS, SCORES
from cluster.lake.output.table import LakeTable
from cluster.lake.registry.registry import Registry
from cluster.lake.storage.opening import open_store
from jobs import flags, registry
from jobs import score as scoring
from jobs.nightly import nightly
from jobs.report import run_card
from jobs.score import score
from jobs.spec.spec import Spec, load
from jobs.vacuum import vacuum
from models.bundle import make_bundle, open_bundle
from tests.night.conftest import cut_into_files, watch_at
from tests.night.test_score import DAY, day_folder, spoil

Rows = Counter[tuple[object, ...]]
TABLES = (FLAGS, QUARANTINE, SCORES)


class Killed(BaseException):
    """The driver dies here: nothing of the product catches it."""


@pytest.fixture
def kept(trained: tuple[Path, Path], tmp_path: Path) -> Spec:
    """A watch that keeps all scores, over a day of six files with two bad rows."""
    output = {"uri": str(tmp_path / "out"), "scores": "all"}
    gates = {"flag_rate": [0, 0.5], "volume": None, "quarantine_rate": 1}
    spec = load(watch_at(trained, tmp_path, output=output, gates=gates))
    cut_into_files(day_folder(spec), 6)
    spoil(spec, "duration", [3, 5], [float("nan"), float("inf")])
    return spec


def read_tables(spec: Spec) -> dict[str, Rows]:
    """What any reader of Delta finds, as multisets of ids and bits of scores, or of bad rows."""
    return {name: Counter(_read(spec, name)) for name in TABLES}


def _read(spec: Spec, name: str) -> Iterable[tuple[object, ...]]:
    rows = DeltaTable(f"{spec.output.uri}/{name}").to_pyarrow_table()
    if name == QUARANTINE:
        return zip(*(rows[c].to_pylist() for c in ("file", "row", "column", "rule")), strict=True)
    return _with_bits(rows["uid"].to_pylist(), rows["score"])


def _with_bits(ids: Iterable[object], scores: object) -> Iterable[tuple[object, ...]]:
    return zip(ids, np.asarray(scores).view(np.uint32).tolist(), strict=True)


def let_days_pass(spec: Spec, days: float) -> None:
    """Everything in the output becomes older."""
    for path in Path(spec.output.uri).rglob("*"):
        if path.is_file():
            when = path.stat().st_mtime - days * 86_400
            os.utime(path, (when, when))


def read_champion(spec: Spec) -> str:
    there = Registry(open_store(spec.output.uri).child(REGISTRY))
    return there.require_champion().bundle


def promote_another(spec: Spec) -> None:
    """Make a detector with other scores the champion."""
    there = Registry(open_store(spec.output.uri).child(REGISTRY))
    champion = there.require_champion().bundle
    found = open_bundle(there.read_bundle(champion), champion)
    for weights in found.detector.parameters():
        weights.data.mul_(1.05)
    other = make_bundle(
        found.encoder, found.detector, found.detector_name, found.calibration, found.metadata
    )
    registry.promote(spec, there.add_bundle(other.files))


def shards_of(spec: Spec, name: str) -> list[Path]:
    return sorted(Path(spec.output.uri, name, f"day={DAY}").glob("*.parquet"))


@contextmanager
def dying(module: object, name: str, when: Callable[..., bool] = lambda *_: True) -> Iterator[None]:
    """The driver dies where it calls this."""
    real = getattr(module, name)

    def die(*arguments: object) -> object:
        if when(*arguments):
            raise Killed
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, die)
        with pytest.raises(Killed):
            yield


def test_a_day_that_lost_files_is_scored_again_where_they_were(kept: Spec) -> None:
    first = score(kept, DAY)
    whole, version = read_tables(kept), DeltaTable(f"{kept.output.uri}/{FLAGS}").version()
    lost = [shards_of(kept, name)[0] for name in TABLES]
    for path in lost[:2]:
        path.unlink()
    lost[2].write_bytes(lost[2].read_bytes()[:-10])
    attempts = Path(kept.output.uri, RUNS, first.run_id, "attempts")
    before = len(list(attempts.iterdir()))
    (again,) = nightly(kept).results
    assert (again.already, again.run_id) == (False, first.run_id)
    assert again.counts.scored == first.counts.scored
    assert read_tables(kept) == whole
    assert 1 <= len(list(attempts.iterdir())) - before <= len(lost)
    assert nightly(kept).results == []
    assert DeltaTable(f"{kept.output.uri}/{FLAGS}").version() == version + 1


def test_days_between_a_kill_and_its_rerun_cost_no_row(kept: Spec) -> None:
    with dying(scoring, "commit_day"):
        score(kept, DAY)
    for days, hours in ((0.1, 0), (9, 168)):  # kept while it may be at work, then ended
        let_days_pass(kept, days)
        removed = vacuum(kept, hours, dry_run=False)
        assert bool(removed) == (days > 1)
    again = score(kept, DAY)
    whole = read_tables(kept)
    assert (again.already, again.counts.retried) == (False, 0)
    assert sum(whole[SCORES].values()) == again.counts.scored
    assert sum(whole[QUARANTINE].values()) == again.counts.quarantined == 2
    assert CommittedDays(open_store(kept.output.uri)).is_run_whole(DAY, again.run_id)


def test_a_champion_that_comes_back_finds_its_day(kept: Spec) -> None:
    first = score(kept, DAY)
    whole = read_tables(kept)
    promote_another(kept)
    other = score(kept, DAY)
    assert read_tables(kept)[SCORES] != whole[SCORES]
    let_days_pass(kept, 9)
    vacuum(kept, 168, dry_run=False)
    registry.rollback(kept)
    again = score(kept, DAY)
    assert (again.run_id, again.already) == (first.run_id, False) != (other.run_id, False)
    assert again.counts == first.counts, "its shards were kept: no task was scored again"
    assert read_tables(kept) == whole


def test_a_run_that_died_between_its_commits_leaves_no_row_beside_another_champions(
    kept: Spec,
) -> None:
    first = score(kept, DAY)
    whole, version = read_tables(kept), DeltaTable(f"{kept.output.uri}/{FLAGS}").version()
    promote_another(kept)
    with dying(LakeTable, "commit", lambda table, *_: table.name == FLAGS):
        score(kept, DAY)
    assert read_tables(kept)[SCORES] != whole[SCORES]
    beside = flags.read_beside(kept.output.uri, SCORES, DAY)
    assert Counter(_with_bits(beside["uid"], beside["score"])) == whole[SCORES]
    registry.rollback(kept)
    (again,) = nightly(kept).results
    assert again.run_id == first.run_id
    assert read_tables(kept) == whole
    assert DeltaTable(f"{kept.output.uri}/{FLAGS}").version() == version, "its flags were right"


def test_scores_that_a_spec_no_longer_asks_for_are_taken_back(kept: Spec) -> None:
    score(kept, DAY)
    few = kept.model_copy(update={"output": kept.output.model_copy(update={"scores": "flags"})})
    result = score(few, DAY)
    assert result.status == "committed"
    assert sum(read_tables(kept)[SCORES].values()) == 0
    assert nightly(few).results == []


def test_a_card_that_was_not_written_is_written_by_the_next_command(kept: Spec) -> None:
    """Also where another champion was promoted meanwhile: the day is committed."""
    with dying(run_card, "write"):
        score(kept, DAY)
    reports = Path(kept.output.uri, "reports", f"day={DAY}")
    assert not reports.exists()
    with dying(run_card, "write"):
        score(kept, DAY)  # it is no success as long as there is no card
    champion = read_champion(kept)
    promote_another(kept)
    (again,) = nightly(kept).results
    assert again.bundle == champion != read_champion(kept)
    card = json.loads((reports / "run_card.json").read_text())
    assert (again.already, again.status) == (True, "committed")
    assert again.counts.scored == sum(read_tables(kept)[SCORES].values())
    assert (card["books"]["scored"], card["run"]["status"]) == (again.counts.scored, "committed")
    assert card["run"]["table_version"] == again.table_version == 1
    assert round(card["run"]["seconds"], 3) == again.seconds > 0
    assert again.card == str(reports / "run_card.html")
    assert nightly(kept).results == []
    registry.rollback(kept)
    assert score(kept, DAY) == again


def test_a_card_is_not_made_from_the_journal_of_another_spec(kept: Spec) -> None:
    with dying(run_card, "write"):
        score(kept, DAY)
    few = kept.model_copy(update={"output": kept.output.model_copy(update={"scores": "flags"})})
    night = nightly(few)
    assert (night.results, night.failed) == ([], {})
    assert "score --day" in next(one.reason for one in night.skipped if one.day == DAY)
    assert DAY not in {one.day for one in nightly(few).skipped}, "it is said once"
