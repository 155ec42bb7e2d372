"""Every verb prints a document for programs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import typer
from typer.testing import CliRunner

from jobs.cli.app import app
from jobs.terminal.console import configure_logs
from tests.jobs.cli.documents import read_documented

GROUP: Any = typer.main.get_command(app)


@pytest.mark.parametrize("verb", sorted(GROUP.commands))
def test_every_verb_takes_json_and_its_document_is_described(verb: str) -> None:
    options = [option for parameter in GROUP.commands[verb].params for option in parameter.opts]
    assert "--json" in options
    assert verb in read_documented()


def test_the_page_describes_no_other_verb() -> None:
    assert set(read_documented()) == set(GROUP.commands)


@pytest.fixture
def logs() -> Iterator[None]:
    """The log on stderr, as in a process of its own."""
    configure_logs()
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("logs")
def test_stdout_has_the_document_alone(tmp_path: Path) -> None:
    lake, spec = str(tmp_path / "lake"), str(tmp_path / "flows.yaml")
    small = ("--days", "3", "--scale", "0.01")
    made = run("generate", lake, *small)
    assert made["days"] == ["2026-01-01", "2026-01-02", "2026-01-03"]
    assert run("init", f"{lake}/flows", "--output", spec)["spec"] == spec
    assert run("check", spec)["errors"] == []
    assert run("plan", spec, "--day", "2026-01-03")["rows"] > 0
    key = run("keys", str(tmp_path / "signing.key"))
    assert Path(key["file"]).exists()
    spoken = CliRunner().invoke(app, ["generate", str(tmp_path / "other"), *small])
    assert "rows of flows and" in spoken.stdout


def run(verb: str, *arguments: str) -> Any:
    ended = CliRunner().invoke(app, [verb, *arguments, "--json"])
    assert ended.exit_code == 0, (ended.output, ended.exception)
    document = json.loads(ended.stdout)
    assert set(document) == read_documented()[verb]
    return document
