"""Charts say what the numbers say, in places that are on the chart."""

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.report.charts import Bar, Chart, Scale, draw_charts
from jobs.terminal.printable import printable_document
from tests.jobs.report.sample_card import sample_card


def draw(**changes: Any) -> dict[str, Chart]:
    card: Any = sample_card()
    card.update(changes)
    return draw_charts(printable_document(card))


def is_inside(chart: Chart) -> bool:
    """Whether every tick, bar and dot lies on its panel."""
    bars = [(bar, panel.height) for panel in chart.panels for bar in panel.bars]
    dots = [(dot, panel.height) for panel in chart.panels for dot in panel.dots]
    down = [(tick.at, panel.height) for panel in chart.panels for tick in panel.ticks]
    return (
        all(b.left >= 0 and b.left + b.width < 100.1 and b.top >= 0 for b, _ in bars)
        and all(b.top + b.height < high + 0.1 for b, high in bars)
        and all(0 <= d.x <= 100 and 0 <= d.y <= high for d, high in dots)
        and all(0 <= at <= high for at, high in down)
        and all(0 <= tick.at <= 100 for tick in chart.ticks)
    )


def test_every_chart_has_units_a_title_and_words_for_who_does_not_see_it() -> None:
    charts = draw()
    assert set(charts) == {"scores", "over-time", "training", "stages"}
    for chart in charts.values():
        assert is_inside(chart)
        assert chart.title
        assert chart.description.endswith(".")
        assert chart.unit
        assert len(chart.ticks) > 2
    assert [p.unit for p in charts["over-time"].panels] == ["flags", "rows read"]
    assert charts["over-time"].description == (
        "144 flags from 2026-11-22 00:00 in UTC, among 1,198,815 rows."
    )


@pytest.mark.parametrize(
    "edges", [[-3.0, 0.0, 3.0], [0.0, 1.0, 500.0], [2.0, 2.0, 2.0], [-1e30, 0.0, 1e30]]
)
def test_histograms_with_edges_at_zero_or_below_are_drawn_on_a_linear_axis(edges: Any) -> None:
    counts = {"edges": edges, "counts": [5, 0], "calibration_counts": None}
    chart = draw(score_histogram=counts)["scores"]
    assert chart.unit == "score"
    assert is_inside(chart)
    assert [bar.hint.partition(": ")[2] for bar in chart.panels[0].bars] == ["5 rows", "0 rows"]


def test_a_loss_that_is_no_number_is_a_gap() -> None:
    training: Any = sample_card()["training"]
    training["epochs"][3]["train_loss"] = float("nan")
    training["epochs"][4]["validation_loss"] = float("inf")
    chart = draw(training=training)["training"]
    assert is_inside(chart)
    assert len(chart.panels[0].dots) == 2 * len(training["epochs"]) - 2
    assert [line.path.count("M") for line in chart.panels[0].lines] == [2, 2]
    for epoch in training["epochs"]:
        epoch.update(train_loss=float("nan"), validation_loss=None)
    assert "training" not in draw(training=training)


def test_the_time_is_drawn_as_two_bars_as_long_as_the_run() -> None:
    card = sample_card()
    chart = draw_charts(card)["stages"]
    lengths: dict[float, float] = {}
    for bar in chart.panels[0].bars:
        lengths[bar.top] = lengths.get(bar.top, 0.0) + bar.width
    assert list(lengths.values()) == [pytest.approx(100), pytest.approx(100)]
    assert [tick.text for tick in chart.panels[0].ticks] == ["driver", "actors"]
    assert any(bar.hint == "score: 83.20 s" for bar in chart.panels[0].bars)
    assert is_inside(chart)


def test_a_run_whose_actors_did_nothing_is_one_bar() -> None:
    profile: Any = sample_card()["profile"]
    profile["actors"] = {}
    assert len(draw(profile=profile)["stages"].panels[0].ticks) == 1
    assert "stages" not in draw(profile=None)


@pytest.mark.parametrize(
    ("first", "last", "labels"),
    [
        ("2026-11-22T00:00:00+00:00", "2026-11-22T23:00:00+00:00", ["00:00", "03:00", "06:00"]),
        ("2026-11-22T02:00:00+00:00", "2026-11-22T08:00:00+00:00", ["02:00", "03:00", "04:00"]),
        ("2026-11-01T00:00:00+00:00", "2026-11-05T00:00:00+00:00", ["Nov 1", "Nov 2", "Nov 3"]),
        ("1999-01-01T00:00:00+00:00", "2026-01-01T00:00:00+00:00", ["1999-01-01"]),
        ("0001-01-01T00:00:00+00:00", "9999-12-31T23:00:00+00:00", ["0001-01-01"]),
    ],
)
def test_times_are_labelled_at_round_hours_or_days(
    first: str, last: str, labels: list[str]
) -> None:
    start, end = (datetime.fromisoformat(one) for one in (first, last))
    count = 7
    width = (end - start) / (count - 1)
    over_time = {
        "bins": [(start + width * i).isoformat() for i in range(count)],
        "flags": [0, 1, 0, 0, 2, 0, 0],
        "rows": None,
    }
    chart = draw(flags_over_time=over_time)["over-time"]
    assert [tick.text for tick in chart.ticks][: len(labels)] == labels
    assert len(chart.ticks) < 11
    assert is_inside(chart)


def test_one_bin_of_time_is_drawn() -> None:
    over_time = {"bins": ["2026-11-22T05:00:00+00:00"], "flags": [3], "rows": [9]}
    chart = draw(flags_over_time=over_time)["over-time"]
    (bar,) = chart.panels[0].bars
    assert isinstance(bar, Bar)
    assert bar.hint == "2026-11-22 05:00: 3 flags"
    few = over_time | {"flags": [1]}
    (panel, _) = draw(flags_over_time=few)["over-time"].panels
    assert [tick.text for tick in panel.ticks] == ["0", "1", "2"]
    assert is_inside(chart)


numbers = st.floats(-1e30, 1e30, allow_subnormal=False)


@given(st.tuples(numbers, numbers).map(sorted), st.integers(3, 9), numbers)
def test_ticks_are_few_and_on_their_axis(ends: list[float], most: int, value: float) -> None:
    scale = Scale(ends[0], ends[1])
    ticks = scale.list_ticks(most)
    assert len(ticks) <= most + 1
    assert all(0 <= scale.place(tick) <= 1 for tick in ticks)
    assert 0 <= scale.place(value) <= 1


@given(st.floats(1e-30, 1e30), st.floats(101, 1e20))
def test_ticks_of_a_log_axis_are_powers_of_ten(low: float, ratio: float) -> None:
    scale = Scale(low, low * ratio, log=True)
    ticks = scale.list_ticks(5)
    assert 1 < len(ticks) <= 8
    assert all(scale.low * 0.999 <= tick <= scale.high * 1.001 for tick in ticks)
