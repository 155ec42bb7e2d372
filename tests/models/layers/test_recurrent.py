"""Detectors of series, events and texts beyond the contract."""

import dataclasses
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from models.batch import Batch
from models.detectors.catalog import CATALOG
from models.detectors.detector import Detector
from models.layers.recurrent import BLOCK
from models.layout import CategoryInput, Layout, NumericInput, SignalInput, TokenInput
from models.refusal import Refusal
from models.training.loop import learn, score_rows
from models.training.options import TrainingOptions

STEPS = 16
SERIES = Layout((), (), signals=(SignalInput("load", "series", (3, STEPS), masked=True),))
EVENTS = Layout((), (), tokens=(TokenInput("events", 12, 10),))
QUICK = TrainingOptions(epochs=2, learning_rate=2e-2)  # at least a hundred steps an epoch


def batch_of(
    signals: tuple[torch.Tensor, ...] = (),
    tokens: tuple[torch.Tensor, ...] = (),
    label: torch.Tensor | None = None,
) -> Batch:
    none = torch.zeros(len((*signals, *tokens)[0]), 0)
    return Batch(none, none.long(), label, signals, tokens)


def waves(rows: int, seed: int) -> Batch:
    """Two waves in opposite phase, with little noise and without padding."""
    g = torch.Generator().manual_seed(seed)
    phase = 2 * torch.pi * torch.rand(rows, 1, 1, generator=g)
    turn = torch.arange(STEPS) * torch.pi / 4
    values = torch.sin(turn + phase + torch.tensor([[0.0], [torch.pi]]))
    values = values + 0.05 * torch.randn(rows, 2, STEPS, generator=g)
    return batch_of((torch.cat([values, torch.ones(rows, 1, STEPS)], 1),))


def sessions(rows: int, seed: int) -> Batch:
    """Events 2 to 7 in order, repeated, then padding."""
    g = torch.Generator().manual_seed(seed)
    length = torch.randint(6, 9, (rows, 1), generator=g)
    place = torch.arange(10)
    return batch_of(tokens=(torch.where(place < length, 2 + place.remainder(6), 0).long(),))


def learned(name: str, layout: Layout, rows: Batch, held_back: Batch, **options: Any) -> Detector:
    torch.manual_seed(0)
    if CATALOG[name].learns == "gradient":
        options = {"hidden": 16, **options}
    detector = CATALOG.build(name, layout, options)
    learn(detector, rows, held_back, QUICK)
    return detector


@cache
def of_waves(name: str) -> Detector:
    return learned(name, SERIES, waves(600, 1), waves(200, 2))


@cache
def of_sessions(name: str) -> Detector:
    return learned(name, EVENTS, sessions(600, 1), sessions(200, 2))


# --- series ------------------------------------------------------------------------------------


@pytest.fixture
def forecaster() -> Detector:
    return of_waves("forecaster")


def test_a_forecast_is_of_the_last_step_by_those_before(forecaster: Detector) -> None:
    rows = waves(100, 3)
    forecast = forecaster.contributions(rows).expected.signals[0]
    torch.testing.assert_close(forecast[:, :, :-1], rows.signals[0][:, :, :-1])
    error = (forecast - rows.signals[0])[:, :2, -1]
    assert (
        error.square().mean() < 0.1
    )  # 0.5 is the variance of a wave, 0.29 the error of repeating the last step


def test_a_forecasters_map_blames_the_last_step_of_the_channel_that_jumped(
    forecaster: Detector,
) -> None:
    rows = waves(100, 3)
    rows.signals[0][:, 1, -1] += 3
    found = forecaster.contributions(rows)
    (places,) = found.maps
    assert places[:, :, :-1].abs().sum() == 0
    assert (places[:, 1, -1] > places[:, 0, -1]).float().mean() > 0.95
    torch.testing.assert_close(places.sum((1, 2)), found.shares[:, 0])


def test_a_forecaster_says_nothing_of_a_jump_that_is_over(forecaster: Detector) -> None:
    """Only the last step is scored, so a jump is flagged once and not in every later window."""
    rows = waves(200, 3)
    usual = score_rows(forecaster, rows).median()
    rows.signals[0][:, 0, 2] += 3
    assert score_rows(forecaster, rows).median() < 2 * usual


@pytest.mark.thorough
def test_the_map_of_a_recurrent_autoencoder_finds_step_and_channel() -> None:
    detector = of_waves("recurrent_autoencoder")
    rows = waves(100, 3)
    rows.signals[0][:, 1, 5] += 4
    found = detector.contributions(rows)
    (places,) = found.maps
    assert (places[:, :2].flatten(1).argmax(1) == STEPS + 5).float().mean() > 0.9
    torch.testing.assert_close(places.sum((1, 2)), found.shares[:, 0])


@pytest.mark.parametrize(
    "name",
    ["forecaster", pytest.param("recurrent_autoencoder", marks=pytest.mark.thorough)],
)
def test_padded_steps_have_no_share_and_no_place(name: str) -> None:
    rows = waves(300, 1)
    rows.signals[0][:, :, :5] = 0
    detector = of_waves(name)
    found = detector.contributions(rows)
    assert found.maps[0][:, :, :5].abs().sum() == 0
    assert torch.isfinite(found.shares).all()


# --- events and texts --------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["forecaster", "recurrent_autoencoder"])
def test_the_map_of_a_session_finds_the_event_that_does_not_belong(name: str) -> None:
    detector = of_sessions(name)
    rows = sessions(50, 3)
    usual = score_rows(detector, rows)
    rows.tokens[0][:, 3] = 9
    found = detector.contributions(rows)
    assert (score_rows(detector, rows) > usual).all()
    assert (found.maps[0].argmax(1) == 3).float().mean() > 0.9
    assert (found.maps[0][rows.tokens[0] == 0] == 0).all()
    torch.testing.assert_close(found.maps[0].sum(1), found.shares[:, 0])
    assert (found.expected.tokens[0][:, 3] == 5).float().mean() > 0.9


def test_a_session_that_breaks_off_is_surprising_at_its_last_event() -> None:
    detector = of_sessions("forecaster")
    rows = sessions(50, 3)
    usual = score_rows(detector, rows)
    rows.tokens[0][:, 3:] = 0
    found = detector.contributions(rows)
    assert (score_rows(detector, rows) > usual).all()
    assert (found.maps[0].argmax(1) == 2).all()


@pytest.mark.parametrize("name", ["forecaster", "recurrent_autoencoder"])
def test_a_longer_column_of_texts_does_not_change_what_a_text_scores(name: str) -> None:
    """Blocks of padding are skipped without changing the score of a text."""
    g = torch.Generator().manual_seed(0)
    texts = torch.randint(1, 12, (20, BLOCK - 1), generator=g)
    found = []
    for length in (BLOCK, 3 * BLOCK):
        torch.manual_seed(0)
        detector = CATALOG.build(
            name, Layout((), (), tokens=(TokenInput("text", 12, length),)), {}
        ).eval()
        padded = torch.nn.functional.pad(texts, (0, length - texts.shape[1]))
        found.append(score_rows(detector, batch_of(tokens=(padded,))))
    torch.testing.assert_close(*found)


def test_an_empty_text_has_a_finite_score() -> None:
    empty = batch_of(tokens=(torch.zeros(3, 10, dtype=torch.int64),))
    for name in ("forecaster", "recurrent_autoencoder"):
        detector = CATALOG.build(name, EVENTS, {}).eval()
        assert torch.isfinite(score_rows(detector, empty)).all()
        assert torch.isfinite(detector.contributions(empty).shares).all()


@pytest.mark.thorough
def test_columns_beside_a_series_are_judged_too() -> None:
    """Each share is in the place of its feature in the layout."""
    layout = Layout(
        (NumericInput("age", "real"),),
        (CategoryInput("kind", 4),),
        (SignalInput("place", "vector", (2,)), *SERIES.signals),
        EVENTS.tokens,
    )

    def rows(count: int, seed: int) -> Batch:
        g = torch.Generator().manual_seed(seed)
        return Batch(
            0.1 * torch.randn(count, 1, generator=g),
            torch.full((count, 1), 2),
            None,
            (0.1 * torch.randn(count, 2, generator=g), *waves(count, seed).signals),
            sessions(count, seed).tokens,
        )

    detector = learned("forecaster", layout, rows(400, 1), rows(200, 2))
    usual = detector.contributions(rows(100, 3)).shares.mean(0)
    for feature in range(5):
        odd = rows(100, 3)
        [
            lambda b: b.numeric.fill_(4),
            lambda b: b.codes.fill_(3),
            lambda b: b.signals[0].fill_(4),
            lambda b: b.signals[1][:, 0, -1].fill_(4),
            lambda b: b.tokens[0][:, 2].fill_(11),
        ][feature](odd)
        found = detector.contributions(odd)
        more = found.shares.mean(0) - usual
        assert more[feature] > 1
        # The autoencoder may give shares to its other columns; sequences are scored apart.
        assert all(more[other].abs() < 1e-4 for other in (3, 4) if other != feature)
        assert [m.shape for m in found.maps] == [t.shape for t in (*odd.signals, *odd.tokens)]


# --- with labels -------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_recurrent_classifier_learns_an_order_that_counts_cannot_tell() -> None:
    """All sessions have the same events; in the anomalous ones two are swapped."""
    g = torch.Generator().manual_seed(0)
    label = (torch.rand(800, generator=g) < 0.2).float()
    events = sessions(800, 1).tokens[0]
    swapped = events.clone()
    swapped[:, [2, 4]] = events[:, [4, 2]]
    events = torch.where(label[:, None] > 0.5, swapped, events)
    rows = batch_of(tokens=(events,), label=label)
    detector = learned(
        "recurrent_classifier", EVENTS, rows.take(slice(600)), rows.take(slice(600, 700))
    )
    asked = rows.take(slice(700, 800))
    scores, odd = score_rows(detector, asked), label[700:] > 0.5
    assert scores[odd].min() > scores[~odd].max()
    found = detector.contributions(asked)
    there = asked.tokens[0] > 0
    assert found.maps[0].shape == asked.tokens[0].shape
    blamed = found.maps[0][odd].mean(0).topk(2).indices.tolist()
    assert set(blamed) & {2, 3, 4}
    assert there.any()


# --- shallow baselines -------------------------------------------------------------------------


def test_a_matrix_profile_knows_a_shape_at_any_level_and_size() -> None:
    detector = learned("matrix_profile", SERIES, waves(1000, 1), waves(10, 2))
    rows = waves(50, 3)
    usual = score_rows(detector, rows)
    moved = waves(50, 3)
    moved.signals[0][:, :2] = 3 * moved.signals[0][:, :2] + 5
    torch.testing.assert_close(score_rows(detector, moved), usual, rtol=1e-3, atol=1e-3)
    broken = waves(50, 3)
    broken.signals[0][:, 0, 8:] = broken.signals[0][:, 0, 8:].flip(1)
    assert score_rows(detector, broken).median() > 2 * usual.median()
    expected = detector.contributions(moved).expected.signals[0]
    assert (expected - moved.signals[0]).abs().mean() < 0.5


def test_a_spectral_residual_sees_a_spike_at_the_last_step_and_no_other() -> None:
    detector = CATALOG.build("spectral_residual", SERIES, {})
    rows = waves(200, 3)
    usual = score_rows(detector, rows)
    last, earlier = waves(200, 3), waves(200, 3)
    last.signals[0][:, 1, -1] += 5
    earlier.signals[0][:, 1, 4] += 5
    assert score_rows(detector, last).median() > 2 * usual.quantile(0.9)
    assert score_rows(detector, earlier).median() <= usual.quantile(0.9)
    found = detector.contributions(last)
    torch.testing.assert_close(found.maps[0].sum((1, 2)), score_rows(detector, last))
    assert (found.maps[0][:, 1, -1] > found.maps[0][:, 0, -1]).float().mean() > 0.9


def test_the_saliency_of_a_window_is_what_numpy_makes_of_the_papers_equations() -> None:
    row = waves(1, 5)
    values = row.signals[0][0, 0].double().numpy()
    m = 5
    slope = np.mean([(values[-2] - values[-2 - i]) / i for i in range(1, m + 1)])
    guess = values[-1 - m] + slope * m
    spectrum = np.fft.fft(np.append(values, [guess] * m))
    log = np.log(np.abs(spectrum) + 1e-3)
    usual = (np.roll(log, 1) + log + np.roll(log, -1)) / 3
    saliency = np.abs(np.fft.ifft(np.exp(log - usual + 1j * np.angle(spectrum))))
    wanted = max(0.0, saliency[STEPS - 1] / saliency.mean() - 1)
    found = CATALOG.build("spectral_residual", SERIES, {}).contributions(row).maps[0][0, 0, -1]
    assert float(found) == pytest.approx(wanted, rel=1e-3, abs=1e-4)


def test_a_step_is_judged_by_how_well_its_window_is_forecast() -> None:
    detector = of_waves("anomaly_likelihood")
    rows = waves(200, 3)
    usual = score_rows(detector, rows)
    calm, restless = waves(200, 3), waves(200, 3)
    restless.signals[0][:, 0, 8:-1] += torch.randn(
        200, 7, generator=torch.Generator().manual_seed(4)
    )
    for batch in (calm, restless):
        batch.signals[0][:, 0, -1] += 2
    assert score_rows(detector, calm).median() > 5 * usual.quantile(0.95)
    assert score_rows(detector, restless).median() < score_rows(detector, calm).median() / 2
    found = detector.contributions(calm)
    torch.testing.assert_close(found.maps[0].sum((1, 2)), score_rows(detector, calm))
    assert (found.maps[0][:, 0, -1] > found.maps[0][:, 1, -1]).float().mean() > 0.9
    away = found.expected.signals[0][:, :2, -1] - rows.signals[0][:, :2, -1]
    assert away.abs().mean() < 0.3


def test_an_anomaly_likelihood_is_what_the_papers_formula_makes_of_the_errors() -> None:
    detector = of_waves("anomaly_likelihood")
    series = detector.get_submodule("series.0")
    weights, usual, variance = (
        getattr(series, name)[0].double().numpy() for name in ("weights", "mean", "variance")
    )
    row = waves(1, 5)
    values = row.signals[0][0, 0].double().numpy()
    lessons = np.lib.stride_tricks.sliding_window_view(values, 9)
    errors = (lessons[:, -1] - lessons[:, :-1] @ weights[:-1] - weights[-1]) ** 2
    past, prior = errors[:-1], 10.0
    mean = (past.sum() + prior * usual) / (len(past) + prior)
    squares = ((past - mean) ** 2).sum() + prior * (variance + (usual - mean) ** 2)
    z = (errors[-1] - mean) / np.sqrt(squares / (len(past) + prior))
    wanted = -math.log(math.erfc(z / math.sqrt(2)) / 2)
    found = detector.contributions(row).maps[0][0, 0, -1]
    assert float(found) == pytest.approx(wanted, rel=1e-3)


def test_the_likelihood_of_several_errors_shares_none_with_those_before() -> None:
    detector = learned("anomaly_likelihood", SERIES, waves(600, 1), waves(200, 2), recent=3)
    one, other = waves(50, 3), waves(50, 3)
    other.signals[0][:, 0, -3] += 2  # the first of the last three errors
    assert (score_rows(detector, other) > score_rows(detector, one)).float().mean() > 0.95


def test_an_anomaly_likelihood_judges_a_window_of_one_step_by_the_training_alone() -> None:
    detector = of_waves("anomaly_likelihood")
    short = waves(20, 3)
    short.signals[0][..., : STEPS - 9] = 0  # the steps left are just enough for one prediction
    assert torch.isfinite(score_rows(detector, short)).all()
    short.signals[0][:, 0, -1] += 3
    assert score_rows(detector, short).min() > score_rows(detector, waves(200, 4)).quantile(0.95)
    short.signals[0][..., -2] = 0  # no step has enough steps before it
    assert not score_rows(detector, short).any()


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["forecaster", "recurrent_autoencoder", "recurrent_classifier", "matrix_profile"]
)
def test_a_table_without_series_or_tokens_is_refused(name: str) -> None:
    with pytest.raises(Refusal, match=f"'{name}' does not fit these columns: expected"):
        CATALOG.build(name, Layout((NumericInput("x", "real"),), ()), {})


@pytest.mark.parametrize("name", ["anomaly_likelihood", "matrix_profile", "spectral_residual"])
def test_columns_that_a_shallow_baseline_would_pass_over_are_refused(name: str) -> None:
    layout = dataclasses.replace(SERIES, numeric=(NumericInput("age", "real"),))
    with pytest.raises(Refusal, match=r"series .* alone, found 'age'"):
        CATALOG.build(name, layout, {})


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("forecaster", "hidden", 0),
        ("forecaster", "floor", 0.0),
        ("recurrent_autoencoder", "latent", 0),
        ("recurrent_classifier", "embedding", 0),
        ("matrix_profile", "level", 0.0),
        ("spectral_residual", "smoothing", 2),
        ("anomaly_likelihood", "prior", 0.0),
    ],
)
def test_an_option_out_of_range_is_refused(name: str, option: str, value: Any) -> None:
    with pytest.raises(Refusal, match=f"Config.{option}: expected"):
        CATALOG.configure(name, {option: value})


@pytest.mark.parametrize("name", ["forecaster", "recurrent_autoencoder"])
def test_what_restates_a_text_adds_nothing(name: str) -> None:
    text = TokenInput("note", 12, 8)
    words = SignalInput("note n-grams", "vector", (4,), restates="note")
    detector = CATALOG.build(name, Layout((), (), (words,), (text,)), {})
    tokens = torch.randint(1, 12, (5, 8))

    def batch(bag: float) -> Batch:
        none = torch.zeros(5, 0)
        return Batch(none, none.long(), None, (torch.full((5, 4), bag),), (tokens,))

    detector.eval()
    assert torch.equal(detector.score(batch(0.0)), detector.score(batch(9.0)))
    explained = detector.contributions(batch(9.0))
    assert not explained.shares[:, 0].any()
    torch.testing.assert_close(explained.shares.sum(1), detector.score(batch(9.0)))
    assert [tuple(one.shape) for one in explained.maps] == [(5, 4), (5, 8)]
