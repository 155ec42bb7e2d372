"""The whole way on object storage: input, checkpoints, registry, tables and cards on S3."""

from pathlib import Path

from cluster.lake.storage.opening import open_store
from jobs.nightly import nightly
from jobs.spec.spec import load
from tests.night.conftest import DAYS, write_spec

DAY = DAYS[5]


def test_a_night_on_s3_trains_scores_commits_and_is_done_once(
    data: Path, tmp_path: Path, s3_uri: str
) -> None:
    lake = open_store(s3_uri)
    for path in sorted((data / "flows").rglob("*.parquet")):
        lake.put(f"flows/{path.relative_to(data / 'flows').as_posix()}", path.read_bytes())
    spec_path = write_spec(tmp_path, f"{s3_uri}/flows", f"{s3_uri}/out")
    spec = load(spec_path)
    first, second = (nightly(spec, engine="local").to_document() for _ in range(2))
    assert first["trained"]
    assert [day["day"] for day in first["days"]] == [DAY]
    assert first["days"][0]["rows"] == first["days"][0]["scored"]
    assert first["days"][0]["checked_by_pages"] + first["days"][0]["checked_by_store"] > 0
    assert first["days"][0]["unchecked"] == 0
    skipped = second.pop("skipped")
    assert second == {"trained": None, "days": [], "failed": {}, "deleted": []}
    assert not any(one["waiting"] for one in skipped)
    reports = open_store(spec.output.uri).child("reports")
    assert {o.key for o in reports.list()} >= {"index.html", f"day={DAY}/run_card.html"}
