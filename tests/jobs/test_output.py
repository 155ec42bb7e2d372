"""No verb writes to the output of another watch, or reads its champion."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.lake.days import DayRange
from cluster.lake.output.owner import MARKER, claim_output
from cluster.lake.storage.opening import open_store
from jobs import (
    champion,
    check,
    evaluate,
    nightly,
    plan,
    registry,
    score,
    threshold,
    train,
    tune,
    vacuum,
)
from jobs.monitoring.watch_status import WatchStatus
from jobs.output import open_output, open_own_output
from jobs.spec.spec import Spec, load
from models.refusal import Refusal

DAY = "2026-11-21"
SPEC = """\
name: cards
input: {uri: in, partition: day}
columns:
  amount: {role: numeric}
  label: {role: label}
history: []
detector: {name: pca}
threshold: {policy: quantile, contamination: 0.01}
output: {uri: out}
"""
VERBS: dict[str, Callable[[Spec], Any]] = {
    "train": train.train,
    "tune": lambda spec: tune.tune(spec, 1),
    "score": lambda spec: score.score(spec, DAY),
    "evaluate": evaluate.evaluate,
    "nightly": nightly.nightly,
    "backfill": lambda spec: nightly.backfill(spec, DayRange(DAY, DAY)),
    "plan": lambda spec: plan.plan(spec, DAY),
    "threshold": threshold.change_threshold,
    "registry": registry.list_bundles,
    "promote": lambda spec: registry.promote(spec, "b" * 16),
    "rollback": registry.rollback,
    "vacuum": lambda spec: vacuum.vacuum(spec, 168, dry_run=False),
    "champion": champion.open_registry,
}


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spec:
    """A watch whose output is another's."""
    monkeypatch.chdir(tmp_path)
    for day in ("2026-11-20", DAY):
        Path(f"in/day={day}").mkdir(parents=True)
        table = pa.table({"amount": [1.0, 2.0], "label": pa.array([0, 1], pa.int8())})
        pq.write_table(table, f"in/day={day}/a.parquet")
    Path("cards.yaml").write_text(SPEC)
    claim_output(open_store("out"), "flows")
    return load("cards.yaml")


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_works_in_the_output_of_another_watch(cards: Spec, verb: str) -> None:
    with pytest.raises(Refusal, match="belongs to watch 'flows', not to 'cards'"):
        VERBS[verb](cards)
    assert [found.key for found in open_store("out").list()] == [MARKER]


def test_check_and_the_exporter_say_whose_the_output_is(
    cards: Spec, capsys: pytest.CaptureFixture[str]
) -> None:
    (error,) = check.run("cards.yaml").errors
    assert error.startswith("cards.yaml:9: output.uri: the output ")
    WatchStatus(cards).refresh()
    assert "belongs to watch 'flows'" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("place", ["in/out", "in/day=2026-11-21/out", "link/out"])
def test_no_output_lies_among_the_days_that_another_watch_reads(cards: Spec, place: str) -> None:
    Path("link").symlink_to("in/day=2026-11-21")
    Path("events.yaml").write_text(
        SPEC.replace("uri: in,", "uri: other,").replace("out}", place + "}")
    )
    events = load("events.yaml")
    for use in (open_output, open_own_output):
        with pytest.raises(Refusal, match=r"lies in .*/in, whose folders name days"):
            use(events)
    assert any("name days" in error for error in check.run("events.yaml").errors)
    assert not list(Path("in").rglob(MARKER))
