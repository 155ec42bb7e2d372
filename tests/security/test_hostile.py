"""Hostile texts in every field of a lake, through a night, to every place where they are shown."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import structlog

from jobs.terminal.console import configure_logs
from tests.browser.test_run_card import CHROMIUM, Visit
from tests.browser.test_run_card import browser as browser
from tests.security import hostile
from tests.security.conftest import DAY, Night

# Characters that move a terminal's cursor or change what it draws: controls except the line end,
# direction marks, zero width, line separators. The frames of rich use none of them.
UNDRAWN = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def test_the_attacks_did_reach_the_tables(night: Night) -> None:
    flags, scores = night.rows("flags"), night.rows("scores")
    assert set(scores["note"].to_pylist()) == set(hostile.ATTACKS)
    assert len(set(flags[hostile.NAMES[0]].to_pylist())) > len(hostile.ATTACKS) / 2
    reasons = [reason for row in flags["reasons"].to_pylist() for reason in row]
    assert any(reason["feature"] == "shop" for reason in reasons)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_no_command_prints_a_character_that_a_terminal_obeys(stream: str, night: Night) -> None:
    for command, said in night.said.items():
        text = said[stream == "stderr"]
        assert (found := UNDRAWN.search(text)) is None, (command, found)


def test_markup_of_a_field_is_shown_and_not_obeyed(night: Night) -> None:
    assert "[bold]name.parquet" in "".join(night.said[f"plan --day {DAY}"])
    for command in night.said:
        if "--sql" in command:
            assert "[red]markup[/red] [link=" in night.said[command][0]
            assert "\\x1b[31mred" in night.said[command][0]


def test_every_line_of_the_log_is_ours(night: Night) -> None:
    _, err = night.said["nightly"]
    assert not any(line.startswith("X-Injected") for line in err.splitlines())
    lines = [line for line in err.splitlines() if line.startswith("{")]
    events = [json.loads(line) for line in lines]
    assert events
    assert "forged" not in {event["event"] for event in events}
    assert all({"level", "timestamp"} <= event.keys() for event in events)
    progress = [event for event in events if "done" in event]
    assert all({"of", "per_second", "left_s"} <= event.keys() for event in progress)
    said = "\n".join([err, *night.said["train"], night.said["nightly"][0]])
    assert not re.search(r"pid=|raylet|ray\.(data|train|tune)|Trial|it/s|%\|", said), "Ray's lines"


@pytest.mark.parametrize("command", ["flags --json", f"plan --day {DAY} --json"])
def test_json_is_ascii_and_holds_the_field_as_it_is(command: str, night: Night) -> None:
    out, _ = night.said[command]
    assert out.isascii()
    document = json.loads(out)
    if command.startswith("flags"):
        assert {row["note"] for row in document} <= set(hostile.ATTACKS)
        assert {row["card"] for row in document} == {"****5678"}


def test_a_run_cards_json_holds_no_invisible_character(night: Night) -> None:
    text = (night.reports / "run_card.json").read_text()
    assert json.loads(text)["run"]["status"] == "committed"
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)


def test_an_export_is_parquet_and_no_table_of_text(night: Night) -> None:
    # A formula does nothing in Parquet: there is no CSV for a spreadsheet to open.
    files = [path for path in (night.folder / "export").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".parquet", ".json"}
    for path in files:
        if path.suffix == ".parquet":
            notes = pq.read_table(path, partitioning=None)["note"].to_pylist()
            assert set(notes) <= set(hostile.ATTACKS)


def test_quarantined_files_are_named_and_their_names_do_nothing(night: Night) -> None:
    rows = night.rows("quarantine").to_pylist()
    bad = [row for row in rows if row["rule"] == "not_parquet"]
    assert [Path(row["file"]).name for row in bad] == ["[bold]name.parquet"]
    assert {Path(row["file"]).name for row in rows if row["column"] == "amount"} <= {
        f"{hostile.NAMES[0]}.parquet",
        "=1+1.parquet",
    }


needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"
)


@pytest.fixture
def page(request: pytest.FixtureRequest, browser: Any, night: Night, tmp_path: Path) -> Visit:
    source = {
        "card": night.reports / "run_card.html",
        "index": night.folder / "out" / "reports" / "index.html",
    }[request.param]
    return Visit(browser, tmp_path, source.read_text())


@needs_chromium
@pytest.mark.parametrize("page", ["card", "index"], indirect=True)
def test_nothing_runs_and_nothing_leaves_in_a_browser(page: Visit) -> None:
    page.page.wait_for_timeout(200)  # long enough for an `onerror` to run
    assert page.quiet(), (page.requests, page.dialogs, page.complaints)
    for unwanted in ("iframe", "svg[onload]", "[onerror]", "[href^='javascript:']", "form", "link"):
        assert page.page.locator(unwanted).count() == 0
    assert page.page.title()


@needs_chromium
@pytest.mark.parametrize("page", ["card"], indirect=True)
def test_the_attacks_are_there_to_read(page: Visit) -> None:
    text = page.page.inner_text("body")
    shown = [attack for attack in hostile.ATTACKS if attack[:6] in text]
    assert len(shown) >= 3  # among the most severe; tests/browser tries every text in every field
    assert not UNDRAWN.search(text.replace("\t", " "))
    assert "****5678" in text


def test_a_log_line_escapes_its_values(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs()
    for text in hostile.ATTACKS:
        structlog.get_logger().info("score", note=text)
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["note"] for line in lines] == list(hostile.ATTACKS)
    assert not any(UNDRAWN.search(line) for line in lines)
    structlog.reset_defaults()
