"""Histories and windows in a spec: what they make, and what is refused with its line."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.lake.derived.history import History
from cluster.lake.derived.windows import Window
from jobs import check
from jobs.spec.detector import check_detector
from jobs.spec.spec import Spec, SpecRefused, load
from models.columns import Numeric, Sequence

GOOD = """\
name: cards
input: {uri: data/cards, partition: day, filter: "amount > 0"}
columns:
  ts:       {role: time}
  customer: {role: entity}
  terminal: {role: entity}
  amount:   {role: numeric}
  label:    {role: label}
history:
  - {entity: customer, horizons: [1d, 12h], of: amount, distinct: terminal}
  - {entity: terminal, horizons: [7d], delay: 7d, labels: true}
window: {entity: customer, length: 8, horizon: 2d}
detector: {name: classifier}
training: {baselines: []}
threshold: {policy: quantile, contamination: 0.01}
output: {uri: out/cards}
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Spec]:
    monkeypatch.chdir(tmp_path)

    def loaded(old: str = "", new: str = "") -> Spec:
        assert old in GOOD
        Path("cards.yaml").write_text(GOOD.replace(old, new, 1) if old else GOOD)
        return load(Path("cards.yaml"))

    return loaded


def test_a_history_and_a_window_are_derived_and_become_features(spec: Callable[..., Spec]) -> None:
    made = spec()
    derivation = made.derivation
    assert derivation is not None
    assert derivation.history == (
        History("customer", ("1d", "12h"), of="amount", distinct="terminal"),
        History("terminal", ("7d",), delay="7d", labels=True),
    )
    assert derivation.window == Window("customer", 8, ("amount",), "2d")
    assert (derivation.history_days, derivation.window_days) == (14, 2)
    assert derivation.filter == "amount > 0"
    names = [feature.name for feature in made.features]
    assert names[0] == "amount"
    assert set(derivation.names) <= set(names)
    assert Sequence("window", length=8) in made.features
    assert Numeric("customer_amount_mean_12h", log1p=True) in made.features
    assert Numeric("terminal_anomaly_rate_7d_after_7d") in made.features
    check_detector(made)


def test_a_window_needs_no_entity(spec: Callable[..., Spec]) -> None:
    derivation = spec("{entity: customer, length: 8", "{length: 8").derivation
    assert derivation is not None
    assert derivation.window == Window(None, 8, ("amount",), "2d")


def test_a_window_alone_is_a_feature_without_its_channels(spec: Callable[..., Spec]) -> None:
    beside = spec()
    made = spec("horizon: 2d", "horizon: 2d, alone: true")
    assert made.derivation == beside.derivation
    left_out = {f.name for f in beside.features} - {f.name for f in made.features}
    assert left_out == {"amount", "window_is_short"}
    assert made.training_digest != beside.training_digest
    assert made.scoring_digest == beside.scoring_digest


def test_a_spec_without_history_and_window_derives_nothing(spec: Callable[..., Spec]) -> None:
    made = spec()
    assert made.model_copy(update={"history": (), "window": None}).derivation is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[7d], delay: 7d", "[7d]", "11: history.1.delay: labels arrive late; expected a delay"),
        ("[7d]", "[7x]", "11: history.1.horizons.0: expected minutes, hours or days"),
        ("of: amount", "of: ammount", "10: history.0.of: expected a column with the role numeric"),
        ("of: amount", "of: label", "10: history.0.of: expected a column with the role numeric"),
        (
            "distinct: terminal",
            "distinct: label",
            "10: history.0.distinct: expected a column",
        ),
        ("entity: terminal", "entity: amount", "11: history.1.entity: expected a column with the"),
        ("labels: true", "label: true", "11: history.1.label: expected one of entity, horizons"),
        (
            "{role: label}",
            "{role: keep}",
            "11: history.1.labels: expected a column with the",
        ),
        ("{role: time}", "{role: keep}", "9: history: expected a column with the role time"),
        ("length: 8", "length: 1", "12: window.length: expected 2 or more, found 1"),
        ("customer, length", "ts, length", "12: window.entity: expected a column with the role"),
        ("  label: ", "  window: {role: keep}\n  label: ", "8: columns.window: window adds a col"),
    ],
)
def test_a_problem_is_named_with_its_line(
    spec: Callable[..., Spec], old: str, new: str, message: str
) -> None:
    with pytest.raises(SpecRefused) as caught:
        spec(old, new)
    assert f"cards.yaml:{message}" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "advice"),
    [
        ("name: classifier", "name: autoencoder", "choose a detector that learns from labels"),
        ("baselines: []", "baselines: [pca]", "take it out of training.baselines"),
    ],
)
def test_labels_reach_no_detector_that_learns_without_them(
    spec: Callable[..., Spec], old: str, new: str, advice: str
) -> None:
    with pytest.raises(SpecRefused, match=r"history\.1\.labels: .* learns without labels") as told:
        check_detector(spec(old, new))
    assert advice in str(told.value)


def test_earlier_labels_are_a_feature_if_the_spec_allows_it(spec: Callable[..., Spec]) -> None:
    made = spec("baselines: []", "baselines: [pca], earlier_labels: true")
    check_detector(made)
    assert Numeric("terminal_anomaly_rate_7d_after_7d") in made.features


def test_check_names_the_days_that_are_not_dates(
    spec: Callable[..., Spec],
) -> None:
    spec()
    schema = pa.schema(
        {
            "ts": pa.timestamp("us", "UTC"),
            "customer": pa.string(),
            "terminal": pa.string(),
            "amount": pa.float64(),
            "label": pa.int8(),
        }
    )
    for day in ("2026-01-01", "monday"):
        folder = Path(f"data/cards/day={day}")
        folder.mkdir(parents=True)
        pq.write_table(schema.empty_table(), folder / "part-0.parquet")
    report = check.run("cards.yaml")
    assert report.ok
    (named,) = (one for one in report.warnings if "monday" in one)
    assert named.startswith(
        "cards.yaml:2: of no day, and never read: day=monday (1 files): no date: expected dates"
    )
