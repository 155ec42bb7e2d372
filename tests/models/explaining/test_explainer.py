"""Reasons: each kind of feature, observed and expected, in the unit of the input."""

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.batch import Contributions
from models.columns import Boolean, Categorical, FeatureColumn, IPAddress, Numeric, Port, Timestamp
from models.encoding.bins import find_run
from models.encoding.encoder import Encoder
from models.encoding.raw_batch import join
from models.explaining.explainer import Explainer
from models.explaining.numbers import format_numbers
from models.explaining.reasons import REASONS
from tests.models.flows import batch_of, fit, flows

NIGHT = datetime(2026, 11, 22, 3, 12)  # a Sunday
NOON = datetime(2026, 11, 23, 14)


def explain(
    encoder: Encoder,
    observed: pa.Table,
    expected: pa.Table,
    shares: dict[str, float] | None = None,
    top: int = 100,
    sensitive: frozenset[str] = frozenset(),
) -> list[dict[str, Any]]:
    """The reasons of the first row, when the detector expected the row `expected`."""
    extracted = encoder.extract(batch_of(observed))
    other = encoder.extract(batch_of(expected))
    names = encoder.layout.features
    row = torch.tensor([(shares or {}).get(name, 0.0 if shares else 1.0) for name in names])
    contributions = Contributions(row.repeat(len(observed), 1), encoder(other))
    evidence = contributions.to_evidence(encoder(extracted))
    reasons = Explainer(encoder).explain(extracted, evidence, top, sensitive)
    assert reasons.type == REASONS
    assert len(reasons) == len(observed)
    first: list[dict[str, Any]] = reasons.to_pylist()[0]
    return first


def other_flows(rows: int) -> pa.Table:
    """Flows of which every column differs from those of `flows`."""
    same = flows(rows)
    changed = {
        "duration": pc.add(same["duration"], 50.0),
        "bytes": pc.multiply(same["bytes"], 3.0),
        "packets": pc.add(same["packets"], 7),
        "proto": pc.if_else(pc.equal(same["proto"], "tcp"), "udp", "tcp"),
        "service": pa.array([None] * rows, pa.string()),
        "established": pc.invert(same["established"]),
        "src": pa.array(["8.8.8.8"] * rows),
        "dst": pa.array(["8.8.8.9"] * rows),
        "dst_port": pc.if_else(pc.equal(same["dst_port"], 80), 53, 80),
        "ts": pc.add(same["ts"], pa.scalar(timedelta(days=2, hours=7))),
    }
    return pa.table({name: changed[name] for name in same.column_names})


def seen_and_expected(
    column: FeatureColumn, training: Any, observed: Any, expected: Any
) -> dict[str, tuple[str, str]]:
    name, data_type = column.name, pa.array(training).type
    encoder = fit(pa.table({name: pa.array(training, data_type)}), (column,))
    tables = [pa.table({name: pa.array([value], data_type)}) for value in (observed, expected)]
    return {
        reason["feature"]: (reason["observed"], reason["expected"])
        for reason in explain(encoder, *tables)
    }


@pytest.mark.parametrize("log1p", [False, True])
@pytest.mark.parametrize("scale", ["standard", "robust", "quantile"])
def test_a_number_is_shown_in_the_unit_of_the_input(scale: Any, log1p: bool) -> None:
    training = np.random.default_rng(0).lognormal(6, 3, 2000)
    training[0] = 1e7
    column = Numeric("bytes", scale=scale, log1p=log1p, clip=None)
    assert seen_and_expected(column, training, 1_200_000.0, 400.0) == {
        "bytes": ("1,200,000", "400")
    }


def test_a_number_far_from_zero_is_shown_whole() -> None:
    training = [101_325.0 + step / 1000 for step in range(100)]
    encoder = fit(pa.table({"pressure": training}), (Numeric("pressure"),))
    assert encoder.ranges["pressure"].offset != 0
    found = seen_and_expected(Numeric("pressure"), training, 101_500.0, 101_325.0)
    assert found["pressure"] == ("101,500", "101,300")


def test_an_expected_number_stays_in_the_range_of_training() -> None:
    training = [0.0, 10.0, 20.0]
    assert seen_and_expected(Numeric("bytes"), training, 5.0, -3.0)["bytes"] == ("5", "0")


def test_a_null_is_shown_as_the_value_of_its_column() -> None:
    training = [1.0, None, 3.0]
    assert seen_and_expected(Numeric("x"), training, None, 3.0) == {"x": ("null", "3")}
    assert seen_and_expected(Numeric("x"), training, 3.0, None) == {"x": ("3", "null")}
    assert seen_and_expected(Numeric("x"), training, None, None) == {}


def test_categories_show_their_text_null_and_other() -> None:
    training = ["tcp", "udp", None]
    proto = Categorical("proto")
    assert seen_and_expected(proto, training, "udp", "tcp") == {"proto": ("udp", "tcp")}
    assert seen_and_expected(proto, training, None, "tcp") == {"proto": ("null", "tcp")}
    other = ("gre, in none of 3 training rows", "null")
    assert seen_and_expected(proto, training, "gre", None) == {"proto": other}


def test_flags_show_yes_and_no() -> None:
    assert seen_and_expected(Boolean("sent"), [True, False], True, False) == {"sent": ("yes", "no")}
    found = seen_and_expected(IPAddress("src"), ["10.0.0.1", None], "8.8.8.8", "10.0.0.1")
    assert found["src is private"] == ("no", "yes")
    absent = seen_and_expected(IPAddress("src"), ["10.0.0.1", None], None, "10.0.0.1")
    assert absent == {"src is private": ("null", "yes")}


def test_a_port_is_one_reason_with_its_number() -> None:
    found = seen_and_expected(Port("port"), [443, 443, 50_000], 50_000, 443)
    assert found == {"port": ("50000", "443")}


def test_a_value_without_a_code_is_shown_with_how_training_knows_it() -> None:
    unseen = seen_and_expected(Port("port"), [443, 443, 50_000], 6667, 443)
    assert unseen == {"port": ("6667, in none of 3 training rows", "443")}
    rare = seen_and_expected(Port("port", top=1), [443, 443, 50_000], 50_000, 443)
    assert rare == {"port": ("50000, not among the 1 most frequent of training", "443")}
    long = seen_and_expected(Categorical("name"), ["a", "x" * 300], "x" * 300, "a")["name"]
    assert long == ("x" * 256 + "…, not among the 1 most frequent of training", "a")


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=20), st.data())
def test_each_row_shows_its_own_value_however_rows_were_taken_and_joined(
    names: list[str], data: st.DataObject
) -> None:
    encoder = fit(pa.table({"name": ["a", "b"]}), (Categorical("name"),))
    whole = encoder.extract(batch_of(pa.table({"name": names})))
    places = st.integers(0, len(names) - 1)
    parts = data.draw(st.lists(st.lists(places, max_size=8), min_size=1, max_size=4))
    taken = join([whole.take(np.array(part, np.int64)) for part in parts])
    start = data.draw(places)
    kept = [names[place] for part in parts for place in part][start:]
    cut = taken.take(slice(start, None))
    expected = encoder(cut)._replace(codes=torch.ones(len(kept), 1, dtype=torch.int64))
    evidence = Contributions(torch.ones(len(kept), 1), expected).to_evidence(expected)
    told = Explainer(encoder).explain(cut, evidence, 3)
    shown = [reasons[0]["observed"].split(",")[0] for reasons in told.to_pylist()]
    assert shown == kept


def test_what_is_usual_stands_beside_what_was_expected() -> None:
    rows = {"bytes": [10.0, 20.0, 30.0, 40.0, 5000.0], "proto": ["tcp"] * 4 + ["udp"]}
    for log1p in (False, True):
        encoder = fit(pa.table(rows), (Numeric("bytes", log1p=log1p), Categorical("proto")))
        observed = pa.table({"bytes": [7.0], "proto": ["gre"]})
        found = explain(encoder, observed, pa.table({"bytes": [33.0], "proto": ["tcp"]}))
        assert {reason["feature"]: reason["usual"] for reason in found} == {
            "bytes": "median 30, 10 to 5,000",
            "proto": "most often tcp (0.8 of 5 rows)",
        }
        hidden = explain(encoder, observed, observed, sensitive=frozenset({"bytes"}))
        assert [reason["usual"] for reason in hidden if reason["feature"] == "bytes"] == [None]


def usual_of(column: FeatureColumn, values: list[Any]) -> dict[str, str | None]:
    """What is usual of each feature of a column `x` with these values in training."""
    explainer = Explainer(fit(pa.table({"x": values}), (column,)))
    return {
        feature.name: usual
        for feature, usual in zip(explainer.features, explainer.usual, strict=True)
    }


def test_what_is_usual_of_flags_hours_and_weekdays_is_told_in_plain_words() -> None:
    flags = [True] * 3 + [False] * 7 + [None]
    assert usual_of(Boolean("x"), flags) == {"x": "most often no (0.7 of 10 rows)"}
    private = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "8.8.8.8"]
    assert usual_of(IPAddress("x"), private)["x is private"] == "most often yes (0.75 of 4 rows)"
    monday = datetime(2026, 11, 23)
    office = [monday + timedelta(days=d, hours=h) for d in range(5) for h in range(9, 18)]
    assert usual_of(Timestamp("x"), [*office, NIGHT]) == {
        "hour of x": "09:00 to 18:00 (0.98 of 46 rows)",
        "weekday of x": "Monday to Friday (0.98 of 46 rows)",
    }
    nights = [monday + timedelta(hours=h) for h in (22, 23, 24, 25)]
    assert usual_of(Timestamp("x"), nights)["hour of x"] == "22:00 to 02:00 (1 of 4 rows)"
    always = [monday + timedelta(hours=7 * n) for n in range(168)]
    assert usual_of(Timestamp("x"), always) == {
        "hour of x": "at all hours",
        "weekday of x": "on all days",
    }
    dates = [monday.date()] * 3
    assert usual_of(Timestamp("x"), dates) == {"weekday of x": "Monday (1 of 3 rows)"}


@given(st.lists(st.integers(0, 50), min_size=2, max_size=24), st.floats(0.05, 1))
def test_the_usual_run_of_bins_is_the_shortest_that_holds_the_share(
    counts: list[int], share: float
) -> None:
    first, bins, rows = find_run(counts, share)
    size, total = len(counts), sum(counts)

    def hold(start: int, length: int) -> int:
        return sum(counts[(start + n) % size] for n in range(length))

    assert hold(first, bins) == rows
    assert rows >= share * total or rows == total
    assert all(hold(start, bins - 1) < share * total for start in range(size)) or bins == 1


def test_a_time_is_one_reason_by_the_part_that_differs() -> None:
    assert seen_and_expected(Timestamp("ts"), [NIGHT, NOON], NIGHT, NOON) == {
        "hour of ts": ("03:12", "14:00"),
    }
    later = NIGHT.replace(day=24)
    assert seen_and_expected(Timestamp("ts"), [NIGHT, NOON], NIGHT, later) == {
        "weekday of ts": ("Sunday", "Tuesday"),
    }
    dates = [NIGHT.date(), NOON.date()]
    assert seen_and_expected(Timestamp("day"), dates, dates[0], dates[1]) == {
        "weekday of day": ("Sunday", "Monday")
    }


@pytest.mark.parametrize("minutes", range(0, 1440, 97))
def test_every_time_of_day_is_shown_as_it_was_encoded(minutes: int) -> None:
    time = datetime(2026, 11, 24, minutes // 60, minutes % 60)
    other = time.replace(minute=(time.minute + 1) % 60)
    found = seen_and_expected(Timestamp("ts"), [NIGHT], time, other)
    assert found == {"hour of ts": (f"{time:%H:%M}", f"{other:%H:%M}")}
    assert seen_and_expected(Timestamp("ts"), [NIGHT], time, time) == {}


def test_an_expected_time_without_a_direction_is_any_hour() -> None:
    encoder = fit(pa.table({"ts": [NIGHT, NOON]}), (Timestamp("ts"),))
    extracted = encoder.extract(batch_of(pa.table({"ts": [NIGHT]})))
    encoded = encoder(extracted)
    nowhere = encoded._replace(numeric=torch.full((1, 4), 0.01))
    evidence = Contributions(torch.ones(1, 4), nowhere).to_evidence(encoded)
    reasons = Explainer(encoder).explain(extracted, evidence, 2)
    assert [reason["expected"] for reason in reasons.to_pylist()[0]] == ["any hour"]


def test_sine_and_cosine_are_one_reason_with_the_sum_of_their_shares() -> None:
    shares = {"hour of ts (sin)": 0.25, "hour of ts (cos)": 0.5, "bytes": 0.6, "proto": 0.1}
    found = explain(fit(flows()), flows(3), other_flows(3), shares, top=2)
    assert [(reason["feature"], reason["contribution"]) for reason in found] == [
        ("hour of ts", 0.75),
        ("bytes", pytest.approx(0.6)),
    ]


def test_features_without_a_share_are_left_out_but_one_reason_remains() -> None:
    encoder = fit(flows())
    found = explain(encoder, flows(3), other_flows(3), {"bytes": 1.0, "proto": -2.0})
    assert [reason["feature"] for reason in found] == ["bytes"]
    none = dict.fromkeys(encoder.layout.features, -1.0)
    assert len(explain(encoder, flows(3), other_flows(3), none)) == 1


@pytest.mark.parametrize("top", [0, 1, 2, 5, 100])
def test_a_row_as_expected_has_no_reason_and_no_column_has_two(top: int) -> None:
    encoder = fit(flows())
    assert explain(encoder, flows(3), flows(3), top=top) == []
    found = explain(encoder, flows(3), other_flows(3), top=top)
    columns = [
        next(f.column for f in Explainer(encoder).features if f.name == reason["feature"])
        for reason in found
    ]
    assert len(columns) == len(set(columns)) <= top
    assert all(reason["observed"] != reason["expected"] for reason in found)


def test_sensitive_columns_show_no_value_in_any_of_their_features() -> None:
    encoder = fit(flows())
    shares = dict.fromkeys(encoder.layout.features, 1.0) | {"src in the network of dst": 9.0}
    sensitive = frozenset({"dst", "ts", "proto"})
    found = explain(encoder, flows(1), other_flows(1), shares, sensitive=sensitive)
    hidden = {reason["feature"] for reason in found if reason["observed"] == "[sensitive]"}
    assert {"src in the network of dst", "hour of ts", "proto"} <= hidden
    assert {reason["feature"] for reason in found if reason["expected"] == "[sensitive]"} == hidden


def test_no_rows_have_no_reasons() -> None:
    encoder = fit(flows())
    extracted = encoder.extract(batch_of(flows(0)))
    encoded = encoder(extracted)
    empty = Contributions(torch.zeros(0, len(encoder.layout.features)), encoded)
    assert (
        Explainer(encoder)
        .explain(extracted, empty.to_evidence(encoded), 3)
        .equals(pa.array([], REASONS))
    )


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (80.0, "80"),
        (1234.567, "1,235"),
        (1.2e6, "1,200,000"),
        (9999.7, "10,000"),
        (-12.3456, "-12.35"),
        (0.00123456, "0.001235"),
        (1.5e-9, "1.5e-09"),
        (1.23456e18, "1.235e+18"),
        (100.0, "100"),
    ],
)
def test_a_number_is_readable(number: float, text: str) -> None:
    assert format_numbers(np.array([number]))[0] == text


@given(st.floats(min_value=1e-5, max_value=20_000), st.booleans())
def test_common_numbers_are_formatted_like_all_others(number: float, negative: bool) -> None:
    number = -number if negative else number
    rounded = float(f"{number:.3e}")
    shown = format_numbers(np.array([number]))[0]
    assert float(shown.replace(",", "")) == rounded
    assert ("," in shown) == (abs(rounded) >= 1000)
