"""NAB's scoring, by hand."""

import numpy as np
import pytest

from tests.quality.nab import Scored, nab_score, windowed_gaussian

INSIDE = np.zeros(100, bool)
INSIDE[40:50] = True
COUNTED = np.arange(100) >= 15


def said(*places: int) -> Scored:
    scores = np.zeros(100)
    scores[list(places)] = 1
    return Scored(scores, INSIDE, COUNTED)


def sigmoid(x: float) -> float:
    return 2 / (1 + float(np.exp(5 * x))) - 1


def test_silence_scores_nothing_and_the_start_of_each_window_everything() -> None:
    assert nab_score([said()]) == 0.0
    assert nab_score([said(40)]) == pytest.approx(100)


def test_a_later_detection_is_worth_less_and_a_second_one_nothing() -> None:
    worth = 1 + sigmoid(-0.5) / sigmoid(-1)  # a miss avoided, and half way into the window
    assert nab_score([said(45)]) == pytest.approx(100 * worth / 2)
    assert nab_score([said(45, 47, 49)]) == pytest.approx(100 * worth / 2)


def test_a_false_alarm_costs_the_less_the_sooner_after_a_window() -> None:
    before = nab_score([said(30, 40)])
    assert before == pytest.approx(100 - 100 * 0.11 / 2)
    soon = nab_score([said(40, 50)])  # one point past the right edge of a window of ten
    assert soon == pytest.approx(100 + 100 * 0.11 * sigmoid(1 / 9) / 2)


def test_what_is_said_in_the_probationary_part_does_not_count() -> None:
    assert nab_score([said(3, 40)]) == pytest.approx(100)


def test_one_threshold_serves_the_whole_corpus() -> None:
    """The second series is only found at a threshold that floods the first."""
    loud = Scored(np.full(100, 0.5) + said(40).scores, INSIDE, COUNTED)
    faint = Scored(0.25 * said(40).scores, INSIDE, COUNTED)
    apart = nab_score([loud]) + nab_score([faint])
    assert apart == pytest.approx(200)
    assert nab_score([loud, faint]) == pytest.approx(50)


def test_the_windowed_gaussian_looks_back_only() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=300)
    values[200] = 9
    scores = windowed_gaussian(values)
    assert 20 + scores[20:].argmax() == 200  # of the first points there is hardly a deviation
    changed = values.copy()
    changed[201:] = 50
    np.testing.assert_array_equal(windowed_gaussian(changed)[:201], scores[:201])
