"""A step shows JSON lines every few seconds to programs, and a bar with facts to people."""

import io
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import structlog
from rich.console import Console

from jobs.terminal import console


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    yield
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


class Lines:
    """The JSON lines on stderr, which is no terminal here."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        console.configure_logs()
        self._capsys = capsys
        self._said = ""

    def so_far(self) -> list[dict[str, Any]]:
        captured = self._capsys.readouterr()
        assert captured.out == ""  # stdout is for results
        self._said += captured.err
        return [json.loads(line) for line in self._said.splitlines()]


def test_a_line_carries_every_fact_under_its_own_name(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(capsys)
    actors = {"actors": 2, "actors_planned": 3}
    with console.step("score 2026-11-22", 100, lambda: actors) as step:
        step.advance(40, flags=3, quarantined=0)
        step.advance(60, flags=7, slowest="read", slowest_share=0.41)
        actors["actors"] = 0  # they end with their work, which is no news
    (line,) = lines.so_far()
    assert line["event"] == "score 2026-11-22"
    assert (line["done"], line["of"], line["left_s"]) == (100, 100, 0)
    assert line["per_second"] > 0
    assert line["recent_per_second"] > 0
    assert (line["flags"], line["quarantined"]) == (7, 0)
    assert (line["actors"], line["actors_planned"]) == (2, 3)
    assert (line["slowest"], line["slowest_share"]) == ("read", 0.41)


def test_lines_come_without_progress(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = Lines(capsys)
    monkeypatch.setattr(console, "_LINE_EVERY_S", 0.02)
    structlog.contextvars.bind_contextvars(day="2026-11-22")
    with console.step("score", 100):
        until = time.monotonic() + 20
        while len(lines.so_far()) < 2 and time.monotonic() < until:
            time.sleep(0.01)
    found = lines.so_far()
    assert len(found) >= 3
    for line in found:
        assert (line["done"], line["left_s"], line["day"]) == (0, None, "2026-11-22")


def test_a_failed_step_prints_how_far_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(capsys)
    with suppress(ZeroDivisionError), console.step("train", 3) as step:
        step.advance(1, "loss 0.12")
        raise ZeroDivisionError
    (line,) = lines.so_far()
    assert (line["done"], line["of"], line["note"]) == (1, 3, "loss 0.12")


def test_a_terminal_shows_the_facts_under_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=120, color_system=None)
    monkeypatch.setattr(console, "err", terminal)
    with console.step("score", 2_000, lambda: {"actors": 1, "actors_planned": 2}) as step:
        step.advance(2_000, "a note", flags=1_234, slowest="read", slowest_share=0.41)
    said = shown.getvalue()
    assert "/s overall) · 1,234 flags · 1 of 2 actors · slowest: read 41% · a note" in said
    assert "quarantined" not in said  # nothing was said of it


def test_the_seconds_left_follow_the_recent_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": 0.0}
    monkeypatch.setattr("jobs.terminal.console.time.monotonic", lambda: clock["now"])
    step = console.Step("score", 100_000)
    left = [step.left_s]
    for amount, seconds in ((100, 100), (1_000, 40)):  # slow at first
        for _ in range(seconds):
            clock["now"] += 1.0
            step.advance(amount)
        left.append(step.left_s)
        assert step.recent_rate == amount
    assert left == [None, 900, 50]
    assert step.rate == pytest.approx(50_000 / 140)
    clock["now"] = 1_000.0
    assert step.recent_rate < 100  # nothing is done any more
