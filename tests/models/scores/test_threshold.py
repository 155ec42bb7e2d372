"""Threshold policies, calibrations and thresholds as artefacts."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import ArrayLike, NDArray

from models.refusal import Refusal
from models.scores.sketch import NonFiniteScore, ScoreSketch
from models.scores.threshold import (
    POLICIES,
    Budget,
    Calibration,
    Cost,
    ExtremeValue,
    FBeta,
    Policy,
    Quantile,
    Threshold,
    choose,
    describe,
)

Scores = NDArray[np.float32]

few_values = hnp.arrays(np.float32, st.integers(1, 60), elements=st.integers(-4, 9).map(float))


def sketch_of(scores: ArrayLike) -> ScoreSketch:
    sketch = ScoreSketch()
    sketch.update(scores)
    return sketch


def labelled(normal: ArrayLike, anomalous: ArrayLike) -> Calibration:
    both = np.concatenate((np.asarray(normal), np.asarray(anomalous)))
    return Calibration(sketch_of(both), sketch_of(normal), sketch_of(anomalous))


def flagged(scores: ArrayLike, threshold: float) -> int:
    return int((np.asarray(scores, dtype=np.float32) > np.float32(threshold)).sum())


@pytest.fixture(scope="module")
def million() -> Scores:
    return np.random.default_rng(11).gamma(2.0, size=1_000_000).astype(np.float32)


@pytest.fixture(scope="module")
def calibration(million: Scores) -> Calibration:
    return Calibration(sketch_of(million), days=10, entities_per_day=25.0)


def test_a_contamination_of_one_in_a_thousand_is_exact_on_a_million_rows(
    million: Scores, calibration: Calibration
) -> None:
    assert flagged(million, choose(Quantile(0.001), calibration)) == 1000


@given(few_values, st.floats(0.001, 0.999))
def test_a_quantile_never_flags_more_than_its_share(scores: Scores, contamination: float) -> None:
    threshold = choose(Quantile(contamination), Calibration(sketch_of(scores)))
    assert flagged(scores, threshold) <= contamination * scores.size + 1e-6


def test_equal_scores_at_the_threshold_are_not_flagged() -> None:
    scores = [0.0] * 900 + [5.0] * 90 + [9.0] * 10
    calibration = Calibration(sketch_of(scores))
    assert flagged(scores, choose(Quantile(0.05), calibration)) == 10
    assert flagged(scores, choose(Quantile(0.10), calibration)) == 100
    assert flagged([3.0] * 500, choose(Quantile(0.5), Calibration(sketch_of([3.0] * 500)))) == 0


def test_a_budget_flags_that_many_rows_on_an_average_day(
    million: Scores, calibration: Calibration
) -> None:
    assert flagged(million, choose(Budget(50), calibration)) == 500
    assert flagged(million, choose(Budget(0.5), calibration)) == 5
    half = replace(calibration, days=0.5)
    assert flagged(million, choose(Budget(50), half)) == 25
    per_entity = choose(Budget(2, "day_and_entity"), calibration)
    assert flagged(million, per_entity) == 2 * 25 * 10


def test_a_budget_for_entities_needs_entities(calibration: Calibration) -> None:
    with pytest.raises(Refusal, match="found none: give a column the role 'entity'"):
        choose(Budget(2, "day_and_entity"), replace(calibration, entities_per_day=None))


def test_a_budget_above_the_number_of_rows_is_refused(calibration: Calibration) -> None:
    with pytest.raises(Refusal, match=r"found 1,000,010 flags for 1,000,000 rows in 10 days"):
        choose(Budget(100_001), calibration)
    with pytest.raises(Refusal, match=r"found 1,250,000 flags"):
        choose(Budget(5_000, "day_and_entity"), calibration)


@given(few_values, few_values, st.sampled_from([0.5, 1.0, 2.0]))
def test_f_beta_is_the_best_that_any_threshold_reaches(
    normal: Scores, anomalous: Scores, beta: float
) -> None:
    def f_beta(threshold: float) -> float:
        hits, false = flagged(anomalous, threshold), flagged(normal, threshold)
        weighted = (1 + beta**2) * hits
        return weighted / (weighted + beta**2 * (anomalous.size - hits) + false)

    chosen = choose(FBeta(beta), labelled(normal, anomalous))
    best = max(f_beta(value) for value in (-99.0, *normal, *anomalous))
    assert f_beta(chosen) == pytest.approx(best)


@given(few_values, few_values, st.integers(1, 50), st.integers(1, 50))
def test_no_threshold_costs_less_than_that_of_the_cost_policy(
    normal: Scores, anomalous: Scores, false_positive: int, false_negative: int
) -> None:
    def cost(threshold: float) -> int:
        missed = anomalous.size - flagged(anomalous, threshold)
        return false_positive * flagged(normal, threshold) + false_negative * missed

    chosen = choose(Cost(false_positive, false_negative), labelled(normal, anomalous))
    assert cost(chosen) == min(cost(value) for value in (-99.0, *normal, *anomalous))


def test_between_separate_classes_the_threshold_lies_midway() -> None:
    calibration = labelled([0.0, 1.0, 2.0], [6.0, 7.0])
    assert choose(FBeta(), calibration) == 4.0
    assert choose(Cost(1, 1), calibration) == 4.0


def test_cheap_false_alarms_lower_the_threshold() -> None:
    rng = np.random.default_rng(12)
    calibration = labelled(rng.normal(0, 1, 5_000), rng.normal(2, 1, 100))
    assert choose(Cost(1, 1_000), calibration) < choose(Cost(1, 10), calibration)
    assert choose(FBeta(3), calibration) < choose(FBeta(0.3), calibration)


@pytest.mark.parametrize("policy", [FBeta(), Cost(1, 5)])
def test_a_policy_that_uses_labels_needs_normal_and_anomalous_rows(policy: Policy) -> None:
    with pytest.raises(Refusal, match="with labels for this policy; found none: name a label"):
        choose(policy, Calibration(sketch_of([1.0])))
    with pytest.raises(Refusal, match="found 3 normal and 0 anomalous: hold back other days"):
        choose(policy, labelled([1.0, 2.0, 3.0], []))
    with pytest.raises(Refusal, match="found 0 normal and 2 anomalous"):
        choose(policy, labelled([], [1.0, 2.0]))


@pytest.mark.parametrize("probability", [1e-3, 1e-4, 1e-6])
def test_the_extreme_value_threshold_finds_a_quantile_that_no_row_reached(
    probability: float,
) -> None:
    scores = np.random.default_rng(13).exponential(size=100_000)
    threshold = choose(ExtremeValue(probability), Calibration(sketch_of(scores)))
    assert threshold == pytest.approx(-np.log(probability), rel=0.15)


def test_an_extreme_value_inside_the_known_rows_is_their_quantile(
    million: Scores, calibration: Calibration
) -> None:
    # 2% of a million rows are more than the sketch holds; a probability of 1% needs no tail.
    assert flagged(million, choose(ExtremeValue(0.01), calibration)) == pytest.approx(
        10_000, rel=0.03
    )


@pytest.mark.parametrize(
    ("scores", "found"), [(list(range(100)), 2), ([1.0] * 5_000, 0), ([0.0] * 990 + [7.0] * 10, 1)]
)
def test_an_extreme_value_needs_a_tail(scores: list[float], found: int) -> None:
    expected = rf"at least 10 different scores in the upper 0.02 of .* rows; found {found}:"
    with pytest.raises(Refusal, match=expected):
        choose(ExtremeValue(0.001), Calibration(sketch_of(scores)))


def test_a_threshold_over_float32_is_refused() -> None:
    uniform = 1 - np.random.default_rng(14).random(20_000)
    with pytest.raises(Refusal, match=r"the tail is too heavy .* raise it"):
        choose(ExtremeValue(1e-30), Calibration(sketch_of(uniform**-2.0)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Quantile(0), "contamination above 0 and below 1; found 0"),
        (lambda: Quantile(1), "contamination above 0 and below 1; found 1"),
        (lambda: Quantile(float("nan")), "contamination above 0 and below 1; found nan"),
        (lambda: Budget(-1), "flags above 0; found -1"),
        (lambda: Budget(1, "week"), "'day' or 'day_and_entity'; found 'week'"),  # type: ignore[arg-type]
        (lambda: FBeta(0), "beta above 0; found 0"),
        (lambda: Cost(0, 1), "false_positive above 0; found 0"),
        (lambda: Cost(1, 0), "false_negative above 0; found 0"),
        (lambda: ExtremeValue(0.1), "probability above 0 and below 0.02; found 0.1"),
        (lambda: ExtremeValue(0.1, 2), "tail_fraction above 0 and below 1; found 2"),
    ],
)
def test_a_policy_refuses_values_that_make_no_sense(make: type, message: str) -> None:
    with pytest.raises(Refusal, match=message):
        make()


@pytest.mark.parametrize(
    "policy", [Quantile(0.003), Budget(7), FBeta(2), Cost(1, 30), ExtremeValue(1e-5)]
)
def test_float32_holds_every_threshold_and_json_restores_it(policy: Policy) -> None:
    rng = np.random.default_rng(15)
    calibration = labelled(rng.gamma(2.0, size=20_000), rng.gamma(9.0, size=50))
    threshold = Threshold.choose(policy, calibration, "0123456789abcdef")
    assert threshold.calibration == calibration.digest
    assert Threshold.from_json(threshold.to_json()) == threshold
    name = threshold.policy["policy"]
    fields = {key: value for key, value in threshold.policy.items() if key != "policy"}
    assert POLICIES[name](**fields) == policy
    assert describe(policy) == threshold.policy
    at = np.float32(threshold.value)
    assert threshold.flags([at, np.nextafter(at, np.float32(np.inf))]).tolist() == [False, True]


def test_the_id_of_a_threshold_depends_on_its_content() -> None:
    threshold = Threshold(1.5, {"policy": "quantile"}, "b", "c")
    assert threshold.id == hashlib.sha256(threshold.to_json()).hexdigest()[:16]
    assert replace(threshold).to_json() == threshold.to_json()
    others = (
        replace(threshold, value=2.5),
        replace(threshold, bundle="x"),
        replace(threshold, calibration="x"),
        replace(threshold, policy={}),
    )
    assert len({threshold.id, *(other.id for other in others)}) == 5


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.1])
def test_a_threshold_that_float32_does_not_hold_is_refused(value: float) -> None:
    with pytest.raises(Refusal, match="that float32 holds exactly; found"):
        Threshold(value, {}, "b", "c")


def test_json_that_is_not_a_threshold_is_refused() -> None:
    threshold = Threshold(1.5, {}, "b", "c")
    document = json.loads(threshold.to_json())
    for bad, message in (
        (b"{", "it is not JSON"),
        (b"[]", "with the fields"),
        (json.dumps({**document, "more": 1}).encode(), "with the fields .* found others"),
        (json.dumps({**document, "value": "1.5"}).encode(), "has another type"),
        (json.dumps({**document, "value": float("nan")}).encode(), "float32 holds exactly"),
        (b" " * 100_000, "of at most 65,536 bytes; found 100,000"),
    ):
        with pytest.raises(Refusal, match=message):
            Threshold.from_json(bad)


def test_a_calibration_comes_back_from_its_bytes(calibration: Calibration) -> None:
    full = replace(calibration, normal=sketch_of([1.0, 2.0]), anomalous=sketch_of([]))
    for one in (calibration, full):
        again = Calibration.from_bytes(one.to_bytes())
        assert again.to_bytes() == one.to_bytes()
        assert again.digest == one.digest
        assert (again.days, again.entities_per_day) == (10, 25.0)
        assert choose(Quantile(0.01), again) == choose(Quantile(0.01), one)
    assert again.normal is not None
    assert again.normal.count == 2


def test_a_nan_in_a_calibration_fails_the_calibration() -> None:
    scores = np.ones(1_000, dtype=np.float32)
    scores[437] = np.nan
    with pytest.raises(NonFiniteScore, match=r"1 of 1,000 are NaN.* the first at row 437"):
        Calibration(sketch_of(scores))


def test_a_calibration_that_makes_no_sense_is_refused() -> None:
    one = sketch_of([1.0])
    with pytest.raises(Refusal, match="found no rows: hold back days with rows"):
        Calibration(ScoreSketch())
    for days in (0, -1.5, float("nan"), float("inf")):
        with pytest.raises(Refusal, match="more than 0 days; found"):
            Calibration(one, days=days)
    for entities in (0.0, float("nan"), float("inf")):
        with pytest.raises(Refusal, match="entities per day above 0; found"):
            Calibration(one, entities_per_day=entities)
    document = json.loads(Calibration(one).to_bytes())
    with pytest.raises(Refusal, match="are not numbers"):
        Calibration.from_bytes(json.dumps({**document, "days": "3"}).encode())
    with pytest.raises(Refusal, match=r"with the fields .* found others"):
        Calibration.from_bytes(b"{}")
