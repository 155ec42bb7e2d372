"""Foreign files of every kind are scored, set aside or refused with one line: none is a fault."""

from pathlib import Path

import pytest

from tests.formats.__main__ import list_inputs
from tests.formats.bounded import count_rows, try_all
from tests.formats.kinds import FILES, write_all
from tests.formats.trial import Kind, Trials

# The riskiest kinds, and what becomes of each.
RISKY: dict[str, Kind] = {
    "encrypted-column": "set aside",
    "encrypted-unsigned": "set aside",
    "damaged-pages": "set aside",
    "damaged-two-magics": "set aside",
    "no-columns-but-rows": "refused",
    "no-row-groups": "refused",
    "names-long": "scored",
    "names-twice": "refused",
    "far-times": "scored",
    "int96-far": "scored",
    "unknown-zone": "scored",
    "type-decimal256-76--10": "scored",
    "pandas-index-levels": "scored",
}


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Trials:
    return Trials(tmp_path_factory.mktemp("trials"), count_rows)


@pytest.mark.parametrize("name", RISKY)
def test_a_risky_file_ends_as_expected(name: str, trials: Trials, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.parquet"
    path.write_bytes(FILES[name]())
    outcome = trials.run([path])
    assert outcome.kind == RISKY[name], outcome.line
    assert outcome.line.isprintable()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_kind_of_file_is_a_fault(tmp_path: Path) -> None:
    inputs = list_inputs(tmp_path, 2**30) if write_all(tmp_path / "files") else []
    outcomes = list(try_all(inputs, tmp_path / "trials", 300))
    assert [one for one in outcomes if one.kind == "fault"] == []
    assert sum(one.kind == "scored" for one in outcomes) > len(outcomes) / 2
