"""Vacuum asks before it removes what a reader of the last day may have open."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.cli.app import app
from models.refusal import Refusal
from tests.jobs.test_output import SPEC


@pytest.mark.parametrize(
    ("options", "asks"),
    [
        (["--hours", "23", "--no-dry-run"], True),
        (["--hours", "0", "--no-dry-run"], True),
        (["--hours", "0", "--no-dry-run", "--yes"], False),
        (["--hours", "0"], False),
        (["--hours", "24", "--no-dry-run"], False),
        (["--no-dry-run"], False),
    ],
)
def test_few_hours_need_a_yes(
    options: list[str], asks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cards.yaml").write_text(SPEC)
    ended = CliRunner().invoke(app, ["vacuum", "cards.yaml", *options])
    assert ended.exit_code == int(asks), ended.output
    assert isinstance(ended.exception, Refusal) == asks
    assert ("pass --yes" in str(ended.exception)) == asks
    assert Path("out").exists() == (not asks)
