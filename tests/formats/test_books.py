"""The law of the books: every row of every visible file is scored, filtered or quarantined, or its
file or its day is named as refused."""

import json
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import deltalake
import pytest
import yaml
from hypothesis import HealthCheck, event, given, settings

from cluster.lake.days import day_order
from tests.formats.lakes import Lake, Part, draw_lakes
from tests.formats.trial import shorten
from tests.formats.verbs import Said, run

_LOCAL = ("--engine", "local", "--json")
_ANY = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@settings(_ANY, max_examples=12, derandomize=True)
@given(draw_lakes())
def test_every_row_is_accounted_for(tmp_path_factory: pytest.TempPathFactory, lake: Lake) -> None:
    _try(lake, tmp_path_factory.mktemp("lake"))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@settings(_ANY, max_examples=500)
@given(draw_lakes())
def test_every_row_of_five_hundred_lakes_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, lake: Lake
) -> None:
    _try(lake, tmp_path_factory.mktemp("lake"))


def _try(lake: Lake, folder: Path) -> None:
    try:
        lake.write(folder / "in")
        ended = _check_books(lake, folder)
        event(ended)
    finally:
        shutil.rmtree(folder)


def _check_books(lake: Lake, folder: Path) -> str:
    """Run the verbs; return how far they came."""
    spec = folder / "watch.yaml"
    if (said := _run("init", folder / "in", "--output", spec)).code:
        return _refused(said, lake)
    said = _run("check", spec)
    assert said.code == 0, said.err
    shorten(spec)
    _use_columns(spec, lake)
    named = said.err + (checked := _run("check", spec)).err
    if checked.code:
        return _refused(checked, lake)
    if (said := _run("train", spec, *_LOCAL)).code:
        return _refused(said, lake)
    night = _run("nightly", spec, *_LOCAL)
    late = _run("backfill", spec, "--days", _span(lake), *_LOCAL)
    documents = [json.loads(one.out) for one in (night, late) if one.out]
    assert documents, night.err + late.err
    named += night.err + late.err
    results = {result["day"]: result for document in documents for result in document["days"]}
    failed = {day: why for document in documents for day, why in document["failed"].items()}
    rejected = _list_rejected(folder / "out")
    for day in lake.days - results.keys():
        assert day in failed or day in named, f"day {day} is in no book and has no name: {named}"
    for day, result in results.items():
        assert result["status"] == "committed" or result["failed_gates"]
        _balance(day, result, lake, rejected.get(day, set()))
    for part in lake.parts:
        if part.visible and part.day is None:
            assert _is_named(part, named, rejected), f"{part.path} of no day is not named: {named}"
    return f"{len(results)} of {len(lake.days)} days committed"


def _balance(day: str, result: dict[str, Any], lake: Lake, rejected: set[str]) -> None:
    """Compare the books of a day with what was written."""
    booked = result["scored"] + result["quarantined"] + result["filtered"]
    assert booked == result["rows"], result
    there = [part for part in lake.parts if part.visible and part.day == day]
    read = sum(part.rows or 0 for part in there if part.shown not in rejected)
    # A file that is named may be one whose footer was read: then its rows are quarantined.
    named = [part.rows or 0 for part in there if part.shown in rejected]
    possible = {sum(some) for n in range(len(named) + 1) for some in combinations(named, n)}
    assert booked - read in possible, (day, booked, read, named, result)


def _list_rejected(out: Path) -> dict[str, set[str]]:
    """Files of the quarantine, by day."""
    found: dict[str, set[str]] = {}
    if (out / "quarantine").exists():
        table = deltalake.DeltaTable(out / "quarantine").to_pyarrow_table()
        for row in table.select(["day", "file", "row"]).to_pylist():
            if row["row"] is None:
                found.setdefault(row["day"], set()).add(row["file"])
    return found


def _is_named(part: Part, named: str, rejected: dict[str, set[str]]) -> bool:
    """Whether the file, or the folder that holds it, is in the quarantine or in a message."""
    if any(part.shown in files for files in rejected.values()):
        return True
    return part.path.split("/")[0] in named


def _use_columns(spec: Path, lake: Lake) -> None:
    """Give the drawn roles to columns, where the spec stays one that fits the data."""
    text = spec.read_text("utf-8")
    for name, role in lake.roles.items():
        document = yaml.safe_load(text)
        columns = document["columns"]
        taken = [r for one in columns.values() for r in [one["role"]] if isinstance(r, str)]
        if name in columns or (role == "time" and "time" in str(taken)):
            continue
        columns[name] = {"role": role}
        text = _keep_if_it_fits(spec, document, text)
    if lake.filter:
        document = yaml.safe_load(text)
        document["input"]["filter"] = lake.filter
        text = _keep_if_it_fits(spec, document, text)
    spec.write_text(text, "utf-8")


def _keep_if_it_fits(spec: Path, document: dict[str, Any], text: str) -> str:
    more = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    spec.write_text(more, "utf-8")
    return more if _run("check", spec).code == 0 else text


def _span(lake: Lake) -> str:
    days = sorted(lake.days, key=day_order)
    return days[0] if days[0] == days[-1] else f"{days[0]}..{days[-1]}"


def _run(verb: str, *arguments: Any) -> Said:
    said = run(verb, *arguments)
    assert said.fault is None, f"{verb}: {said.fault}: {said.err}"
    return said


def _refused(said: Said, lake: Lake) -> str:
    """The input is named as refused, in few lines."""
    assert said.code == 2, said.err
    assert 1 <= len(said.err.strip().splitlines()) <= 60, said.err
    return f"refused by {said.verb}"
