"""A night over images, texts, vectors and sequences: trained, scored, explained, committed once."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from jobs import flags
from jobs.score import score
from jobs.spec.spec import load
from jobs.train import TrainRequest, train
from tests.models.media import image_bytes, mixed

DAYS = [f"2026-03-0{n}" for n in range(1, 5)]
ODD = (5, 17)  # rows of the last day whose picture has a bright corner


def write_days(folder: Path) -> None:
    """Small days of all kinds of columns; on the last one two pictures are odd, and one is none."""
    for number, day in enumerate(DAYS):
        table = mixed(80, seed=number).drop_columns(["call", "clip"])
        pictures = []
        for row in range(len(table)):
            pixels = np.random.default_rng((number, row)).integers(60, 80, (16, 16))
            if day == DAYS[-1] and row in ODD:
                pixels[:6, :6] = 255
            pictures.append(image_bytes(pixels))
        if day == DAYS[-1]:
            pictures[40] = pictures[40][:60]
        place = table.column_names.index("picture")
        table = table.set_column(place, "picture", pa.array(pictures))
        table = table.append_column("uid", pa.array([f"{day}-{i}" for i in range(len(table))]))
        path = folder / f"day={day}" / "part-0.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(table, path, row_group_size=50)


def test_a_night_of_signals_is_scored_explained_and_committed(tmp_path: Path) -> None:
    write_days(tmp_path / "rows")
    document = {
        "name": "signals",
        "input": {"uri": str(tmp_path / "rows"), "partition": "day"},
        "columns": {
            "uid": {"role": "id"},
            "picture": {"role": "image", "size": 16},
            "message": {"role": "text", "length": 64, "ngrams": 32},
            "embedding": {"role": "vector"},
            "series": {"role": "sequence", "length": 8},
            "events": {"role": "sequence", "length": 8},
        },
        "detector": {"name": "autoencoder"},
        "training": {"days": f"{DAYS[0]}..{DAYS[2]}", "epochs": 1, "baselines": ["pca"]},
        "threshold": {"policy": "quantile", "contamination": 0.02},
        "gates": {"flag_rate": [0, 1], "volume": None, "quarantine_rate": 0.5},
        "output": {"uri": str(tmp_path / "out")},
    }
    path = tmp_path / "watch.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    spec = load(path)
    train(spec, TrainRequest(workers=1))
    result = score(spec, DAYS[-1])
    assert result.status == "committed"
    assert (result.counts.rows, result.counts.scored, result.counts.quarantined) == (80, 79, 1)
    frame = flags.read(f"{spec.output.uri}/flags", DAYS[-1]).set_index("uid")
    for row in ODD:
        reasons = {r["feature"]: r for r in frame.loc[f"{DAYS[-1]}-{row}"]["reasons"]}
        picture = reasons["picture"]
        assert picture["observed"].startswith("brightness 255 of 255 at row")
        assert picture["expected"].startswith("brightness ")
        shown = frame.loc[f"{DAYS[-1]}-{row}"]["picture"]
        assert shown["feature"] == "picture"
        heat = np.asarray(Image.open(io.BytesIO(shown["png"])).convert("L")).astype(int)
        heat = heat[:, heat.shape[1] // 2 :]  # the second panel
        corner = heat[: heat.shape[0] * 3 // 8, : heat.shape[1] * 3 // 8]
        assert corner.mean() > 4 * heat.mean(), "the bright corner is where the score came from"
    page = Path(result.card or "").read_text()
    images = re.findall(r'<img src="data:image/png;base64,([^"]*)"', page)
    assert images
    for text in images:
        Image.open(io.BytesIO(base64.b64decode(text, validate=True))).load()
