"""One trained watch for all tests of nights; each test has its own copy."""

import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from cluster.runtime.session import session
from jobs.demo import data as demo
from jobs.monitoring.endpoint import Destinations, publish_run
from jobs.spec.spec import Spec, load
from jobs.train import train

SPECS = Path(__file__).parents[2] / "specs"
DAYS = [f"2026-01-0{n}" for n in range(1, 7)]


@pytest.fixture(scope="module")
def ray_session() -> Iterator[None]:
    """Embedded Ray with more CPUs than the machine: they are bookkeeping, and tests are small.

    Every verb of this process uses it: it is for files of tests that need one."""
    with session(cpus=4):
        yield


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six days of small flows and cards."""
    folder = tmp_path_factory.mktemp("demo")
    demo.write(folder, days=6, first_day=date(2026, 1, 1), scale=0.08)
    return folder


def write_spec(folder: Path, source: str | Path, target: str | Path, **changes: Any) -> Path:
    """The demo's flow spec over other places, quick to train; `changes` replace whole sections."""
    document = yaml.safe_load((SPECS / "demo_flows.yaml").read_text())
    document["input"]["uri"] = str(source)
    document["output"] = {"uri": str(target)}
    document["training"] = {"days": f"{DAYS[0]}..{DAYS[4]}", "epochs": 2, "baselines": ["pca"]}
    document["threshold"] = {"policy": "quantile", "contamination": 0.01}
    # Small days: a Sunday has half the rows of a Friday.
    document["gates"] = {"flag_rate": [0, 0.5], "volume": None}
    document.update(changes)
    path = folder / "watch.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Path) -> tuple[Path, Path]:
    """Folders of the input and of a trained watch's output, not to be written to; beside the output
    are the training's metrics."""
    folder = tmp_path_factory.mktemp("trained")
    spec = load(write_spec(folder, data / "flows", folder / "out"))
    with publish_run(spec, "train", Destinations(file=folder / "training.prom")) as metrics:
        train(spec, None, metrics)
    return data / "flows", folder / "out"


@pytest.fixture
def watch(trained: tuple[Path, Path], tmp_path: Path) -> Spec:
    """A trained watch of the test's own: its input and output may be spoilt."""
    return load(watch_at(trained, tmp_path))


def watch_at(trained: tuple[Path, Path], folder: Path, **changes: Any) -> Path:
    flows, out = trained
    shutil.copytree(flows, folder / "flows")
    shutil.copytree(out, folder / "out")
    return write_spec(folder, folder / "flows", folder / "out", **changes)


def cut_into_files(folder: Path, files: int) -> list[Path]:
    """Cut the Parquet files of a day into about so many, in order, with page checksums."""
    parts = [pq.read_table(path, partitioning=None) for path in sorted(folder.glob("*.parquet"))]
    shutil.rmtree(folder)
    folder.mkdir()
    written: list[Path] = []
    for table in parts:
        rows = -(-len(table) // (files // len(parts)))
        for start in range(0, len(table), rows):
            path = folder / f"part-{len(written):04}.parquet"
            pq.write_table(table.slice(start, rows), path, write_page_checksum=True)
            written.append(path)
    return written
