"""How many requests a night sends to S3: `python -m tests.bench.requests`.

Two series of runs on a server that counts. The driver's own steps (see `tests.bench.plan`) at two
numbers of splits; and a whole `score`, Ray and all, of days cut into a few files of one split each.
Requests grow with the splits along a line, so that two points tell both its ends.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from cluster.lake.storage.opening import open_store
from jobs.demo import data
from tests.bench.counting_server import counted
from tests.bench.measure import ROOT
from tests.bench.plan import Night
from tests.conftest import S3Server, free_port, serving

KINDS = ("GET", "HEAD", "LIST", "PUT", "POST", "DELETE")
DRIVER = (1_000, 4_000)  # splits; of both sizes the lists have several pages
FILES = (16, 64)  # of a scored day, one split and one task each
_BUCKET = "lake"
_DAYS = tuple(f"2026-01-0{day}" for day in range(1, 5))


@dataclass(frozen=True)
class Line:
    """Requests of a step: `base + slope * splits`, by kind."""

    base: dict[str, float]
    slope: dict[str, float]


def line(few: int, some: Counter[str], many: int, more: Counter[str]) -> Line:
    """Through two points."""
    slope = {kind: (more[kind] - some[kind]) / (many - few) for kind in KINDS}
    return Line({kind: some[kind] - slope[kind] * few for kind in KINDS}, slope)


class Counts:
    """A lake on a counting server."""

    def __init__(self, server: S3Server, log: Path) -> None:
        self.server, self.log = server, log
        request = urllib.request.Request(f"{server.endpoint}/{_BUCKET}", method="PUT")
        urllib.request.urlopen(request).close()

    @contextmanager
    def of(self, found: Counter[str]) -> Iterator[None]:
        """Add the requests of the block."""
        before = counted(self.log)
        yield
        found.update(counted(self.log) - before)

    def driver(self, splits: int) -> dict[str, Counter[str]]:
        """Requests of the driver's steps over so many splits."""
        uri = f"s3://{_BUCKET}/night-{splits}"
        night, found = Night(uri, splits), {}
        for step in ("plan", "records", "sum_up", "resume", "commit"):
            found[step] = Counter[str]()
            with self.of(found[step]):
                getattr(night, step)()
        del found["records"]  # which actors write: counted with the scoring
        return found

    def score(self, files: int, folder: Path) -> Counter[str]:
        """Requests of a whole `score` of a day in so many files."""
        spec = self._watch(files, folder)
        self._jobs("train", spec)
        found = Counter[str]()
        with self.of(found):
            self._jobs("score", spec, "--day", _DAYS[-1])
        return found

    def _watch(self, files: int, folder: Path) -> Path:
        data.write(folder, days=len(_DAYS), first_day=date.fromisoformat(_DAYS[0]), scale=0.08)
        lake = open_store(f"s3://{_BUCKET}/files-{files}")
        for day in _DAYS:
            rows = pq.read_table(folder / "flows" / f"day={day}", partitioning=None)
            for number in range(files):
                start, stop = (len(rows) * n // files for n in (number, number + 1))
                sink = pa.BufferOutputStream()
                pq.write_table(rows.slice(start, stop - start), sink)
                lake.put(f"flows/day={day}/part-{number:05}.parquet", sink.getvalue().to_pybytes())
        document = yaml.safe_load((ROOT / "specs/demo_flows.yaml").read_text())
        document["input"]["uri"] = f"{lake.uri}/flows"
        document["output"] = {"uri": f"{lake.uri}/out"}
        document["detector"] = {"name": "pca"}
        document["training"] = {"days": f"{_DAYS[0]}..{_DAYS[-2]}", "baselines": []}
        document["threshold"] = {"policy": "quantile", "contamination": 0.01}
        document["gates"] = {"flag_rate": [0, 0.5], "volume": None}
        path = folder / "watch.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return path

    def _jobs(self, verb: str, spec: Path, *more: str) -> None:
        command = [sys.executable, "-m", "jobs", verb, str(spec), *more]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def measure(folder: Path) -> dict[str, Line]:
    """The line of each step."""
    port, log = free_port(), folder / "requests.log"
    log.touch()
    command = [sys.executable, "-m", "tests.bench.counting_server", "127.0.0.1", str(port)]
    with serving([*command, str(log)], port):
        server = S3Server(f"http://127.0.0.1:{port}")
        os.environ.update(server.environment)
        counts = Counts(server, log)
        few, many = (counts.driver(splits) for splits in DRIVER)
        lines = {step: line(DRIVER[0], few[step], DRIVER[1], many[step]) for step in few}
        scored = [counts.score(files, folder / str(files)) for files in FILES]
        lines["score"] = line(FILES[0], scored[0], FILES[1], scored[1])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("demo/plan"))
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        lines = measure(Path(folder))
    found = {step: {"base": one.base, "slope": one.slope} for step, one in lines.items()}
    (given.folder / "requests.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"{'requests a split':<18}" + "".join(f"{kind:>9}" for kind in KINDS) + "   (and a run)")
    for step, one in lines.items():
        cells = (f"{one.slope[kind]:9.3f}" for kind in KINDS)
        print(f"  {step:<16}" + "".join(cells) + f"   {sum(one.base.values()):,.0f}")


if __name__ == "__main__":
    main()
