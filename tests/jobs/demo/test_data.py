"""The demo's data: the same seed writes the same bytes, and a detector finds the incidents."""

import hashlib
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from jobs.check import check
from jobs.demo import data
from jobs.spec.spec import load
from models.refusal import Refusal

ROOT = Path(__file__).parents[3]
KINDS = {
    "flows": {"port scan", "beaconing", "exfiltration"},
    "cards": {"stolen card", "compromised terminal"},
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> data.Summary:
    return data.write(tmp_path_factory.mktemp("demo"), scale=0.2)


def table(summary: data.Summary, source: str, days: Sequence[str] | None = None) -> pa.Table:
    found = ds.dataset(summary.folder / source, partitioning="hive").to_table()
    if days is None:
        return found
    return found.filter(pc.is_in(found["day"].cast("string"), value_set=pc.cast(days, "string")))


def digests(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        data.write(tmp_path / name, days=2, seed=seed, scale=0.02)
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert len(a) == 2 * 2 * 2 + 1
    assert a == b
    assert all(a[name] != c[name] for name in a)


def test_a_day_does_not_depend_on_how_many_follow(tmp_path: Path) -> None:
    for name, days in (("short", 3), ("long", 4)):
        data.write(tmp_path / name, days=days, scale=0.02)
    short, long = digests(tmp_path / "short"), digests(tmp_path / "long")
    early = [name for name in short if "day=2026-01-01" in name or "day=2026-01-02" in name]
    assert len(early) == 8
    assert all(short[name] == long[name] for name in early)


@pytest.mark.parametrize("source", ["flows", "cards"])
def test_a_day_is_two_files_of_two_row_groups_in_the_order_of_time(
    written: data.Summary, source: str
) -> None:
    for day in written.days:
        files = sorted((written.folder / source / f"day={day}").iterdir())
        assert [file.name for file in files] == ["part-0.parquet", "part-1.parquet"]
        assert [pq.ParquetFile(file).num_row_groups for file in files] == [2, 2]
        ts = pq.read_table(files, columns=["ts"], partitioning=None)["ts"].to_numpy()
        assert (np.diff(ts) >= np.timedelta64(0)).all()
        assert {str(t)[:10] for t in (ts[0], ts[-1])} == {day}


@pytest.mark.parametrize("source", ["flows", "cards"])
def test_incidents_are_rare_and_labelled_and_the_last_day_has_every_kind(
    written: data.Summary, source: str
) -> None:
    rows = table(written, source)
    label, incident = rows["label"].to_numpy(), rows["incident"].to_pylist()
    assert [value is not None for value in incident] == (label == 1).tolist()
    assert 0.0005 < label.mean() < 0.01
    last = table(written, source, written.days[-1:])
    assert set(last["incident"].drop_null().to_pylist()) == KINDS[source]
    assert 0.002 < last["label"].to_numpy().mean() < 0.01
    assert {name for name, count in written.incidents[source].items() if count} == KINDS[source]
    assert written.rows[source] == len(rows)


@pytest.mark.parametrize(("source", "key"), [("flows", "uid"), ("cards", "transaction_id")])
def test_ids_are_unique_over_all_days(written: data.Summary, source: str, key: str) -> None:
    rows = table(written, source)
    assert len(rows[key].unique()) == len(rows)


def test_flows_have_the_rhythm_tails_and_nulls_of_an_office(written: data.Summary) -> None:
    rows = table(written, "flows")
    hours = np.bincount(pc.hour(rows["ts"]).to_numpy(), minlength=24)
    assert hours[10] > 3 * hours[3]
    weekday = pc.day_of_week(rows["ts"]).to_numpy()
    days = np.bincount(weekday, minlength=7)
    assert days[2] > 1.5 * days[6]
    sent = rows["orig_bytes"].drop_null().to_numpy()
    assert np.quantile(sent, 0.99) > 50 * np.median(sent)
    assert rows["service"].null_count > 0
    failed = pc.is_in(rows["conn_state"], value_set=pc.cast(["S0", "REJ"], "string"))
    assert rows["duration"].is_null().equals(failed)
    talkers = np.sort(rows["src_ip"].value_counts().field("counts").to_numpy())[::-1]
    assert talkers[:20].sum() > 0.3 * len(rows)


@pytest.mark.parametrize("source", ["flows", "cards"])
def test_a_plain_pca_finds_most_incidents_and_not_all(written: data.Summary, source: str) -> None:
    """The demo is neither hopeless nor a foregone conclusion."""
    spec = load(ROOT / "specs" / f"demo_{source}.yaml")
    rows = table(written, source)
    last = rows["day"].cast("string").to_numpy(zero_copy_only=False) == written.days[-1]
    columns = []
    for name, column in spec.columns.items():
        if "numeric" in column.role:
            columns.append(np.log1p(rows[name].cast("float64").fill_null(0).to_numpy())[:, None])
        if "categorical" in column.role:
            texts = rows[name].fill_null("").to_numpy(zero_copy_only=False)
            columns.append((texts[:, None] == np.unique(texts)[None, :]).astype(float))
    inputs = np.hstack(columns)
    mean, spread = inputs[~last].mean(0), inputs[~last].std(0).clip(0.05)
    inputs = ((inputs - mean) / spread).clip(-10, 10)
    pca = PCA(0.8).fit(inputs[~last])
    day = inputs[last]
    error = ((day - pca.inverse_transform(pca.transform(day))) ** 2).sum(1)
    auroc = roc_auc_score(rows["label"].to_numpy()[last], error)
    assert 0.85 < auroc < 0.998


@pytest.mark.parametrize("source", ["flows", "cards"])
def test_the_demo_spec_fits_the_demo_data(written: data.Summary, source: str) -> None:
    spec = load(ROOT / "specs" / f"demo_{source}.yaml")
    folder = written.folder / source / f"day={written.days[-1]}"
    report = check(spec, pq.read_schema(folder / "part-0.parquet"), training=True)
    assert (report.errors, report.warnings) == ((), ())
    wanted = spec.training.day_range
    assert wanted is not None
    assert wanted.choose(written.days) == written.days[:-1]


def test_scale_multiplies_the_rows_and_progress_counts_the_files(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    monday = date(2026, 3, 2)
    kwargs: dict[str, Any] = {"days": 1, "first_day": monday}
    kwargs["progress"] = lambda done, total: seen.append((done, total))
    small = data.write(tmp_path / "small", scale=0.02, **kwargs)
    large = data.write(tmp_path / "large", scale=0.08, **kwargs)
    assert small.days == ("2026-03-02",)
    for source in KINDS:
        assert 3.5 < large.rows[source] / small.rows[source] < 4.5
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)] * 2
    json.dumps(large.to_document())


def test_a_second_demo_replaces_the_first_and_leaves_other_data_alone(
    tmp_path: Path,
) -> None:
    data.write(tmp_path / "demo", days=3, scale=0.01)
    data.write(tmp_path / "demo", days=2, scale=0.01)
    assert len(list((tmp_path / "demo" / "flows").iterdir())) == 2
    mine = tmp_path / "other" / "flows"
    mine.mkdir(parents=True)
    (mine / "mine.parquet").write_bytes(b"mine")
    with pytest.raises(Refusal, match=r"expected a new folder or an earlier demo, found .*flows"):
        data.write(tmp_path / "other", days=1, scale=0.01)
    assert (mine / "mine.parquet").read_bytes() == b"mine"


@pytest.mark.parametrize("wrong", [{"days": 0}, {"scale": 0}, {"scale": float("nan")}])
def test_impossible_sizes_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(Refusal, match="expected days >= 1 and 0 < scale"):
        data.write(tmp_path / "demo", **wrong)
    assert not (tmp_path / "demo").exists()
