"""The leaderboard of a watch: which detectors and days it measures, and when it refuses."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

from cluster.lake.days import DayRange
from jobs.cli.app import app
from jobs.leaderboard import Standing, leaderboard, render_table
from jobs.spec.spec import Spec, load
from models.refusal import Refusal

DAYS = ("2026-01-01", "2026-01-02", "2026-01-03")
ANOMALIES = 20  # of 400 rows a day
SPEC = """
name: flows
input: {{uri: {folder}/lake, partition: day}}
columns:
  uid: {{role: id}}
  first: {{role: numeric}}
  second: {{role: numeric}}
  label: {{role: {label}}}
detector: {{name: knn, neighbours: 3}}
training: {{days: 2026-01-01..2026-01-02, filter: "{filter}", epochs: 2}}
threshold: {{policy: quantile, contamination: 0.01}}
output: {{uri: {folder}/out}}
"""


def day(seed: int, labels: bool = True) -> pa.Table:
    """Two columns that go together; those of the anomalies do not."""
    rng = np.random.default_rng(seed)
    first = rng.normal(size=400)
    second = first + 0.1 * rng.normal(size=400)
    second[:ANOMALIES] *= -1
    label = [1] * ANOMALIES + [0] * (400 - ANOMALIES) if labels else [None] * 400
    uid = [f"{seed}-{i}" for i in range(400)]
    label_column = pa.array(label, pa.int8())
    return pa.table({"uid": uid, "first": first, "second": second, "label": label_column})


def watch(
    folder: Path, *, label: str = "label", rows: str = "label == 0", labels: bool = True
) -> Path:
    for seed, name in enumerate(DAYS):
        (folder / "lake" / f"day={name}").mkdir(parents=True)
        labelled = labels or name != DAYS[2]
        pq.write_table(day(seed, labelled), folder / "lake" / f"day={name}" / "part-0.parquet")
    path = folder / "flows.yaml"
    path.write_text(SPEC.format(folder=folder, label=label, filter=rows))
    return path


def spec(folder: Path, **options: Any) -> Spec:
    return load(watch(folder, **options))


def by_name(document: dict[str, Any]) -> dict[str, Any]:
    return {standing["detector"]: standing for standing in document["standings"]}


def test_detectors_are_ranked_on_the_days_that_are_not_trained_on(tmp_path: Path) -> None:
    found = leaderboard(spec(tmp_path), detectors=["ecod", "knn", "autoencoder"])
    assert (found["trained_days"], found["days"]) == ([*DAYS[:2]], [DAYS[2]])
    assert (found["trained_rows"], found["rows"], found["anomalies"]) == (760, 400, ANOMALIES)
    values = [standing["auroc"]["value"] for standing in found["standings"]]
    assert values == sorted(values, reverse=True)
    # Turned around, a row is far from all others, but each of its numbers is usual.
    assert by_name(found)["knn"]["auroc"]["value"] > 0.9 > by_name(found)["ecod"]["auroc"]["value"]


def test_the_chosen_detector_has_the_options_of_the_spec(tmp_path: Path) -> None:
    found = by_name(leaderboard(spec(tmp_path), detectors=["knn", "pca"]))
    assert [found[name]["chosen"] for name in ("knn", "pca")] == [True, False]


def test_the_figure_does_not_depend_on_the_labels_of_the_training_days(tmp_path: Path) -> None:
    """Labels reach the detectors that learn from them, and no others."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = spec(tmp_path / "a", rows="first == first")
    other = spec(tmp_path / "b", rows="first == first")
    for path in sorted((tmp_path / "b" / "lake").glob("day=2026-01-0[12]/*.parquet")):
        table = pq.read_table(path, partitioning=None)
        turned = pa.array(1 - table.column("label").to_numpy(), pa.int8())
        pq.write_table(table.set_column(3, "label", turned), path)
    names = ["knn", "autoencoder"]
    first, second = (by_name(leaderboard(s, detectors=names)) for s in (one, other))
    assert [first[n]["auroc"] for n in names] == [second[n]["auroc"] for n in names]


def test_a_supervised_detector_needs_anomalies_to_learn_from(tmp_path: Path) -> None:
    found = by_name(leaderboard(spec(tmp_path), detectors=["classifier", "knn"]))
    assert found["classifier"]["auroc"] is None
    assert "training.filter" in found["classifier"]["refused"]
    assert list(found) == ["knn", "classifier"]


def test_a_supervised_detector_is_ranked_where_it_has_them(tmp_path: Path) -> None:
    found = leaderboard(spec(tmp_path, rows="first == first"), detectors=["classifier"])
    assert by_name(found)["classifier"]["auroc"]["value"] is not None


def test_rows_beyond_the_sample_are_left_out(tmp_path: Path) -> None:
    found = leaderboard(spec(tmp_path), rows=200, detectors=["knn"])
    assert 100 < found["trained_rows"] <= 210
    assert 200 <= found["rows"] <= 210


def test_without_a_label_column_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="no column with the role label"):
        leaderboard(spec(tmp_path, label="keep", rows="first == first"))


def test_days_without_a_labelled_row_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="no row of 2026-01-03 has a label"):
        leaderboard(spec(tmp_path, labels=False), detectors=["knn"])


def test_a_training_day_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="2026-01-02 cannot be measured"):
        leaderboard(spec(tmp_path), DayRange.parse("2026-01-02..2026-01-03"))


def test_the_verb_prints_a_table(tmp_path: Path) -> None:
    found = leaderboard(spec(tmp_path), detectors=["knn"])
    lacking = asdict(Standing("my_pkg.sliding", False, refused="needs series, " * 20))
    found["standings"].append(lacking)
    console = Console(record=True, width=80)
    console.print(render_table(found))
    text = console.export_text()
    assert "knn (the spec's)" in text
    assert "760 rows" in text
    assert "\nnot measured:" in text
    assert "\nmy_pkg.sliding: needs series, needs series" in text
    command = ["leaderboard", str(tmp_path / "flows.yaml"), "--detector", "knn", "--json"]
    ended = CliRunner().invoke(app, command)
    assert ended.exit_code == 0, ended.output
    assert '"detector": "knn"' in ended.stdout
