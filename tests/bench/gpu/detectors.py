"""How fast each detector scores by the rows of a chunk, and how far its scores are from a CPU's.

On the contract's layouts, with the default options. Prints a line of JSON for each."""

import json
import time
from typing import Any

import torch

from models.batch import Batch
from models.contract.layouts import Given
from models.contract.suite import Subject, held_out, scores
from models.detectors.catalog import CATALOG
from models.detectors.detector import Detector

CHUNKS = (4_096, 16_384, 131_072)
_MEASURED_S = 0.25  # of each detector and chunk
_FITTED = 20_000  # rows that a detector is fitted on
_AT_ONCE = 4  # chunks between two waits for the device


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


@torch.inference_mode()
def measure(detector: Detector, rows: Batch, size: int) -> float:
    """Rows a second in chunks of this size; all results are waited for at the end."""
    device = rows.numeric.device
    places = torch.arange(size, device=device) % len(rows.numeric)
    chunk = rows.take(places)._replace(label=None)
    detector.score(chunk)
    _wait(device)
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < _MEASURED_S:
        for _ in range(_AT_ONCE):
            detector.score(chunk)
        _wait(device)
        done += _AT_ONCE * size
    return done / (time.perf_counter() - began)


def build(subject: Subject, given: Given, device: torch.device) -> Detector:
    """The detector with random weights, or fitted on the device: as fast as a trained one."""
    torch.manual_seed(0)
    detector = subject.build(given.layout).to(device).eval()
    if detector.learns != "gradient":
        detector.fit(given.normal(_FITTED, 1)._replace(label=None).to(device), seed=0)
    return detector


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chunks = CHUNKS if device.type == "cuda" else CHUNKS[:1]
    for name, kind in sorted(CATALOG.items()):
        subject = Subject(name, kind)
        for given in subject.list_givens():
            line: dict[str, Any] = {"detector": name, "rows": given.name, "device": str(device)}
            try:
                detector, rows = build(subject, given, device), held_out(given.name)
                rates = {str(n): measure(detector, rows.to(device), n) / 1e6 for n in chunks}
                line["millions a second"] = {n: round(rate, 3) for n, rate in rates.items()}
                found = scores(detector, rows.to(device)).cpu()
                expected = scores(detector.cpu(), rows)
                apart = (found - expected).abs() / expected.abs().clamp_min(1e-3)
                line["apart from the CPU"] = float(apart.max())
            except Exception as error:  # the others are measured
                line["failed"] = f"{type(error).__name__}: {error}"
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
