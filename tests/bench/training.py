"""What a training costs beside its steps: `python -m tests.bench.training`.

In each round, `train` learns the autoencoder of W1 (400,000 rows, three epochs), and a plain torch
loop learns the same network on the same rows, encoded, with the same threads. Prints the medians,
and how far the whole command is from twice the loop plus six seconds. With `--beside`, processes
that compute share the cores with both.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import yaml

from tests.bench import measure, prepare, workloads
from tests.bench.workloads import DENSE, TRAINING_DAY, Model

LIMIT = "2 loops + 6 s"
_SPIN = "while True: sum(range(10000))"


def write_spec(folder: Path, model: Model, engine: str) -> Path:
    lake = workloads.write(folder / prepare.LAKES, workloads.training(model), TRAINING_DAY)
    out = folder / "out" / f"training-{engine}"
    shutil.rmtree(out, ignore_errors=True)
    path = folder / "specs" / f"training-{engine}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(workloads.spec(lake, lake, out, model), sort_keys=False))
    return path


def run(command: list[str]) -> tuple[float, dict[str, float]]:
    """Wall seconds of the command, and the JSON that it prints."""
    ended = measure.run([sys.executable, "-m", *command])
    if ended.cost.status:
        sys.stderr.write(ended.errors)
        raise SystemExit(f"{command[0]} ended with {ended.cost.status}")
    return ended.cost.wall_seconds, json.loads(ended.output)


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Processes that compute beside the block."""
    started = [subprocess.Popen([sys.executable, "-c", _SPIN]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("demo/bench"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=DENSE.rows)
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    parser.add_argument("--beside", type=int, default=0, help="processes that share the cores")
    given = parser.parse_args()
    model = Model("dense", DENSE.widths, DENSE.latent, given.rows)
    folder = given.folder.absolute()
    walls: list[float] = []
    loops: list[float] = []
    steps: list[float] = []
    with busy(given.beside):
        for _ in range(given.rounds):
            spec = write_spec(folder, model, given.engine)
            wall, trained = run(["jobs", "train", str(spec), "--json", "--engine", given.engine])
            out = yaml.safe_load(spec.read_text())["output"]["uri"]
            bundle = f"{out}/registry/bundles/{trained['bundle']}"
            lake = yaml.safe_load(spec.read_text())["training"]["uri"]
            _, by_hand = run(["tests.bench.contenders.training_loop", bundle, lake])
            walls.append(wall)
            steps.append(3 * by_hand["rows"] / trained["rows_per_second"])
            loops.append(by_hand["seconds"])
    wall, loop = median(walls), median(loops)
    print(
        json.dumps(
            {
                "rounds": given.rounds,
                "processes beside": given.beside,
                "command, wall seconds": round(wall, 1),
                "of which epochs, seconds": round(median(steps), 1),
                "plain loop, seconds": round(loop, 1),
                f"command / ({LIMIT})": round(wall / (2 * loop + 6), 2),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
