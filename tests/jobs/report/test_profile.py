"""Where the time went adds up: no second is lost between stages, and none is counted twice."""

import io
import json
import time

import pytest
from rich.console import Console

from jobs.report.profile import ACTOR_STAGES, Clock, Profile, find_slowest


def spend(seconds: float) -> None:
    """Keep this thread busy."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def profile() -> Profile:
    driver = {"commit": 1.0, "start": 4.0, "wait": 14.0}
    actors = {"score": 12.0, "read": 8.0, "gather": 2.0}
    return Profile(20.0, 2, 4_000, driver, actors)


def test_the_stages_of_the_driver_add_up_to_the_wall_time() -> None:
    whole = profile().driver_whole
    assert list(whole) == ["start", "wait", "commit", "other"]
    assert (sum(whole.values()), whole["other"]) == (20.0, 1.0)


def test_threads_that_no_stage_counts_are_idle() -> None:
    whole = profile().actors_whole
    assert list(whole) == ["read", "score", "gather", "idle"]  # one that is not known comes last
    assert (sum(whole.values()), whole["idle"]) == (40.0, 18.0)
    assert Profile(1.0, 1, 10, {}, {"read": 1.5}).actors_whole["idle"] == 0.0
    assert Profile(1.0, 2, 0, {"start": 0.5}, {}).actors_whole == {}


def test_a_clock_counts_its_stages_and_no_pause() -> None:
    clock = Clock()
    with clock("plan"):
        spend(0.01)
    clock.pause()
    spend(0.2)
    held = clock.profile().seconds
    clock.resume()
    clock.resume()  # it runs already
    with clock("wait"):
        spend(0.02)
    spend(0.03)
    clock.threads, clock.rows = 2, 100
    clock.actors.update({"read": 0.03})
    clock.actors.update({"read": 0.02})
    found = clock.profile()
    assert (found.threads, found.rows, found.actors) == (2, 100, {"read": 0.05})
    assert found.driver["plan"] >= 0.01
    assert found.driver["wait"] >= 0.02
    assert found.driver_whole["other"] >= 0.03
    assert found.seconds - held >= 0.05
    assert sum(found.driver_whole.values()) == pytest.approx(found.seconds)


def test_a_pause_takes_none_of_a_clocks_seconds() -> None:
    clock, other = Clock(), Clock()
    clock.pause()
    spend(0.05)
    assert clock.elapsed <= other.elapsed - 0.05


def test_the_table_gives_seconds_shares_and_rates() -> None:
    shown = io.StringIO()
    Console(file=shown, width=100).print(profile().render_table())
    text = " ".join(shown.getvalue().replace("│", " ").split())
    assert "where the time went: 20.0 s" in text
    assert "driver 20.00 start 4.00 20.0% wait 14.00 70.0% commit 1.00 5.0% other 1.00 5.0%" in text
    assert "actors, 2 threads 40.00 read 8.00 20.0% 500 score 12.00 30.0% 333" in text
    assert "idle 18.00 45.0%" in text


def test_the_document_is_plain_json() -> None:
    document = profile().to_document()
    assert json.loads(json.dumps(document)) == document
    assert document["driver"] == {"start": 4.0, "wait": 14.0, "commit": 1.0, "other": 1.0}
    assert document["actors"]["idle"] == 18.0


def test_the_slowest_stage_has_the_largest_share() -> None:
    assert find_slowest({}) == {}
    assert find_slowest(dict.fromkeys(ACTOR_STAGES, 0.0)) == {}
    assert find_slowest({"read": 1.0, "score": 3.0}) == {"slowest": "score", "slowest_share": 0.75}
