"""The Gaussian: its covariance beside scikit-learn's, expected values, descriptions of sounds."""

from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor

from models.batch import Batch
from models.detectors.catalog import CATALOG
from models.detectors.gaussian import Gaussian
from models.layers.band_statistics import BandStatistics
from models.layers.covariance import Scatter
from models.layers.described_inputs import DescribedInputs
from models.layout import Layout, NumericInput, SignalInput
from models.refusal import Refusal

VECTOR = SignalInput("embedding", "vector", (30,))
SOUND = SignalInput("sound", "spectrogram", (1, 6, 20))


def batch(*signals: Tensor) -> Batch:
    rows = len(signals[0])
    return Batch(torch.zeros(rows, 0), torch.zeros(rows, 0, dtype=torch.int64), None, signals)


def numbers(rows: int, width: int, seed: int = 0) -> Tensor:
    """Correlated columns of different deviations, with a mean of about 3."""
    g = torch.Generator().manual_seed(seed)
    mixed = torch.randn(rows, width, generator=g) @ torch.randn(width, width, generator=g)
    return mixed * torch.linspace(0.2, 2, width) + 3


def fitted(values: Tensor, **options: float) -> Gaussian:
    layout = Layout((), (), (SignalInput("x", "vector", (values.shape[1],)),))
    detector = CATALOG.build("gaussian", layout, options)
    assert isinstance(detector, Gaussian)
    detector.fit(batch(values), seed=0)
    return detector


@pytest.mark.parametrize("rows", [20, 200])
def test_the_shrinkage_is_that_of_scikit_learn(rows: int) -> None:
    values = numbers(rows, 30)
    theirs = LedoitWolf().fit(values.double().numpy())
    ours = Scatter.from_rows(values)
    assert ours.shrinkage == pytest.approx(theirs.shrinkage_, rel=1e-6)
    np.testing.assert_allclose(ours.shrink().numpy(), theirs.covariance_, rtol=1e-6, atol=1e-8)


def test_scatters_merge_to_that_of_all_rows_wherever_they_are_cut() -> None:
    values = numbers(100, 5)
    values[60:] += 50
    whole = Scatter.from_rows(values)
    for cuts in ([0, 100], [0, 1, 2, 100], [0, 59, 61, 100]):
        parts = [Scatter.from_rows(values[a:b]) for a, b in pairwise(cuts)]
        for order in (parts, parts[::-1]):
            merged = reduce(Scatter.combine, order)
            assert merged.count == 100
            for ours, theirs in zip(
                (merged.mean, merged.squares, merged.cubes, merged.fourths),
                (whole.mean, whole.squares, whole.cubes, whole.fourths),
                strict=True,
            ):
                torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-5)


def test_the_score_is_the_squared_mahalanobis_distance_under_the_shrunk_covariance() -> None:
    learned, asked = numbers(20, 30).div(10), numbers(50, 30, seed=1).div(10)
    theirs = LedoitWolf().fit(learned.double().numpy()).mahalanobis(asked.double().numpy())
    assert fitted(learned).score(batch(asked)).numpy() == pytest.approx(theirs, rel=1e-3)


def test_a_sample_of_several_batches_fits_as_one() -> None:
    learned, asked = numbers(9000, 4), batch(numbers(50, 4, seed=1))
    theirs = LedoitWolf().fit(learned.double().numpy()).mahalanobis(asked.signals[0].numpy())
    assert fitted(learned).score(asked).numpy() == pytest.approx(theirs, rel=1e-3)


def test_columns_that_repeat_one_another_leave_the_distance_finite() -> None:
    learned = numbers(500, 3)[:, [0, 1, 2, 2]]
    apart = learned[:1].clone()
    apart[:, 3] += 1
    detector = fitted(learned, shrinkage=0.0)
    assert torch.isfinite(detector.score(batch(learned))).all()
    assert detector.score(batch(apart)) > 10 * detector.score(batch(learned)).max()


def test_a_number_is_expected_as_the_others_of_its_row_say() -> None:
    g = torch.Generator().manual_seed(0)
    first = torch.randn(2000, 1, generator=g)
    learned = torch.cat([first, 2 * first + 0.1 * torch.randn(2000, 1, generator=g)], 1)
    row = batch(torch.tensor([[2.0, -4.0]]))
    expected = fitted(learned).contributions(row).expected.signals[0][0]
    assert expected[1] == pytest.approx(4.0, abs=0.2)


def test_one_row_is_refused_and_rows_too_wide_are_unfit() -> None:
    with pytest.raises(Refusal, match="at least 2 rows"):
        fitted(numbers(1, 3))
    wide = Layout((), (), (SignalInput("x", "vector", (5000,)),))
    with pytest.raises(Refusal, match="at most 4,096 numbers a row, found 5,000"):
        CATALOG.build("gaussian", wide, {})


def test_a_band_is_described_by_its_mean_and_deviation_and_shares_go_back_to_it() -> None:
    described = BandStatistics(SOUND)
    sound = torch.zeros(1, 1, 6, 20)
    sound[:, :, 2] = 3.0
    sound[:, :, 4, ::2] = 2.0
    found = described(sound)[0]
    assert found.tolist() == pytest.approx([0, 0, 3, 0, 1, 0, 0, 0, 0, 0, 1, 0])
    spread = described.distribute(torch.arange(12.0)[None]).reshape(6, 20)
    assert spread.sum(1).tolist() == pytest.approx([6, 8, 10, 12, 14, 16])
    assert (spread == spread[:, :1]).all()


def test_a_sound_is_judged_by_its_bands_whenever_they_sound() -> None:
    g = torch.Generator().manual_seed(0)
    sounds = 0.1 * torch.randn(300, 1, 6, 20, generator=g)
    sounds[:, :, 2] += 1.5
    detector = CATALOG.build("gaussian", Layout((), (), (SOUND,)), {})
    detector.fit(batch(sounds), seed=0)
    later = sounds[:50].roll(7, 3)
    other = sounds[:50].roll(1, 2)
    usual = detector.score(batch(sounds)).max()
    assert detector.score(batch(later)).max() <= usual * (1 + 1e-4)
    assert detector.score(batch(other)).min() > usual
    map_ = detector.contributions(batch(other)).maps[0][0, 0].sum(1)
    assert set(map_.topk(2).indices.tolist()) == {2, 3}


def test_descriptions_have_unit_variance_and_the_columns_beside_are_left() -> None:
    layout = Layout((NumericInput("x", "real"),), (), (SOUND,))
    rows = Batch(numbers(400, 1), torch.zeros(400, 0, dtype=torch.int64), None)
    sounds = torch.linspace(0.1, 9, 6)[:, None] * torch.randn(400, 1, 6, 20)
    rows = rows._replace(signals=(sounds,))
    inputs = DescribedInputs(layout, BandStatistics)
    inputs.fit(rows)
    columns = inputs(rows)
    assert torch.equal(columns[:, :1], rows.numeric)
    torch.testing.assert_close(columns[:, 1:].mean(0), torch.zeros(12), rtol=0, atol=1e-4)
    found = columns[:, 1:].var(0, correction=0)
    assert found.max() < 1.001
    assert found.mean() > 0.7
