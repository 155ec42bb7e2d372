"""A watch with a history or a window, end to end: derived, trained, scored, committed once."""

from pathlib import Path
from typing import Any

import pytest

from jobs.input_rows import DERIVED
from jobs.nightly import nightly
from jobs.plan import plan
from jobs.score import score
from jobs.spec.spec import load
from tests.night.conftest import DAYS, write_spec

DAY = DAYS[5]


@pytest.fixture
def changes() -> dict[str, Any]:
    return {
        "name": "flows_history",
        "history": [{"entity": "src_ip", "horizons": ["1h", "1d"], "of": "orig_bytes"}],
        "training": {"days": f"{DAYS[2]}..{DAYS[4]}", "epochs": 1, "baselines": []},
        "nightly": {"first_day": DAY},
    }


def test_a_night_derives_trains_scores_and_commits_once(
    data: Path, tmp_path: Path, ray_session: None, changes: dict[str, Any]
) -> None:
    spec = load(write_spec(tmp_path, data / "flows", tmp_path / "out", **changes))
    before = plan(spec, DAY)["derived"]
    assert before["looks_back_on"] == [DAYS[4]]
    assert not before["done"]
    (receipt,) = nightly(spec).receipts
    assert receipt.status == "committed"
    assert receipt.rows == receipt.scored + receipt.quarantined + receipt.filtered
    after = plan(spec, DAY)
    assert after["derived"]["done"]
    assert after["rows"] == receipt.rows
    assert score(spec, DAY).already
    assert nightly(spec).receipts == []
    derived = tmp_path / "out" / DERIVED
    assert len(list(derived.iterdir())) == 4  # three days of training, one night


def test_a_detector_of_series_alone_watches_windows(
    data: Path, tmp_path: Path, ray_session: None
) -> None:
    columns = {
        "ts": {"role": "time"},
        "src_ip": {"role": "entity"},
        "orig_bytes": {"role": "numeric"},
        "duration": {"role": "numeric"},
    }
    spec = load(
        write_spec(
            tmp_path,
            data / "flows",
            tmp_path / "out",
            name="flows_windows",
            columns=columns,
            window={"entity": "src_ip", "length": 16, "alone": True},
            detector={"name": "anomaly_likelihood"},
            training={"days": f"{DAYS[2]}..{DAYS[4]}", "baselines": []},
            nightly={"first_day": DAY},
        )
    )
    (receipt,) = nightly(spec).receipts
    assert receipt.status == "committed"
    assert receipt.scored > 0
