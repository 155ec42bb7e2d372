"""The benchmark in short: that it runs and checks what it should. Never a time."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from models.bundle import open_bundle, read_directory
from tests.bench import agreement, measure, prepare, report, results, stages, workloads
from tests.bench.agreement import Flags
from tests.bench.contenders import fused
from tests.bench.measure import ROOT
from tests.bench.results import Line, Results, Run
from tests.bench.workloads import Workload

CONTENDERS = ("anomaray", "limit_torch")
SCALE = 0.05
THRESHOLD = 10.0

# The first test that needs the folder waits for a training and two runs.
pytestmark = pytest.mark.timeout(900)


def measured(folder: Path, name: str, *contenders: str) -> Results:
    """The result of running contenders once, on 10 thousand rows in four files."""
    command = [sys.executable, "-m", "tests.bench", "run", "--folder", str(folder)]
    command += ["--workload", "W2", "--rows-scale", str(SCALE), "--rounds", "0", "--name", name]
    command += [part for one in contenders for part in ("--contender", one)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return Results.read(folder / "results" / f"{name}.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the benchmark has run once."""
    folder = tmp_path_factory.mktemp("bench")
    measured(folder, "short", *CONTENDERS)
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> Results:
    return Results.read(folder / "results" / "short.json")


def count_flags(found: Results) -> int:
    """The flagged rows, in which all contenders agree; the costs of each make sense."""
    assert all(line.refused is None for line in found.lines)
    for line in found.lines:
        (run,) = line.runs
        assert run.peak_private_bytes > 100 * results.MIB
        assert run.cpu_seconds > 0.5
        assert 0 < run.job_seconds <= run.wall_seconds
    (flagged,) = {line.runs[0].flagged for line in found.lines}
    return flagged


def test_every_contender_flags_the_same_rows(found: Results) -> None:
    assert [line.contender for line in found.lines] == list(CONTENDERS)
    assert 0 < count_flags(found) < 0.05 * found.lines[0].rows


@pytest.mark.slow  # of processes that a contender leaves: test_an_orphan_counts_and_is_waited_for
def test_a_contender_on_ray_flags_the_same_rows_and_its_workers_count(
    folder: Path, found: Results
) -> None:
    on_ray = measured(folder, "ray", "ray_tuned")
    assert count_flags(on_ray) == count_flags(found)
    # Ray's workers import torch and Arrow: a driver alone would not take half of this.
    assert on_ray.lines[0].runs[0].peak_private_bytes > 1000 * results.MIB


def test_the_report_has_a_table_and_a_chart_with_every_contender(
    found: Results, tmp_path: Path
) -> None:
    page, drawing = report.write(found, tmp_path / "docs" / "performance.md")
    text = page.read_text()
    assert f"({drawing.name})" in text
    assert found.machine["cpu"] in text
    root = ET.fromstring(drawing.read_text())
    bars = [element for element in root if element.tag.endswith("rect")]
    assert len(bars) == len(CONTENDERS)
    for line in found.lines:
        assert f"| {report.title(line)} | {line.wall:.1f} |" in text


def test_the_folded_network_scores_as_the_detector_does(folder: Path) -> None:
    case = prepare.case(folder, workloads.W2.scaled(SCALE))
    bundle = open_bundle(read_directory(case.bundle))
    path = next(case.local_lake.rglob("*.parquet"))
    folded = fused.read(case.bundle)
    rows = pq.ParquetFile(path).read(columns=list(folded.columns))
    extracted = bundle.encoder.extract(rows.combine_chunks().to_batches()[0])
    with torch.inference_mode():
        batch = bundle.encoder(extracted)
        expected = bundle.detector.score(batch).numpy()
    threads = torch.get_num_threads()
    try:
        scores = fused.Scorer(folded, "torch").scores(rows)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-4)


def test_the_onnx_graph_scores_as_eager_torch_does(folder: Path) -> None:
    case = prepare.case(folder, workloads.W2.scaled(SCALE))
    folded = fused.read(case.bundle)
    rows = pq.ParquetFile(next(case.local_lake.rglob("*.parquet"))).read()
    graph, eager = (fused.Scorer(folded, name).scores(rows) for name in ("onnx", "torch"))
    np.testing.assert_allclose(graph, eager, rtol=1e-3, atol=1e-4)


def flags(ids: list[int], scores: list[float]) -> Flags:
    return Flags(np.array(ids), np.array(scores, np.float32))


@pytest.mark.parametrize(
    ("ids", "scores", "says"),
    [
        ([1, 2, 3], [11.0, 12.0, 13.0], None),
        ([1, 2], [11.0, 12.0], "1 flags are missing"),
        ([1, 2, 3, 4], [11.0, 12.0, 13.0, 10.5], "1 flags are too many"),
        ([1, 2, 3, 4], [11.0, 12.0, 13.0, 10.0005], None),  # rounding at the threshold
        ([1, 2, 3, 3], [11.0, 12.0, 13.0, 13.0], "1 rows are there twice"),
        ([1, 2, 3], [11.0, 12.5, 13.0], "scores differ by up to 4.2e-02, relatively"),
    ],
)
def test_flags_may_differ_by_rounding_at_the_threshold_only(
    ids: list[int], scores: list[float], says: str | None
) -> None:
    reference = flags([1, 2, 3], [11.0, 12.0, 13.0])
    assert agreement.difference(reference, flags(ids, scores), THRESHOLD) == says


def test_an_orphan_counts_and_is_waited_for() -> None:
    program = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    block = bytearray(150 << 20)\n"
        "    end = time.process_time() + 1.0\n"
        "    while time.process_time() < end: pass\n"
    )
    ended = measure.run([sys.executable, "-c", program])
    assert ended.cost.status == 0
    assert ended.cost.cpu_seconds >= 1.0
    assert ended.cost.peak_private_bytes >= 150 << 20


def test_a_run_that_takes_too_long_is_ended_with_its_children() -> None:
    program = "import os, time; print(os.fork(), flush=True); time.sleep(600)"
    ended = measure.run([sys.executable, "-c", program], timeout=1.0)
    assert ended.cost.status == -signal.SIGKILL
    (child,) = (int(line) for line in ended.output.split() if line != "0")
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_growth_is_the_line_through_the_sizes() -> None:
    lines = [
        Line("limit", f"W4-{m}M", "local", m * 1_000_000, m, 0, [Run(2 + m / 4, 0, 0, 0, 0, "")])
        for m in (1, 4, 16)
    ]
    found = results.growth(lines)
    assert found is not None
    assert found.fixed_seconds == pytest.approx(2)
    assert found.rows_per_second == pytest.approx(4_000_000)
    assert found.furthest == pytest.approx(0, abs=1e-9)


def test_the_report_says_what_each_stage_of_ours_costs_beside_the_loop(tmp_path: Path) -> None:
    spent = {"driver": {"wait": 3.0}, "actors": {"read": 2.0, "idle": 5.0}}
    ours = Line("anomaray", "W1", "local", 1_000_000, 1, 0, [Run(4, 3, 0, 0, 0, "", spent)])
    loop = Line("limit", "W1", "local", 1_000_000, 1, 0, [Run(1, 1, 0.5, 0, 0, "")])
    text = stages.section(Results({}, "", "", 1, [ours, loop]))
    assert "| driver: wait | 3.00 | – |" in text
    assert "| actors: read | 2.00 | 2,000 |" in text
    assert "| **actors, busy** | 2.00 | 2,000 |" in text
    assert "| the loop's CPU, `limit` | 0.50 | 500 |" in text


def test_a_lake_is_written_once_and_its_ids_are_unique(tmp_path: Path) -> None:
    workload = Workload("tiny", 1_001, 2)
    lake = workloads.write(tmp_path, workload)
    files = sorted(lake.rglob("*.parquet"))
    before = [file.stat().st_mtime_ns for file in files]
    ids = [n for file in files for n in pq.ParquetFile(file).read().column("id").to_pylist()]
    assert ids == list(range(1_001))
    workloads.write(tmp_path, workload)
    assert [file.stat().st_mtime_ns for file in files] == before
