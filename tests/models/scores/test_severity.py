"""Severity: 0 to 100, never lower for a higher score, the same scale for every detector."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import ArrayLike, NDArray

from models.refusal import Refusal
from models.scores.severity import Severity
from models.scores.sketch import NonFiniteScore, ScoreSketch
from models.scores.threshold import Calibration

Scores = NDArray[np.float32]

BOUND = float(np.float32(3e38))

# Scores of any shape: ties, constants, huge and tiny spreads, a few rows or enough for a tail.
any_scores = st.one_of(
    hnp.arrays(np.float32, st.integers(1, 400), elements=st.floats(-BOUND, BOUND, width=32)),
    hnp.arrays(np.float32, st.integers(1, 400), elements=st.sampled_from([0.0, 1.0, 5.0])),
    st.tuples(st.integers(0, 9), st.floats(-1, 3), st.integers(20, 9_000)).map(
        lambda t: pareto(seed=t[0], shape=t[1], rows=t[2])
    ),
)


def pareto(seed: int, shape: float, rows: int) -> Scores:
    uniform = 1 - np.random.default_rng(seed).random(rows)
    return ((uniform**-shape - 1) / shape if shape else -np.log(uniform)).astype(np.float32)


def severity_of(scores: ArrayLike) -> Severity:
    sketch = ScoreSketch()
    sketch.update(scores)
    return Severity.from_calibration(Calibration(sketch))


@given(any_scores, hnp.arrays(np.float32, 50, elements=st.floats(-BOUND, BOUND, width=32)))
def test_a_higher_score_never_has_a_lower_severity(scores: Scores, others: Scores) -> None:
    severity = severity_of(scores)
    joints = np.array([*severity.knots[-3:], *(law.start for law in severity.tail)], np.float32)
    edges = [np.nextafter(joints, np.float32(side)) for side in (-np.inf, np.inf)]
    spread = np.linspace(-2.0, 3.0, 300) * (1.0 + float(np.abs(scores).max()))
    everything = np.sort(np.concatenate((scores, others, joints, *edges, spread)))
    severities = severity(everything)
    assert severities.dtype == np.float32
    assert np.isfinite(severities).all()
    assert ((severities >= 0) & (severities <= 100)).all()
    assert (np.diff(severities) >= 0).all()


@pytest.mark.parametrize("shape", [-0.5, 0.0, 0.3, 1.0])
def test_severity_says_how_rare_a_score_is(shape: float) -> None:
    scores = pareto(seed=3, shape=shape, rows=200_000)
    shares = np.array([0.5, 0.1, 0.01, 0.001])
    found = severity_of(scores)(np.quantile(scores, 1 - shares))
    assert found == pytest.approx(100 * (1 - shares**0.2), abs=1)


def test_a_tie_at_the_start_of_the_tail_is_as_rare_as_the_whole_tie() -> None:
    scores = [0.0] * 800 + [1.0] * 180 + np.linspace(2, 9, 20).tolist()
    found = severity_of(scores)([1.0, 2.0])
    assert found == pytest.approx(100 * (1 - np.array([0.2, 0.02]) ** 0.2), abs=1e-3)


def test_the_tail_extrapolates_beyond_the_calibration() -> None:
    severity = severity_of(pareto(seed=4, shape=0.2, rows=50_000))
    share = 1e-7
    assert severity([(share**-0.2 - 1) / 0.2])[0] == pytest.approx(100 * (1 - share**0.2), abs=2)


def test_severity_does_not_depend_on_the_unit_of_the_scores() -> None:
    scores = np.random.default_rng(5).gamma(2.0, size=4_000).astype(np.float32)
    probes = np.array([0.1, 1, 3, 8, 12, 20, 50], dtype=np.float32)
    # 4,000 scores are exact in the sketch, and a power of two is in float32.
    assert severity_of(scores * 1024)(probes * 1024) == pytest.approx(severity_of(scores)(probes))


def test_severity_has_no_step_where_two_laws_meet() -> None:
    for shape in (-0.6, 0.0, 0.8):
        severity = severity_of(pareto(seed=6, shape=shape, rows=20_000))
        for law in severity.tail:
            width = law.scale * 1e-6
            below, above = severity([law.start - width, law.start + width])
            assert above - below < 0.01


def test_scores_beyond_the_end_of_a_tail_still_rank() -> None:
    severity = severity_of(np.random.default_rng(7).random(20_000))
    assert severity.tail[0].shape < 0
    beyond = severity([1.0, 1.0002, 1.0005, 1.001])
    assert (np.diff(beyond) > 0).all()
    assert beyond[-1] < 100


def test_severity_is_0_below_the_calibration_and_100_far_above() -> None:
    severity = severity_of(np.random.default_rng(8).normal(size=10_000))
    assert severity([-np.inf, -3e38, -10.0]).tolist() == [0, 0, 0]
    assert severity([3e38, np.inf]).tolist() == [100, 100]


@pytest.mark.parametrize("scores", [[2.0], [2.0, 2.0, 2.0], [0.0], [1.0] * 5_000 + [9.0] * 5_000])
def test_a_calibration_without_a_tail_still_ranks(scores: list[float]) -> None:
    severity = severity_of(scores)
    top = max(scores)
    found = severity([min(scores) - 1, top, top + 1, top + 10])
    assert found[0] == 0
    assert found[1] < found[2] < found[3]


def test_nan_is_refused() -> None:
    with pytest.raises(NonFiniteScore, match="1 of 2 are NaN"):
        severity_of([1.0, 2.0])([0.0, np.nan])


def test_a_mapping_that_does_not_rise_is_refused() -> None:
    severity = severity_of([1.0, 2.0, 3.0])
    with pytest.raises(Refusal, match="rising scores and falling shares"):
        replace(severity, knots=severity.knots[::-1])
    with pytest.raises(Refusal, match="a scale above 0"):
        replace(severity.tail[0], scale=-1.0)
