"""The measures agree with scikit-learn, ties and weights included, and never crash on one class."""

import json
import time

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from models.refusal import Refusal
from models.scores.quality import _draw, _measure, _rank, evaluate, measure_auroc

Labelled = tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]


def sample(rows: int, share: float, seed: int, distinct: int | None = None) -> Labelled:
    """Scores and labels with overlap; `distinct` makes ties."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(rows) < share).astype(np.int8)
    scores = rng.normal(labels * 1.5, 1.0).astype(np.float32)
    if distinct:
        scores = (np.round(scores * distinct) / distinct).astype(np.float32)
    return scores, labels


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=60).filter(
        lambda r: len({label for _, label in r}) == 2
    ),
    threshold=st.floats(-4, 4),
)
def test_every_measure_agrees_with_sklearn_on_tied_scores(
    rows: list[tuple[int, bool]], threshold: float
) -> None:
    scores = np.array([s for s, _ in rows], np.float32)
    labels = np.array([y for _, y in rows], np.int8)
    flagged = scores.astype(np.float64) > threshold
    quality = evaluate(scores, labels, threshold, resamples=2)
    assert quality.auroc.value == pytest.approx(roc_auc_score(labels, scores))
    assert quality.auroc.value == measure_auroc(scores[labels == 0], scores[labels == 1])
    assert quality.auprc.value == pytest.approx(average_precision_score(labels, scores))
    assert quality.f1.value == pytest.approx(f1_score(labels, flagged, zero_division=0))
    assert quality.flagged == int(flagged.sum())


def test_a_resample_is_the_weighted_measure_of_sklearn() -> None:
    scores, labels = sample(400, 0.3, 1, distinct=4)
    threshold = 0.6
    weights = np.random.default_rng(2).poisson(1.0, len(scores))
    steps = _rank(scores, labels, threshold)
    # The step of each ranked row.
    order = np.argsort(scores)[::-1]
    step = np.repeat(np.arange(len(steps.positives)), steps.positives + steps.negatives)
    positives = np.bincount(step, weights[order] * (labels[order] == 1)).astype(np.int64)
    negatives = np.bincount(step, weights[order] * (labels[order] == 0)).astype(np.int64)
    found = _measure(positives, negatives, steps.above, ())
    flagged = scores > threshold
    assert found[0] == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights))
    assert found[1] == pytest.approx(average_precision_score(labels, scores, sample_weight=weights))
    assert found[4] == pytest.approx(f1_score(labels, flagged, sample_weight=weights))


@pytest.mark.thorough
def test_draws_of_steps_have_the_spread_of_draws_of_single_rows() -> None:
    scores, labels = sample(2_000, 0.05, 3)
    rng = np.random.default_rng(4)
    steps = _rank(scores, labels, 1.0)
    assert len(steps.positives) < 300  # most normal rows share a step
    ours = [
        _measure(_draw(rng, steps.positives), _draw(rng, steps.negatives), steps.above, ())[0]
        for _ in range(400)
    ]
    plain = [
        roc_auc_score(labels, scores, sample_weight=rng.poisson(1.0, len(scores)))
        for _ in range(400)
    ]
    assert np.mean(ours) == pytest.approx(np.mean(plain), abs=0.005)
    assert np.std(ours) == pytest.approx(np.std(plain), rel=0.2)


@pytest.mark.thorough
def test_about_95_of_100_intervals_hold_the_true_auroc() -> None:
    from scipy.stats import norm

    truth = norm.cdf(1.5 / np.sqrt(2))
    held = 0
    for seed in range(100):
        scores, labels = sample(600, 0.2, seed)
        auroc = evaluate(scores, labels, 1.0, seed=seed).auroc
        assert auroc.low is not None
        assert auroc.high is not None
        held += auroc.low <= truth <= auroc.high
    assert 88 <= held <= 100


def test_a_tie_at_place_k_counts_in_proportion() -> None:
    scores = np.array([9, 5, 5, 5, 5, 1], np.float32)
    labels = np.array([1, 1, 0, 0, 0, 0], np.int8)
    two = evaluate(scores, labels, 5.0, ks=(1, 3)).at_k
    assert two[0].precision.value == 1.0
    # Two of the four tied rows are in the top three: half an anomaly is expected among them.
    assert two[1].precision.value == pytest.approx(1.5 / 3)
    assert two[1].recall.value == pytest.approx(1.5 / 2)


def test_a_score_equal_to_the_threshold_is_not_flagged() -> None:
    scores = np.array([1, 2, 3], np.float32)
    quality = evaluate(scores, np.array([0, 1, 1], np.int8), 2.0)
    assert (quality.flagged, quality.found) == (1, 1)
    assert quality.recall.value == 0.5


@pytest.mark.parametrize(
    ("label", "reason"),
    [(0, "no row is labelled an anomaly"), (1, "every row is labelled an anomaly")],
)
def test_one_class_gives_a_reason_and_no_crash(label: int, reason: str) -> None:
    scores = np.arange(5, dtype=np.float32)
    quality = evaluate(scores, np.full(5, label, np.int8), 2.0, ["scan"] * 5, (2, 9))
    assert quality.auroc.value is None
    assert quality.auroc.reason == reason
    assert quality.precision.value == label
    assert quality.at_k[1].precision.reason == "there are only 5 rows"
    json.dumps(quality.to_document(), allow_nan=False)


def test_no_rows_and_no_flags_give_reasons() -> None:
    nothing = evaluate(np.zeros(0, np.float32), np.zeros(0, np.int8), 0.0, [], (1,))
    assert nothing.auprc.reason == "no row is labelled an anomaly"
    scores, labels = sample(50, 0.5, 0)
    quiet = evaluate(scores, labels, 1e9)
    assert quiet.precision.reason == "no score is above the threshold"
    assert quiet.recall.value == 0.0


def test_each_kind_is_measured_against_all_normal_rows() -> None:
    scores, labels = sample(500, 0.3, 5, distinct=3)
    kinds = ["" if y == 0 else ("scan" if i % 3 else None) for i, y in enumerate(labels)]
    scan, unnamed = evaluate(scores, labels, 1.0, kinds, resamples=2).kinds
    assert (scan.kind, unnamed.kind) == ("scan", "unnamed")
    assert scan.rows + unnamed.rows == int(labels.sum())
    chosen = np.array([y == 0 or k == "scan" for y, k in zip(labels, kinds, strict=True)])
    assert scan.auroc == pytest.approx(roc_auc_score(labels[chosen], scores[chosen]))
    own = scores[np.array([k == "scan" for k in kinds])]
    assert scan.recall == pytest.approx(float((own > 1.0).mean()))


def test_the_order_of_the_rows_does_not_matter() -> None:
    scores, labels = sample(300, 0.2, 6, distinct=2)
    order = np.random.default_rng(0).permutation(300)
    assert evaluate(scores, labels, 1.0, ks=(10,)) == evaluate(
        scores[order], labels[order], 1.0, ks=(10,)
    )


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([1.0, np.nan], [0, 1], "found 1 that are not"),
        ([1.0, 2.0], [0, 2], "found 2 at row 1"),
        ([1.0, 2.0], [0, 1, 1], "one score and one label per row"),
    ],
)
def test_broken_input_is_refused(scores: list[float], labels: list[int], message: str) -> None:
    with pytest.raises(Refusal, match=message):
        evaluate(np.array(scores, np.float32), np.array(labels, np.int8), 1.0)


def test_two_hundred_resamples_of_a_million_rows_take_seconds() -> None:
    scores, labels = sample(1_000_000, 0.01, 7)
    began = time.perf_counter()
    quality = evaluate(scores, labels, 3.0, ks=(1_000,))
    assert time.perf_counter() - began < 10  # measured: 0.3 s
    assert quality.auroc.low is not None
