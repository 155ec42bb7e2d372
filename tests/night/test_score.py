"""Scoring a day: equal to the oracle, committed once, balanced, refused by gates."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from cluster.lake.days import DayRange
from cluster.lake.input.partitions import Source
from cluster.lake.input.snapshot import take_snapshot
from cluster.lake.input.splits import plan_tasks
from cluster.lake.output.schemas import QUARANTINE, REGISTRY, SCORES
from cluster.lake.registry.registry import Registry
from cluster.lake.storage.opening import open_store
from cluster.splits.engine import Pool
from jobs import flags
from jobs.alerting.webhook import ALLOWED
from jobs.monitoring.live import LiveMetrics
from jobs.monitoring.metric_names import Metric
from jobs.nightly import backfill, nightly
from jobs.plan import plan
from jobs.report.profile import Clock
from jobs.score import score
from jobs.scoring.books import RunBooks
from jobs.spec.sections import Alert
from jobs.spec.spec import Spec, load
from jobs.threshold import change_threshold
from models.bundle import open_bundle
from models.refusal import Refusal
from models.scores.threshold import Threshold
from tests.night.conftest import DAYS, cut_into_files, watch_at
from tests.night.oracle import flagged_ids
from tests.receiver import receiving

DAY = DAYS[5]


def day_folder(spec: Spec, day: str = DAY) -> Path:
    return Path(spec.input.uri) / f"day={day}"


def oracle(spec: Spec, day: str = DAY) -> dict[str, float]:
    registry = Registry(open_store(spec.output.uri).child(REGISTRY))
    entry = registry.require_champion()
    threshold = Threshold.from_json(registry.read_threshold(entry.threshold)).value
    bundle = open_bundle(registry.read_bundle(entry.bundle))
    return flagged_ids(bundle, threshold, day_folder(spec, day), "uid")


def committed(spec: Spec, day: str = DAY) -> dict[str, float]:
    frame = flags.read(f"{spec.output.uri}/flags", day)
    assert frame["uid"].is_unique
    return dict(zip(frame["uid"], frame["score"], strict=True))


def rows_of(spec: Spec, name: str) -> pa.Table:
    """Committed rows of a side table, by Delta's own reader."""
    table = DeltaTable(f"{spec.output.uri}/{name}")
    found: pa.Table = table.to_pyarrow_dataset().to_table()
    return found


def spoil(spec: Spec, column: str, rows: list[int], values: list[object]) -> Path:
    """Overwrite cells of the first file of the day."""
    path = sorted(day_folder(spec).glob("*.parquet"))[0]
    table = pq.read_table(path, partitioning=None)
    cells = table.column(column).to_pylist()
    for row, value in zip(rows, values, strict=True):
        cells[row] = value
    place = table.column_names.index(column)
    kind = table.schema.field(column).type
    pq.write_table(table.set_column(place, column, pa.array(cells, kind)), path)
    return path


def test_the_committed_flags_are_those_of_the_oracle(watch: Spec) -> None:
    result = score(watch, DAY)
    expected, found = oracle(watch), committed(watch)
    assert result.status == "committed"
    assert found.keys() == expected.keys()
    assert len(found) == result.counts.flagged > 0
    np.testing.assert_allclose(
        [found[k] for k in expected], list(expected.values()), rtol=1e-4, atol=1e-5
    )
    assert result.counts.unaccounted == 0


def test_a_flag_explains_itself(watch: Spec) -> None:
    score(watch, DAY)
    frame = flags.read(f"{watch.output.uri}/flags", DAY)
    top = frame.sort_values("score").iloc[-1]
    assert 0 <= top["severity"] <= 100
    assert (frame["score"] > frame["threshold"]).all()
    assert frame["anomaly_id"].is_unique
    shares = [reason["contribution"] for reason in top["reasons"]]
    assert shares == sorted(shares, reverse=True)
    assert all(reason["observed"] and reason["expected"] for reason in top["reasons"])


def test_a_day_scored_twice_is_committed_once(watch: Spec) -> None:
    first = score(watch, DAY)
    again = score(watch, DAY)
    assert not first.already
    assert again.already
    assert again.run_id == first.run_id
    assert again.counts.flagged == first.counts.flagged == len(committed(watch))


def test_a_changed_day_replaces_its_flags_and_leaves_other_days_alone(watch: Spec) -> None:
    score(watch, DAYS[4])
    score(watch, DAY)
    before, other = committed(watch), committed(watch, DAYS[4])
    sorted(day_folder(watch).glob("*.parquet"))[0].unlink()
    result = score(watch.model_copy(update={"gates": _wide(watch)}), DAY)
    assert result.status == "committed"
    assert committed(watch).keys() == oracle(watch).keys()
    assert len(committed(watch)) < len(before)
    assert committed(watch, DAYS[4]) == other


def _wide(spec: Spec) -> object:
    return spec.gates.model_copy(update={"volume": None, "quarantine_rate": 1.0})


def test_rows_that_cannot_be_scored_are_quarantined_by_name(watch: Spec) -> None:
    path = spoil(watch, "duration", [3, 5], [float("nan"), float("inf")])
    spoil(watch, "uid", [7], [None])
    first = pq.read_table(path, partitioning=None).column("uid")[0].as_py()
    spoil(watch, "uid", [11], [first])
    result = score(watch.model_copy(update={"gates": _wide(watch)}), DAY)
    rows = rows_of(watch, QUARANTINE).to_pylist()
    found = {(row["row"], row["column"], row["rule"]) for row in rows}
    assert result.counts.quarantined == 4
    assert found == {
        (3, "duration", "not_finite"),
        (5, "duration", "not_finite"),
        (7, "uid", "null_key"),
        (11, "uid", "duplicate_id"),
    }


def test_too_many_bad_rows_stop_the_commit_and_leave_the_table(watch: Spec) -> None:
    score(watch, DAY)
    before = committed(watch)
    spoil(watch, "duration", list(range(100)), [float("nan")] * 100)
    result = score(watch, DAY)
    assert result.status == "refused"
    assert "'duration', rule not_finite" in result.failed_gates[0]
    assert committed(watch) == before


def test_an_unreadable_file_stops_the_commit_by_name(watch: Spec) -> None:
    path = sorted(day_folder(watch).glob("*.parquet"))[0]
    path.write_bytes(path.read_bytes()[:1000])
    result = score(watch, DAY)
    assert result.status == "refused"
    assert any(path.name in gate for gate in result.failed_gates)


def test_a_flipped_bit_in_a_page_is_seen(watch: Spec) -> None:
    path = sorted(day_folder(watch).glob("*.parquet"))[0]
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 0x10
    path.write_bytes(data)
    result = score(watch, DAY)
    assert result.status == "refused"
    assert result.counts.quarantined > 0
    assert any(path.name in gate for gate in result.failed_gates)


def test_many_small_files_are_scored_together_and_a_bad_one_alone_is_set_aside(watch: Spec) -> None:
    expected = oracle(watch).keys()
    paths = cut_into_files(day_folder(watch), 300)
    assert len(plan_tasks(take_snapshot(Source(watch.input.uri, "day"), DAY))) < 100
    result = score(watch, DAY)
    assert result.status == "committed"
    assert committed(watch).keys() == oracle(watch).keys() == expected
    column = pq.ParquetFile(paths[7]).metadata.row_group(0).column(0)
    data = bytearray(paths[7].read_bytes())
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 0x10
    paths[7].write_bytes(data)
    lost = pq.read_metadata(paths[7]).num_rows
    again = score(watch, DAY)
    assert again.status == "refused"
    assert (again.counts.quarantined, again.counts.scored) == (lost, result.counts.scored - lost)
    assert [paths[7].name in gate for gate in again.failed_gates] == [True]


class LastMetrics(LiveMetrics):
    """Metrics that keep the last values while a day was scored."""

    @contextmanager
    def follow_scoring(self, books: RunBooks, pool: Pool, clock: Clock) -> Iterator[None]:
        with super().follow_scoring(books, pool, clock):
            yield
            self.last = {sample.metric: sample.value for sample in self.collect()}


def test_splits_and_tasks_of_many_small_files_are_counted_alike_everywhere(watch: Spec) -> None:
    files = cut_into_files(day_folder(watch), 150)
    planned = json.loads(json.dumps(plan(watch, DAY).to_document()))
    metrics = LastMetrics(watch.name, "score")
    result = score(watch, DAY, metrics=metrics)
    (folder,) = (Path(watch.output.uri) / "_runs").iterdir()
    tasks = json.loads((folder / "plan.json").read_text())["tasks"]
    records = [json.loads(path.read_text()) for path in folder.glob("tasks/*/*.json")]
    report = Path(watch.output.uri) / f"reports/day={DAY}/run_card.json"
    card = json.loads(report.read_text())["books"]
    last = metrics.last
    assert len(planned["tasks"]) < len(files)
    assert planned["tasks"] == tasks
    assert {len(tasks), len(records), result.counts.tasks, card["tasks"]} == {len(planned["tasks"])}
    assert last[Metric.TASKS_PLANNED] == last[Metric.TASKS_DONE] == len(tasks)
    in_records = sum(record["counts"]["splits"] for record in records)
    assert {in_records, result.counts.splits, card["splits"], planned["splits"]} == {len(files)}
    assert last[Metric.SPLITS_PLANNED] == last[Metric.SPLITS_DONE] == len(files)


def test_a_flag_rate_out_of_its_band_stops_the_commit(watch: Spec) -> None:
    tight = watch.gates.model_copy(update={"flag_rate": (0.0, 0.0001)})
    result = score(watch.model_copy(update={"gates": tight}), DAY)
    assert result.status == "refused"
    assert "flag rate" in result.failed_gates[0]
    assert re.search(r"; .+ leads [\d,]+ of [\d,]+ flags", result.failed_gates[0])
    assert not (Path(watch.output.uri) / "flags" / "_delta_log").exists()


def test_a_missing_day_is_refused_with_the_days_there_are(watch: Spec) -> None:
    with pytest.raises(Refusal, match="2026-01-06"):
        score(watch, "2026-01-09")


def test_a_column_of_another_type_is_refused_by_name(watch: Spec) -> None:
    for path in day_folder(watch).glob("*.parquet"):
        table = pq.read_table(path, partitioning=None)
        place = table.column_names.index("duration")
        text = table.column("duration").cast(pa.string())
        pq.write_table(table.set_column(place, "duration", text), path)
    with pytest.raises(Refusal, match="duration"):
        score(watch, DAY)


def test_a_day_without_labels_is_scored_as_well(watch: Spec) -> None:
    for path in day_folder(watch).glob("*.parquet"):
        pq.write_table(pq.read_table(path, partitioning=None).drop(["label", "incident"]), path)
    result = score(watch, DAY)
    assert result.status == "committed"
    assert committed(watch).keys() == oracle(watch).keys()


def test_columns_that_moved_and_columns_that_came_do_no_harm(watch: Spec) -> None:
    before = score(watch, DAY)
    for path in day_folder(watch).glob("*.parquet"):
        table = pq.read_table(path, partitioning=None)
        table = table.select(table.column_names[::-1])
        pq.write_table(table.append_column("new", pa.array([1] * len(table))), path)
    after = score(watch, DAY)
    assert not after.already
    assert after.counts.flagged == before.counts.flagged


def test_every_row_has_a_score_where_the_spec_asks_for_all(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    out = {"uri": str(tmp_path / "out"), "scores": "all"}
    spec = load(watch_at(trained, tmp_path, output=out))
    result = score(spec, DAY)
    table = rows_of(spec, SCORES)
    assert len(table) == result.counts.scored
    above = table.filter(pc.greater(table["score"], _threshold(spec)))
    assert set(above["uid"].to_pylist()) == committed(spec).keys()


def _threshold(spec: Spec) -> float:
    registry = Registry(open_store(spec.output.uri).child(REGISTRY))
    entry = registry.require_champion()
    return Threshold.from_json(registry.read_threshold(entry.threshold)).value


def test_a_new_threshold_needs_no_training_and_makes_another_run(watch: Spec) -> None:
    first = score(watch, DAY)
    fewer = watch.threshold.model_copy(update={"contamination": 0.002})
    changed = watch.model_copy(update={"threshold": fewer})
    document = change_threshold(changed)
    second = score(changed, DAY)
    assert document["after"]["value"] > document["before"]["value"]
    assert second.run_id != first.run_id
    assert 0 < second.counts.flagged < first.counts.flagged


def test_a_night_does_all_that_is_due_and_the_next_one_nothing(watch: Spec) -> None:
    first = nightly(watch)
    second = nightly(watch)
    assert [r.day for r in first.results] == [DAY]
    assert first.ok
    assert second.results == []
    assert second.trained is None


def test_a_night_whose_training_is_refused_scores_with_the_champion_it_has(watch: Spec) -> None:
    stale = watch.nightly.model_copy(update={"max_champion_age_days": 1e-9, "first_day": DAY})
    nothing = watch.training.model_copy(update={"filter": "duration < -1"})
    night = nightly(watch.model_copy(update={"nightly": stale, "training": nothing}))
    assert list(night.failed) == ["training"]
    assert [(r.day, r.status) for r in night.results] == [(DAY, "committed")]


def test_a_night_scores_a_day_again_whose_input_has_changed(watch: Spec) -> None:
    nightly(watch)
    spoil(watch, "duration", [0], [1.0])
    assert [r.day for r in nightly(watch).results] == [DAY]


def test_a_day_that_fails_does_not_keep_the_others_from_being_committed(
    watch: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in day_folder(watch, DAYS[2]).glob("*.parquet"):
        path.write_bytes(b"id,amount\n1,2\n")
    alert = Alert(webhook="WEBHOOK", when=("committed", "failed"))
    with receiving() as chat:
        monkeypatch.setenv("WEBHOOK", f"http://{chat.host}/")
        monkeypatch.setenv(ALLOWED, chat.host)
        alerted = watch.model_copy(update={"alerts": (alert,)})
        night = backfill(alerted, DayRange(DAYS[1], DAYS[3]))
    events = [(document["day"], document["event"]) for _, document in chat.requests]
    # A day that cannot be read is told at once, before the others are scored.
    assert events == [(DAYS[2], "failed"), (DAYS[1], "committed"), (DAYS[3], "committed")]
    assert chat.requests[1][1]["flagged"] == night.results[0].counts.flagged
    assert list(night.failed) == [DAYS[2]]
    assert not night.ok
    assert {r.day for r in night.results if r.status == "committed"} == {DAYS[1], DAYS[3]}


def test_days_of_other_columns_or_types_fail_alone_in_their_night(watch: Spec) -> None:
    for path in day_folder(watch, DAYS[2]).glob("*.parquet"):
        pq.write_table(pq.read_table(path, partitioning=None).drop(["src_ip"]), path)
    for path in day_folder(watch, DAYS[1]).glob("*.parquet"):
        table = pq.read_table(path, partitioning=None)
        place = table.schema.get_field_index("duration")
        texts = pa.array([f"{seconds} s" for seconds in table["duration"].to_pylist()])
        pq.write_table(table.set_column(place, "duration", texts), path)
    night = backfill(watch, DayRange(DAYS[1], DAYS[3]))
    assert "src_ip" in night.failed[DAYS[2]]
    assert "'duration'" in night.failed[DAYS[1]]
    assert "found string" in night.failed[DAYS[1]]
    assert not night.ok
    assert [r.day for r in night.results if r.status == "committed"] == [DAYS[3]]


def test_run_card_and_index_are_written_with_the_commit(watch: Spec) -> None:
    result = score(watch, DAY)
    reports = Path(watch.output.uri) / "reports"
    page = (reports / f"day={DAY}" / "run_card.html").read_text()
    assert result.run_id in page
    assert f"day={DAY}/run_card.html" in (reports / "index.html").read_text()
