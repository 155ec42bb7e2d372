"""What a GPU machine has to show, under one limit of time: `python -m tests.bench.gpu --out OUT`.

The contract of the detectors on CUDA, detectors by the rows of a chunk, training beside a plain
loop, a hand-written scoring loop, and days of W1's rows by either engine, with how much the card
was in use. OUT gets `results.json` after each part, and the output of each; a part without time
left is named. Without a GPU it runs too, which tests the script.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from tests.bench import machine, prepare
from tests.bench.contenders import anomaray
from tests.bench.measure import ROOT
from tests.bench.prepare import Case
from tests.bench.workloads import Model, Workload

LEAST_S = 3.0  # less time than this is not worth the start of a part
_SAMPLE_MS = 200
_TAIL = 2_000  # characters of a part's output in the results


@dataclass(frozen=True)
class Part:
    """One measurement."""

    name: str
    command: list[str]
    seconds: float  # it is ended after these


@dataclass(frozen=True)
class Measured:
    """What came of a part."""

    name: str
    status: int | None  # None: it was ended, or had no time left
    seconds: float
    card_use: float | None  # mean percent of time in which the card computed; None without one
    found: Any  # the JSON that it printed, or the end of its output


def list_parts(cases: list[Case], seconds: float, folder: Path, out: Path) -> list[Part]:
    here = [sys.executable, "-m"]
    contract = ["pytest", "-q", "-p", "no:cacheprovider", "tests/models/detectors", "-k", "cuda"]
    model = cases[0].workload.model
    training = ["tests.bench.training", "--folder", str(folder), "--rounds", "1"]
    training += ["--rows", str(model.rows), "--engine"]
    parts = [
        Part("contract", [*here, *contract], 0.25 * seconds),
        Part("detectors", [*here, "tests.bench.gpu.detectors"], 0.25 * seconds),
        *(Part(f"train, {e}", [*here, *training, e], 0.2 * seconds) for e in ("local", "ray")),
    ]
    for case in cases:
        given = [case.lake, str(case.bundle), str(case.threshold)]
        name = f"{case.workload.rows:,} rows"
        parts.append(Part(f"loop, {name}", [*here, "tests.bench.gpu.loop", *given], 0.2 * seconds))
        for engine in ("local", "ray"):
            target = out / f"{case.workload.rows}-{engine}"
            command = [*anomaray.fresh(case.spec, target), "--engine", engine]
            parts.append(Part(f"score, {engine}, {name}", command, 0.2 * seconds))
    return parts


@contextmanager
def watch_card(samples: list[float]) -> Iterator[None]:
    """Collect how much of the time the card computes, in percent."""
    program = shutil.which("nvidia-smi")
    if program is None:
        yield
        return
    query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", f"-lms={_SAMPLE_MS}"]
    with subprocess.Popen([program, *query], stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout is not None
        lines = asking.stdout

        def read() -> None:
            samples.extend(float(line) for line in lines if line.strip().isdigit())

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield
        finally:
            asking.terminate()
            reader.join()


def run(part: Part, left: float, out: Path) -> Measured:
    if left < LEAST_S:
        return Measured(part.name, None, 0.0, None, "no time was left")
    samples: list[float] = []
    printed = out / f"{part.name.replace(', ', '-').replace(' ', '-')}.txt"
    began = time.monotonic()
    with (
        printed.open("w") as output,
        printed.with_suffix(".log").open("w") as errors,
        watch_card(samples),
    ):
        started = subprocess.Popen(
            part.command, cwd=ROOT, stdout=output, stderr=errors, start_new_session=True
        )
        try:
            status: int | None = started.wait(min(left, part.seconds))
        except subprocess.TimeoutExpired:
            status = None
            os.killpg(started.pid, 9)
            started.wait()
    seconds = round(time.monotonic() - began, 1)
    use = round(mean(samples), 1) if samples else None
    return Measured(part.name, status, seconds, use, _read_document(printed.read_text()))


def _read_document(text: str) -> Any:
    """What a part printed: one JSON document, a list of those on lines, or the end of its text."""
    with suppress(ValueError):
        return json.loads(text)
    with suppress(ValueError):
        return [json.loads(line) for line in text.splitlines()]
    return text[-_TAIL:]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("demo/bench"), help="lakes and models")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=520)
    parser.add_argument("--rows", type=int, nargs="+", default=[8_000_000, 16_000_000])
    parser.add_argument("--trained", type=int, default=400_000, help="rows that are learned")
    given = parser.parse_args()
    began = time.monotonic()
    out, folder = given.out.absolute(), given.folder.absolute()
    out.mkdir(parents=True, exist_ok=True)
    model = Model("dense", (64, 32), 8, given.trained)
    # 250,000 rows a file, as in W1.
    sizes = [Workload("gpu", rows, max(1, rows // 250_000), model) for rows in given.rows]
    cases = [prepare.case(folder, size) for size in sizes]
    results: dict[str, Any] = {"machine": machine.describe(), "card": _name_card(), "parts": []}
    results["prepared, seconds"] = round(time.monotonic() - began, 1)
    for part in list_parts(cases, given.seconds, folder, out):
        measured = run(part, given.seconds - (time.monotonic() - began), out)
        results["parts"].append(asdict(measured))
        (out / "results.json").write_text(json.dumps(results, indent=1))
        print(json.dumps(asdict(measured)), flush=True)


def _name_card() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


if __name__ == "__main__":
    main()
