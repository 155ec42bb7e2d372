"""The notebook that looks at a night, over the watch of these tests."""

import pytest

from jobs.score import score
from jobs.spec.spec import Spec
from tests.examples import run
from tests.night.conftest import DAYS


def test_the_notebook_looks_at_last_night(watch: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    result = score(watch, DAYS[5])
    monkeypatch.setenv("ANOMARAY_EXAMPLE_OUTPUT", watch.output.uri)
    run(
        "last_night",
        f"len(flags) == {result.counts.flagged} > 0",
        f"document['books']['scored'] == {result.counts.scored}",
        "card.is_file()",
    )
