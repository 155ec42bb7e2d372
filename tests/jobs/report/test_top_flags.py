"""The flags on a run card do not depend on how they are cut into shards."""

from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest

from jobs.report.top_flags import FlagSummary
from models.columns import Roles

ROLES = Roles(id=("id",), time="at", keep=("note",), entity=("who",))


def flags(rows: int, seed: int = 3) -> pa.Table:
    rng = np.random.default_rng(seed)
    scores = rng.permutation(rows).astype(np.float32)
    return pa.table(
        {
            "id": pa.array(range(rows)),
            "at": pa.array(rng.integers(0, 10**12, rows)).cast(pa.timestamp("us")),
            "note": pa.array([f"card {i}" for i in range(rows)]),
            "who": pa.array([f"host {i}" for i in rng.integers(0, 40, rows)]),
            "score": scores,
            "severity": pa.array(scores / rows * 100, pa.float32()),
            "reasons": pa.array([[{"feature": "f", "contribution": 1.0}]] * rows),
        }
    )


def sum_up(*shards: pa.Table) -> FlagSummary:
    found = FlagSummary(ROLES)
    for one in shards:
        found.add(one)
    return found


@pytest.mark.parametrize("cut", [1, 7, 500, 1000])
def test_flags_in_shards_show_what_they_show_at_once(cut: int) -> None:
    every = flags(1000)
    parts = [every[i : i + cut] for i in range(0, 1000, cut)]
    whole, cut_up = sum_up(every), sum_up(*parts)
    assert cut_up.list_top() == whole.list_top()
    assert cut_up.list_entities() == whole.list_entities()


def test_the_most_severe_are_shown_as_the_shards_have_them() -> None:
    every = flags(1000)
    top = sum_up(every).list_top()
    assert [flag["score"] for flag in top] == list(range(999, 979, -1))
    notes = dict(zip(every["score"].to_pylist(), every["note"].to_pylist(), strict=True))
    assert [flag["kept"]["note"] for flag in top] == [notes[flag["score"]] for flag in top]
    assert top[0]["reasons"] == [{"feature": "f", "contribution": 1.0}]


def test_entities_are_counted_over_all_flags() -> None:
    every = flags(1000)
    counts: dict[str, Any] = {}
    for row in every.to_pylist():
        known = counts.setdefault(row["who"], [0, 0.0])
        known[0] += 1
        known[1] = max(known[1], row["severity"])
    expected = sorted(counts.items(), key=lambda e: (-e[1][0], -e[1][1]))[:10]
    found = sum_up(every[:300], every[300:]).list_entities()
    assert [(e["value"], [e["flags"], e["max_severity"]]) for e in found] == expected
    assert {e["column"] for e in found} == {"who"}


def test_masked_entities_are_not_counted_and_keyed_ones_are() -> None:
    who = frozenset({"who"})
    masked = FlagSummary(Roles(id=("id",), entity=("who",), sensitive=who))
    keyed = FlagSummary(Roles(id=("id",), entity=("who",), sensitive=who, keyed=who))
    for found in (masked, keyed):
        found.add(flags(20))
    assert masked.list_entities() == []
    assert keyed.list_entities() == sum_up(flags(20)).list_entities()


def test_a_line_is_its_flag_with_the_first_of_its_reasons() -> None:
    """Also where a flag has no reason, a kept value is a list, and a key is a UUID."""
    every = flags(5).drop(["reasons", "note", "who"])
    reasons = [
        [{"feature": str(n), "contribution": 1.0 / n} for n in range(1, k)] for k in range(5)
    ]
    every = every.append_column("reasons", pa.array([None, *reasons[1:]]))
    every = every.append_column("note", pa.array([[k] * k for k in range(5)]))
    keys = pa.array([bytes([k]) * 16 for k in range(5)], pa.binary(16))
    uuid = pa.field("who", keys.type, metadata={"type": "uuid"})
    found = sum_up(every.append_column(uuid, keys))
    top, lines = found.list_top(), found.list_lines()
    assert [
        {**line, "reasons": flag["reasons"], "picture": None}
        for line, flag in zip(lines, top, strict=True)
    ] == [{**flag, "reason": next(iter(flag["reasons"]), None)} for flag in top]
    order = np.argsort(-every["score"].to_numpy())
    assert [flag["reasons"] for flag in top] == [(every["reasons"][k].as_py() or []) for k in order]
    assert [flag["kept"]["note"] for flag in top] == [str([int(k)] * k) for k in order]
    assert [flag["entities"]["who"] for flag in top] == [
        str(UUID(bytes=bytes([k]) * 16)) for k in order
    ]
    assert [flag["time"] for flag in top] == [
        f"{every['at'][int(k)].as_py().isoformat()}+00:00" for k in order
    ]


def test_a_day_without_flags_shows_none() -> None:
    assert not sum_up().list_top()
    assert not sum_up().list_entities()
    assert not sum_up().list_lines()
    assert not sum_up(flags(3)[:0]).list_lines()
