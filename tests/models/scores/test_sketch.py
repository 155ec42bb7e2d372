"""Score sketches: exact in the tail, close below it, mergeable in any way."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import ArrayLike, NDArray

from models.refusal import Refusal
from models.scores.sketch import TAIL, NonFiniteScore, ScoreSketch

Scores = NDArray[np.float32]

BOUND = float(np.float32(1e30))

some_scores = hnp.arrays(
    np.float32,
    st.integers(1, 200),
    elements=st.floats(-BOUND, BOUND, width=32) | st.sampled_from([0.0, 1.0, 2.0]),
)


def sketch_of(scores: ArrayLike) -> ScoreSketch:
    sketch = ScoreSketch()
    sketch.update(scores)
    return sketch


@pytest.fixture(scope="module")
def million() -> Scores:
    return np.random.default_rng(7).lognormal(size=1_000_000).astype(np.float32)


@pytest.fixture(scope="module")
def merged(million: Scores) -> ScoreSketch:
    """A sketch of a million scores, merged from 20 parts like the splits of a run."""
    whole = ScoreSketch()
    for part in np.array_split(million, 20):
        whole.merge(sketch_of(part))
    return whole


@given(some_scores, st.floats(0, 1))
def test_everything_is_exact_while_the_scores_fit_the_tail(scores: Scores, q: float) -> None:
    sketch = sketch_of(scores)
    assert sketch.count == scores.size
    assert (sketch.minimum, sketch.maximum) == (scores.min(), scores.max())
    assert np.array_equal(sketch.tail, np.sort(scores)[::-1])
    for value in (*scores[:5], 0.5, -2e30, 2e30):
        assert sketch.count_above(value) == (scores > value).sum()
        assert sketch.count_at_least(value) == (scores >= value).sum()
    value = sketch.quantile(q)
    assert value in scores
    assert (scores <= value).mean() >= q - 1e-6


@given(some_scores, st.floats(0, 220))
def test_a_cut_has_at_most_that_many_scores_above_and_no_smaller_score_has(
    scores: Scores, rows: float
) -> None:
    cut = sketch_of(scores).cut(rows)
    assert (scores > cut).sum() <= rows + 1e-6
    smaller = scores[scores < cut]
    assert smaller.size == 0 or (scores > smaller.max()).sum() > rows


def test_the_tail_of_a_million_scores_in_many_parts_is_exact(
    million: Scores, merged: ScoreSketch
) -> None:
    descending = np.sort(million)[::-1]
    assert merged.count == million.size
    assert np.array_equal(merged.tail, descending[:TAIL])
    assert merged.quantile(0.999) == descending[1000]
    assert merged.count_above(descending[TAIL - 1]) == (million > descending[TAIL - 1]).sum()
    assert merged.count_above(descending[1000]) == 1000


def test_below_the_tail_the_rows_above_are_within_three_percent(
    million: Scores, merged: ScoreSketch
) -> None:
    for share in (0.005, 0.01, 0.1, 0.5, 0.9):
        above = (million > merged.quantile(1 - share)).mean()
        assert above == pytest.approx(share, rel=0.03)
        assert merged.count_above(merged.quantile(1 - share)) <= share * merged.count
    assert merged.quantile(0) == million.min()


def test_the_rows_above_never_rise_with_the_value(merged: ScoreSketch) -> None:
    values = np.linspace(-1, merged.maximum + 1, 20_000)
    rows = merged.count_above(values)
    assert (np.diff(rows) <= 0).all()
    assert (rows[0], rows[-1]) == (merged.count, 0)
    assert (merged.count_at_least(values) >= rows).all()


@settings(max_examples=30)
@given(st.lists(some_scores, min_size=3, max_size=3))
def test_merging_in_any_grouping_and_order_gives_the_same_answers(parts: list[Scores]) -> None:
    left, right = sketch_of(parts[0]), sketch_of(parts[1])
    left.merge(sketch_of(parts[1]))
    left.merge(sketch_of(parts[2]))
    right.merge(sketch_of(parts[2]))
    other = ScoreSketch()
    other.merge(right)
    other.merge(ScoreSketch())
    other.merge(sketch_of(parts[0]))
    whole = np.concatenate(parts)
    for sketch in (left, other):
        assert np.array_equal(sketch.tail, np.sort(whole)[::-1])
        assert sketch.minimum == whole.min()
        assert np.array_equal(sketch.values(), np.unique(whole))


def test_merging_does_not_change_the_other_sketch() -> None:
    other = sketch_of([1, 2, 3])
    before = other.to_document()
    sketch = sketch_of(np.arange(10_000))
    sketch.merge(other)
    sketch.update([4.0])
    assert other.to_document() == before


def test_ties_over_the_end_of_the_tail_are_counted_once() -> None:
    sketch = sketch_of(np.repeat([0.0, 1.0, 2.0], [10_000, 10_000, 100]))
    # 1.0 is in the tail, so counts from it upwards are exact; those of 0.0 are estimated.
    assert sketch.count_above([-1, 1, 1.5, 2]).tolist() == [20_100, 100, 100, 0]
    assert sketch.count_at_least(2.0) == 100
    assert sketch.count_above([0, 0.5]) == pytest.approx(10_100, rel=0.03)
    assert sketch.cut(5_000) == 1.0
    assert sketch.cut(100) == 1.0
    assert sketch.cut(99) == 2.0


def test_a_sketch_comes_back_from_its_document(merged: ScoreSketch) -> None:
    for sketch in (ScoreSketch(), sketch_of([3.5]), merged):
        text = json.dumps(sketch.to_document())
        again = ScoreSketch.from_document(json.loads(text))
        assert json.dumps(again.to_document()) == text
        assert again.count == sketch.count
        assert np.array_equal(again.tail, sketch.tail)
    assert again.quantile(0.3) == merged.quantile(0.3)
    assert again.minimum == merged.minimum
    assert len(text) < 100_000


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_a_score_that_is_not_finite_is_refused_and_nothing_is_added(bad: float) -> None:
    sketch = sketch_of([1.0])
    with pytest.raises(NonFiniteScore, match=r"1 of 3 are NaN, infinite .* the first at row 1"):
        sketch.update(np.array([2.0, bad, 3.0]))
    assert (sketch.count, sketch.maximum) == (1, 1.0)


def test_read_only_and_strided_scores_are_accepted() -> None:
    scores = np.arange(20, dtype=np.float32)[::2]
    scores.flags.writeable = False
    assert sketch_of(scores).tail.tolist() == [18, 16, 14, 12, 10, 8, 6, 4, 2, 0]


def test_an_empty_sketch_refuses_every_question() -> None:
    empty = ScoreSketch()
    empty.update([])
    assert empty.count == 0
    for question in (
        lambda: empty.minimum,
        lambda: empty.quantile(0.5),
        lambda: empty.count_above(0),
    ):
        with pytest.raises(Refusal, match="at least one score; found none"):
            question()


def test_a_histogram_holds_every_score_once(million: Scores, merged: ScoreSketch) -> None:
    edges, rows = merged.histogram(50)
    assert (edges[0], edges[-1], len(rows)) == (merged.minimum, merged.maximum, 50)
    assert rows.sum() == million.size
    assert (rows >= 0).all()
    assert sketch_of([4.0, 4.0]).histogram(4)[1].sum() == 2
    assert sketch_of([0.0, 1.0, 1.5, 9.0]).histogram(np.array([0.0, 1.0, 2.0]))[1].tolist() == [
        2,
        1,
    ]


def test_a_document_that_is_not_a_sketch_is_refused() -> None:
    document = sketch_of([1.0, 2.0]).to_document()
    with pytest.raises(Refusal, match="counts, tail and body do not agree"):
        ScoreSketch.from_document({**document, "count": 3})
    swapped = sketch_of([1.0, 3.0]).to_document()["tail"]
    with pytest.raises(Refusal, match="counts, tail and body do not agree"):
        ScoreSketch.from_document({**document, "tail": swapped})
    with pytest.raises(Refusal, match="format 1; found another"):
        ScoreSketch.from_document({**document, "format": 2})
    with pytest.raises(Refusal, match="cannot be read"):
        ScoreSketch.from_document({**document, "body": "!"})
