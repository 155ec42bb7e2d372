"""How training days are cut: what is held back speaks for all of a day, however its rows lie."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from cluster.lake.days import DayRange
from cluster.lake.input.splits import SPLIT_BYTES, SPLIT_ROWS, split_limits
from jobs.spec.spec import load
from jobs.training.plan import TrainingPlan, choose_days, plan_training
from models.refusal import Refusal

ROWS = 20_000


def planned(folder: Path, days: int, rows: int = ROWS, row_group: int = ROWS // 4) -> TrainingPlan:
    for day in range(1, days + 1):
        target = folder / "logs" / f"day=2026-11-{day:02}"
        target.mkdir(parents=True)
        table = pa.table({"place": np.arange(rows, dtype=np.float64)})
        pq.write_table(table, target / "part-0.parquet", row_group_size=row_group)
    document = {
        "name": "logs",
        "input": {"uri": str(folder / "logs"), "partition": "day"},
        "columns": {"place": {"role": "numeric"}},
        "detector": {"name": "pca"},
        "training": {"days": f"2026-11-01..2026-11-{days:02}"},
        "threshold": {"policy": "quantile", "contamination": 0.01},
        "output": {"uri": str(folder / "out")},
    }
    path = folder / "logs.yaml"
    path.write_text(yaml.safe_dump(document))
    return plan_training(load(path))


@pytest.mark.parametrize("days", [1, 2])
def test_what_is_held_back_of_a_day_lies_in_all_parts_of_it(tmp_path: Path, days: int) -> None:
    plan = planned(tmp_path, days)
    assert not plan.holds_back_days
    assert {day for day, _ in plan.held_back} == set(plan.days)
    places = np.concatenate(
        [np.arange(s.first_row, s.first_row + s.rows) for _, s in plan.held_back]
    )
    assert np.unique(places * 10 // ROWS).tolist() == list(range(10))
    assert len(places) == pytest.approx(ROWS * days / 10, rel=0.1)
    assert plan.rows + len(places) == ROWS * days
    assert plan.held_back_days == pytest.approx(days / 10, rel=0.1)


def test_the_newest_of_several_days_are_held_back_whole(tmp_path: Path) -> None:
    plan = planned(tmp_path, days=3)
    assert plan.holds_back_days
    assert {day for day, _ in plan.held_back} == {"2026-11-03"}
    assert plan.held_back_days == 1


def test_a_few_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"5 rows are too few .* expected 20 at least"):
        planned(tmp_path, days=1, rows=5)


def test_a_bad_name_stops_no_training_and_a_bad_file_does(tmp_path: Path) -> None:
    planned(tmp_path, days=3)
    day = tmp_path / "logs" / "day=2026-11-02"
    (day / "a\\b.parquet").write_bytes((day / "part-0.parquet").read_bytes())
    plan = plan_training(load(tmp_path / "logs.yaml"))
    assert [file.rule for taken in plan.snapshots for file in taken.misnamed] == ["bad_name"]
    assert plan.rows == 2 * ROWS
    (day / "cut.parquet").write_bytes(b"PAR1")
    with pytest.raises(Refusal, match=r"cut.parquet of training day 2026-11-02 cannot be used"):
        plan_training(load(tmp_path / "logs.yaml"))


def test_splits_grow_with_a_day_of_more_than_a_million_of_them() -> None:
    assert split_limits(10**9, 10**11) == (SPLIT_ROWS, SPLIT_BYTES)
    assert split_limits(10**6 * SPLIT_ROWS, 10**6 * SPLIT_BYTES) == (SPLIT_ROWS, SPLIT_BYTES)
    rows, size = 9 * 10**12, 3 * 10**15  # a petabyte as Parquet
    most_rows, most_bytes = split_limits(rows, size)
    assert rows / most_rows <= 10**6
    assert size / most_bytes <= 10**6
    assert most_bytes < 4 * 1024**3


def put_days(folder: Path, rows: dict[int, int | None]) -> None:
    """Days of November with so many rows: None for a folder without files."""
    for day, count in rows.items():
        target = folder / "logs" / f"day=2026-11-{day:02}"
        target.mkdir(parents=True)
        if count is not None:
            pq.write_table(pa.table({"place": np.arange(count) / 7}), target / "a.parquet")


@pytest.mark.parametrize(
    ("rows", "chosen"),
    [
        ({1: 9, 2: 9, 3: 9}, [1, 2]),
        ({1: 9, 2: 9, 3: None}, [1]),
        ({1: 9, 2: 9, 3: 0, 4: None}, [1]),
        ({1: None, 2: 0, 3: 9, 4: 0}, [3]),
        ({1: 9, 2: None}, [1]),
    ],
)
def test_all_days_before_the_newest_with_rows_are_learned_from(
    tmp_path: Path, rows: dict[int, int | None], chosen: list[int]
) -> None:
    put_days(tmp_path, rows)
    planned(tmp_path / "other", days=1)
    spec = load(tmp_path / "other" / "logs.yaml")
    training = spec.training.model_copy(update={"days": None, "uri": None})
    source = spec.input.model_copy(update={"uri": str(tmp_path / "logs")})
    spec = spec.model_copy(update={"input": source, "training": training})
    assert choose_days(spec, None) == tuple(f"2026-11-{day:02}" for day in chosen)


def test_days_without_rows_are_not_held_back(tmp_path: Path) -> None:
    planned(tmp_path, days=4)
    put_days(tmp_path, {5: 0, 6: None})
    spec = load(tmp_path / "logs.yaml")
    plan = plan_training(spec, DayRange.parse("20261101..20261106"))
    assert {day for day, _ in plan.held_back} == {"2026-11-04"}
    assert len(plan.days) == 6  # a night does not score them later
    few = plan_training(spec, DayRange.parse("2026-11-03..2026-11-06"))
    assert {day for day, _ in few.held_back} == {"2026-11-03", "2026-11-04"}
