"""The harness: its cuts are those of the protocols, its figures are computed right, it resumes.

No test here expects a figure of a detector: `make quality` measures those.
"""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

from models.columns import Numeric
from models.detectors.catalog import CATALOG
from models.training.options import TrainingOptions
from tests.public_sets import DATA
from tests.quality import published, report, results, summary
from tests.quality.__main__ import app
from tests.quality.measure import Result, measure
from tests.quality.protocol import Trial, first_half_of_normal, random_half_of_normal
from tests.quality.registry import PROTOCOLS
from tests.quality.tables import adbench, drawn

needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"the public sets are not at {DATA}")
LABELS = np.array([0, 1, 0, 0, 1, 0], np.int8)


def rows(count: int, seed: int = 0, anomalies: int = 20) -> pa.Table:
    """Correlated numbers; of the anomalies, which come last, the second is turned around."""
    rng = np.random.default_rng(seed)
    first = rng.normal(size=count)
    second = first + 0.1 * rng.normal(size=count)
    second[count - anomalies :] *= -1
    label = (np.arange(count) >= count - anomalies).astype(np.int8)
    return pa.table({"row_id": np.arange(count), "f0": first, "f1": second, "label": label})


def set_in(folder: Path, name: str = "glass") -> Path:
    """A data folder with one made-up ADBench set."""
    (folder / "adbench").mkdir()
    pq.write_table(rows(1200), folder / "adbench" / f"{name}.parquet")
    return folder


def neighbours(trial: Trial) -> npt.NDArray[np.float64]:
    """Distances to the five nearest learned rows, scaled, by scikit-learn: [rows, 5]."""
    learned, test = (
        np.stack([c.to_numpy() for c in table.columns], 1) for table in (trial.train, trial.test)
    )
    scaler = StandardScaler().fit(learned)
    near = NearestNeighbors(n_neighbors=5).fit(scaler.transform(learned))
    found: npt.NDArray[np.float64] = near.kneighbors(scaler.transform(test))[0]
    return found


def result(name: str, detector: str, seed: int, auroc: float) -> Result:
    return Result(
        name, detector, seed, 2, 10, 20, 0, auroc, (auroc - 0.1, auroc), 0.5, None, 0.5, 1, 9
    )


def test_the_first_half_of_the_normal_rows_is_learned_in_file_order() -> None:
    assert first_half_of_normal(LABELS).tolist() == [True, False, True, False, False, False]


def test_a_random_half_holds_normal_rows_only_and_follows_the_seed() -> None:
    labels = np.tile(LABELS, 50)
    learned = random_half_of_normal(labels, seed=3)
    assert learned.sum() == 100
    assert not labels[learned].any()
    assert np.array_equal(learned, random_half_of_normal(labels, seed=3))
    assert not np.array_equal(learned, random_half_of_normal(labels, seed=4))


def test_small_sets_are_resampled_and_large_ones_cut() -> None:
    small, fitting, large = drawn(rows(500), 0), drawn(rows(1200), 0), drawn(rows(60_000), 0)
    assert (len(small), len(fitting), len(large)) == (1000, 1200, 50_000)
    assert len(set(small.column("row_id").to_pylist())) < 500
    assert len(set(large.column("row_id").to_pylist())) == 50_000
    assert fitting.equals(rows(1200))


def test_no_row_is_both_learned_and_scored_and_no_label_is_in_a_table(tmp_path: Path) -> None:
    trial = adbench(set_in(tmp_path) / "adbench" / "glass.parquet", 0)
    assert (len(trial.train), len(trial.test), int(trial.labels.sum())) == (590, 610, 20)
    assert trial.train.column_names == trial.test.column_names == ["f0", "f1"]
    learned, scored = (set(t.column("f0").to_pylist()) for t in (trial.train, trial.test))
    assert not learned & scored


def test_a_measured_figure_is_that_of_scikit_learn(tmp_path: Path) -> None:
    trial = adbench(set_in(tmp_path) / "adbench" / "glass.parquet", 0)
    found = measure(trial, "made up", "knn", 0, {"neighbours": 5, "locality": 0.0})
    distances = neighbours(trial)
    assert (found.trained, found.scored, found.features) == (590, 610, 2)
    assert found.auroc == pytest.approx(roc_auc_score(trial.labels, distances.mean(1)))
    precision = average_precision_score(trial.labels, distances.mean(1))
    assert found.auprc == pytest.approx(precision)
    assert found.auroc_interval is not None
    low, high = found.auroc_interval
    assert low < roc_auc_score(trial.labels, distances.mean(1)) < high


def test_a_detector_that_learns_by_gradient_is_measured_the_same_for_a_seed(tmp_path: Path) -> None:
    trial = adbench(set_in(tmp_path) / "adbench" / "glass.parquet", 0)
    options, training = {"widths": [8]}, TrainingOptions(epochs=1)
    first, again = (
        measure(trial, "made up", "autoencoder", 0, options, training) for _ in range(2)
    )
    assert first.auroc == again.auroc is not None


def test_rows_that_cannot_be_encoded_are_counted_and_not_judged() -> None:
    table = rows(400).drop_columns(["row_id"])
    labels = table.column("label").to_numpy()
    values = table.drop_columns(["label"])
    broken = values.to_pydict()
    broken["f0"][3] = None  # training had no null
    trial = Trial(values.slice(0, 300), pa.table(broken), labels, (Numeric("f0"), Numeric("f1")))
    found = measure(trial, "made up", "knn", 0)
    assert (found.scored, found.set_aside) == (399, 1)


def test_a_refusal_is_a_result_that_says_why(tmp_path: Path) -> None:
    trial = adbench(set_in(tmp_path) / "adbench" / "glass.parquet", 0)
    found = measure(trial, "made up", "knn", 0, {"neighbours": 0})
    assert found.auroc is None
    assert "neighbours" in str(found.refused)


def test_results_are_read_back_and_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    path, first = tmp_path / "results.jsonl", result("a", "knn", 0, 0.9)
    results.append(path, first)
    with path.open("a") as file:
        file.write('{"set": "a", "det')
    assert list(results.read(path).values()) == [first]
    second = result("a", "knn", 1, 0.8)
    results.append(path, second)
    assert list(results.read(path).values()) == [first, second]


def test_means_are_over_seeds_then_over_sets() -> None:
    found = [result("a", "knn", 0, 0.8), result("a", "knn", 1, 1.0), result("b", "knn", 0, 0.5)]
    table = summary.table(summary.frame(found))
    assert table["knn"].to_dict() == pytest.approx({"a": 0.9, "b": 0.5})
    mean = summary.mean(table["knn"])
    assert mean.value == pytest.approx(0.7)
    assert mean.sets == 2
    assert mean.low <= mean.value <= mean.high
    assert summary.interval(summary.frame(found), "a", "knn") == pytest.approx((0.8, 0.9))


def test_a_training_over_its_budget_is_a_result_without_a_figure(tmp_path: Path) -> None:
    trial = adbench(set_in(tmp_path) / "adbench" / "glass.parquet", 0)
    options, training = {"widths": [8]}, TrainingOptions(epochs=50)
    found = measure(trial, "made up", "autoencoder", 0, options, training, budget=0.0)
    assert found.auroc is None
    assert "within 0 s" in str(found.refused)


def test_f1_is_of_the_share_that_the_protocol_flags_or_else_the_best(tmp_path: Path) -> None:
    trial = adbench(set_in(tmp_path) / "adbench" / "glass.parquet", 0)
    best = measure(trial, "made up", "knn", 0).f1
    half = measure(trial._replace(flagged=0.5), "made up", "knn", 0).f1
    assert best is not None
    assert half is not None
    assert best > half == pytest.approx(2 * 20 / (305 + 20), abs=0.01)


def test_a_family_has_the_detectors_that_all_its_sets_have() -> None:
    found = [result(s, "knn", 0, 0.9) for s in ("m/a", "m/b", "other")]
    found += [result("m/a", "pca", 0, 0.8), result("other", "pca", 0, 0.8)]
    table = summary.table(summary.frame(found))
    parts = summary.by_family(table, {"m/a": "m", "m/b": "m"})
    assert {name: list(part) for name, part in parts.items()} == {
        "m": ["knn"],
        "other": ["knn", "pca"],
    }


def test_a_detector_without_all_sets_is_not_in_the_mean() -> None:
    found = [result(s, "knn", 0, 0.9) for s in "ab"] + [result("a", "pca", 0, 0.9)]
    assert list(summary.complete(summary.table(summary.frame(found)), "ab")) == ["knn"]


def test_the_heat_is_nothing_at_chance_and_full_at_one() -> None:
    assert [report.heat(value) for value in (0.2, 0.5, 1.0)] == [0, 0, 100]


def test_a_run_is_resumed_and_reported(tmp_path: Path) -> None:
    data, folder, page = set_in(tmp_path), tmp_path / "out", tmp_path / "docs" / "quality.md"
    command = ["run", "--folder", str(folder), "--set", "adbench/*", "--data", str(data)]
    command += ["--detector", "knn", "--detector", "ecod", "--seeds"]
    runner = CliRunner()
    assert runner.invoke(app, [*command, "1"]).exit_code == 0
    once = (folder / "results.jsonl").read_text()
    assert runner.invoke(app, [*command, "2"]).exit_code == 0
    lines = (folder / "results.jsonl").read_text()
    assert lines.startswith(once)
    keys = [(d["detector"], d["seed"]) for d in map(json.loads, lines.splitlines())]
    assert keys == [("knn", 0), ("ecod", 0), ("knn", 1), ("ecod", 1)]
    done = runner.invoke(app, ["report", "--folder", str(folder), "--page", str(page)])
    assert done.exit_code == 0, done.output
    assert "| adbench/glass | 2 |" in page.read_text()
    assert '<th scope="row">adbench/glass</th>' in page.with_suffix(".html").read_text()
    assert len(page.with_suffix(".csv").read_text().splitlines()) == 5


def test_protocols_have_names_of_their_own_and_detectors_that_see_no_label() -> None:
    assert all(name == protocol.name for name, protocol in PROTOCOLS.items())
    wanted = {name for protocol in PROTOCOLS.values() for name in protocol.detectors}
    assert {CATALOG[name].labels for name in wanted} == {"none"}


@needs_data
def test_the_best_published_means_are_those_of_the_paper() -> None:
    table = published.one_class()
    assert len(table) == 17
    name, value = published.best(table)
    deep, deep_value = published.best(table, deep=True)
    assert (name, deep) == ("KNN", "DTE-C")
    assert value == pytest.approx(0.8896, abs=1e-4)
    assert deep_value == pytest.approx(0.8870, abs=1e-4)


@needs_data
@pytest.mark.parametrize("name", ["letter", "cardio", "cardiotocography"])
def test_the_cut_is_that_of_the_published_figures(name: str) -> None:
    """The distance to the fifth neighbour, by scikit-learn: the published figure to two digits."""
    trial = PROTOCOLS[f"adbench/{name}"].trial(0)
    expected = published.one_class().loc[f"adbench/{name}", "KNN"]
    assert roc_auc_score(trial.labels, neighbours(trial)[:, 4]) == pytest.approx(
        expected, abs=0.005
    )


@needs_data
@pytest.mark.parametrize(
    ("name", "learned", "scored", "share"),
    [
        ("fashion_mnist/sneaker", 6_000, 10_000, 0.9),
        ("spoken_digits/4", 135, 150, 0.9),
        ("sms_spam", 3_162, 1_510, 0.102),
        ("bgl_2k", 928, 1_072, 0.133),
        ("hdfs_100k", 6_096, 1_588, 0.036),
        ("mvtec_ad_resnet18/bottle", 400, 600, 0.335),
        ("mvtec_ad_resnet18_distinct/bottle", 114, 178, 0.354),
    ],
)
def test_signals_are_cut_as_their_protocols_say(
    name: str, learned: int, scored: int, share: float
) -> None:
    trial = PROTOCOLS[name].trial(0)
    assert (len(trial.train), len(trial.test)) == (learned, scored)
    assert trial.labels.mean() == pytest.approx(share, abs=5e-4)
    assert trial.train.column_names == [column.name for column in trial.columns]


@needs_data
def test_attacks_are_learned_and_a_fifth_is_flagged_of_the_other_half_of_kdd_cup() -> None:
    trial = PROTOCOLS["kddcup99_10pct"].trial(0)
    assert len(trial.test) == 247_010
    assert len(trial.train) + (trial.labels == 0).sum() == 396_743
    assert trial.labels.mean() == pytest.approx(0.197, abs=2e-3)
    assert trial.flagged == 0.2


@needs_data
@pytest.mark.parametrize(
    ("name", "detector", "least"),
    [
        ("spoken_digits/4", "gaussian", 0.99),
        ("spoken_digits/4", "hog_knn", 0.98),
        ("mvtec_ad_resnet18_distinct/leather", "gaussian", 0.99),
    ],
)
def test_sounds_and_embeddings_are_told_apart_without_any_training(
    name: str, detector: str, least: float
) -> None:
    found = measure(PROTOCOLS[name].trial(0), name, detector, 0)
    assert found.auroc is not None
    assert found.auroc > least


@needs_data
def test_figures_stand_beside_the_families_that_they_are_of() -> None:
    names = {protocol.family for protocol in PROTOCOLS.values()}
    assert set(published.BESIDE) <= names
    assert published.beside("kddcup99_10pct", "F1") == [("DAGMM", 0.9369, True)]
    best = published.beside("mvtec_ad_resnet18", "AUROC")[0]
    assert best == ("ICL", 0.9475, True)
    assert not any(known for _, _, known in published.beside("bgl_2k", "AUROC"))
