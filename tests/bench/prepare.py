"""What a benchmark needs before the clock starts: lakes, trained models, specs."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from cluster.lake.registry.registry import Registry
from cluster.lake.storage.opening import open_store
from tests.bench import workloads
from tests.bench.measure import ROOT
from tests.bench.workloads import TRAINING_DAY, Model, Workload

LAKES = "lakes"


@dataclass(frozen=True)
class Trained:
    """A champion: where its bundle is, and its threshold."""

    out: Path  # output folder of the watch that was trained, with the registry
    lake: Path  # the training day's
    bundle: Path
    threshold: float


@dataclass(frozen=True)
class Case:
    """One workload at one place, ready to be scored by every contender."""

    workload: Workload
    place: str  # "local" or "s3"
    lake: str  # as contenders are told
    local_lake: Path  # the same on this machine
    spec: Path
    bundle: Path
    threshold: float

    @property
    def name(self) -> str:
        return self.workload.name + ("" if self.place == "local" else f" from {self.place}")


def case(folder: Path, workload: Workload, bucket: str | None = None) -> Case:
    """Write the lake and train the model where they are not there yet. With a `bucket`, an
    s3:// prefix that serves `lakes` below the folder, the lake is read from there."""
    lake = workloads.write(folder / LAKES, workload)
    trained = _trained(folder, workload.model)
    place, uri = ("s3", f"{bucket}/{workload.folder}") if bucket else ("local", str(lake))
    spec = folder / "specs" / f"{workload.name}-{place}.yaml"
    _write_spec(spec, uri, trained.lake, trained.out, workload.model)
    return Case(workload, place, uri, lake, spec, trained.bundle, trained.threshold)


def _trained(folder: Path, model: Model) -> Trained:
    name = f"{model.name}-{model.rows}"
    lake = workloads.write(folder / LAKES, workloads.training(model), TRAINING_DAY)
    out = folder / "models" / name
    spec = folder / "specs" / f"{name}.yaml"
    _write_spec(spec, str(lake), lake, out, model)
    registry = Registry(open_store(f"{out}/registry"))
    if registry.read_champion() is None:
        command = [sys.executable, "-m", "jobs", "train", str(spec), "--json"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    champion = registry.require_champion()
    threshold = json.loads(registry.read_threshold(champion.threshold))["value"]
    return Trained(out, lake, out / "registry" / "bundles" / champion.bundle, threshold)


def _write_spec(path: Path, source: str, training: Path, out: Path, model: Model) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    document = workloads.spec(source, training, out, model)
    path.write_text(yaml.safe_dump(document, sort_keys=False))
