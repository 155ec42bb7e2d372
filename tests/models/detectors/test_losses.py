"""Every loss, for every option that `tune` may take: what is right costs less."""

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.batch import Batch, join
from models.contract.layouts import GIVEN
from models.detectors.bases.few_labels import FewLabels
from models.detectors.catalog import CATALOG
from models.detectors.classifier import Classifier
from models.detectors.search_space import Between, OneOf
from models.layout import Layout, NumericInput
from tests.models.detectors.test_contract import OPTIONS

NUMBERS = Layout((NumericInput("x", "real"),), ())


def values_to_try(values: OneOf | Between) -> tuple[Any, ...]:
    return values.values if isinstance(values, OneOf) else (values.low, values.high)


def options_to_try(name: str) -> list[dict[str, Any]]:
    """As few settings of a detector as have every value of every option once."""
    tried = {option: values_to_try(values) for option, values in CATALOG[name].space().items()}
    most = max(map(len, tried.values()), default=1)
    return [{option: v[i % len(v)] for option, v in tried.items()} for i in range(most)]


CASES = [
    pytest.param(name, options, marks=[pytest.mark.thorough] if number else [])
    for name in sorted(CATALOG)
    if CATALOG[name].learns != "sample"
    for number, options in enumerate(options_to_try(name))
]


def the_layout_of(name: str) -> str:
    return next(key for key, one in GIVEN.items() if CATALOG[name].unfit(one.layout) is None)


@pytest.mark.parametrize(("name", "tried"), CASES)
def test_a_step_down_the_loss_moves_scores_to_the_side_of_their_label(
    name: str, tried: dict[str, Any]
) -> None:
    """Without labels the rows learned from cost less than far ones; with labels they part."""
    own = GIVEN[the_layout_of(name)]
    torch.manual_seed(0)
    detector = CATALOG.build(name, own.layout, OPTIONS.get(name, {}) | tried)
    normal, far = own.normal(48, 1), own.far(16, 2)
    rows = join([normal, far]) if detector.labels != "none" else normal
    if detector.learns == "both":
        detector.fit(rows, seed=0)
    detector.prepare(16, 64)
    if detector.labels == "some":
        detector.show(far)
    first = [detector.score(some).detach().mean() for some in (normal, far)]
    optimizer = torch.optim.Adam(detector.parameters(), lr=3e-3)
    detector.train()
    for _ in range(12):
        loss = detector(rows).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    detector.eval()
    last = [detector.score(some).detach().mean() for some in (normal, far)]
    if detector.labels == "none":
        assert detector.loss(normal).mean() < detector.loss(far).mean()
    else:
        assert last[1] - last[0] > first[1] - first[0]


def last_layer(detector: Classifier) -> torch.nn.Linear:
    layer = detector.layers[-1]
    assert isinstance(layer, torch.nn.Linear)
    return layer


LOGITS = st.floats(-60, 60)


@given(
    logits=st.tuples(LOGITS, LOGITS).map(sorted).filter(lambda two: two[1] - two[0] > 1e-3),
    imbalance=st.sampled_from(["positive_weight", "focal"]),
    gamma=st.one_of(st.just(0.0), st.floats(0.1, 8)),
    positive=st.integers(1, 999),
)
def test_the_loss_of_a_classifier_falls_as_the_right_class_becomes_more_probable(
    logits: list[float], imbalance: str, gamma: float, positive: int
) -> None:
    detector = CATALOG.build("classifier", NUMBERS, {"imbalance": imbalance, "gamma": gamma})
    assert isinstance(detector, Classifier)
    detector.eval().prepare(positive, 1000)
    for parameter in detector.parameters():
        torch.nn.init.zeros_(parameter)
    row = Batch(torch.zeros(1, 1), torch.zeros(1, 0, dtype=torch.int64))

    def measure(label: float, logit: float) -> tuple[float, float]:
        """The loss, and its slope by the logit."""
        bias = last_layer(detector).bias
        torch.nn.init.constant_(bias, logit)
        loss = detector.loss(row._replace(label=torch.tensor([label])))
        (slope,) = torch.autograd.grad(loss.sum(), bias)
        return float(loss.detach()), float(slope)

    low, high = logits
    of_normal, of_anomaly = partial(measure, 0.0), partial(measure, 1.0)
    assert 0 <= of_normal(low)[0] <= of_normal(high)[0]
    assert of_anomaly(low)[0] >= of_anomaly(high)[0] >= 0
    assert of_normal(high)[1] >= 0 >= of_anomaly(low)[1]
    if abs(high) < 10 and abs(low) < 10:
        assert of_normal(low)[0] < of_normal(high)[0]
        assert of_anomaly(low)[0] > of_anomaly(high)[0]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_a_focal_loss_of_a_row_beyond_doubt_is_0_and_has_a_slope(gamma: float) -> None:
    detector = CATALOG.build("classifier", NUMBERS, {"imbalance": "focal", "gamma": gamma}).eval()
    sure = Batch(
        torch.tensor([[1e3]]), torch.zeros(1, 0, dtype=torch.int64), label=torch.tensor([1.0])
    )
    assert isinstance(detector, Classifier)
    torch.nn.init.constant_(last_layer(detector).bias, 500.0)
    torch.nn.init.zeros_(last_layer(detector).weight)
    loss = detector.loss(sure).sum()
    torch.autograd.backward(loss)
    assert float(loss.detach()) == 0
    for parameter in detector.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("name", [n for n in CATALOG if issubclass(CATALOG[n], FewLabels)])
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000))
def test_a_few_labels_loss_rewards_scores_on_the_side_of_the_label(name: str, seed: int) -> None:
    own = GIVEN["table"]
    torch.manual_seed(seed)
    detector = CATALOG.build(name, own.layout, OPTIONS.get(name, {})).eval()
    assert isinstance(detector, FewLabels)
    columns = torch.randn(80, detector.inputs.width)
    score = detector.score_columns(columns).detach()
    order = score.argsort()
    anomalous = detector.losses(columns, torch.ones(80, dtype=torch.bool))[order]
    assert (anomalous.diff() <= 1e-6).all()  # a higher score costs an anomaly less
    usual = detector.losses(columns, torch.zeros(80, dtype=torch.bool))
    away = score.abs().argsort()
    assert (usual[away].diff() >= -1e-6).all()  # a score away from 0 costs a normal row more
