"""The demo: generates data, trains, scores the last day, shows the flags and their quality."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.lake.days import DayRange
from cluster.splits.engine import EngineName
from cluster.splits.opening import open_engine
from jobs import evaluate, flags
from jobs.demo import data
from jobs.score import score
from jobs.scoring.result import RunResult
from jobs.spec.spec import Spec, load
from jobs.terminal.console import out, say, step
from jobs.train import TrainRequest, train
from models.refusal import Refusal

SPECS = Path(__file__).resolve().parents[2] / "specs"
_SHOWN = 8  # flags of each watch, so that all fits on one screen


@dataclass(frozen=True)
class Demo:
    """What the demo wrote and found, by watch."""

    folder: Path
    results: tuple[RunResult, ...]
    quality: tuple[dict[str, Any], ...]
    seconds: float

    def to_document(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "seconds": round(self.seconds, 1),
            "days": [result.to_document() for result in self.results],
            "quality": list(self.quality),
        }

    def refuse(self) -> None:
        """Raise `Refusal` if a gate stopped a commit."""
        failed = [r.watch for r in self.results if r.status != "committed"]
        if failed:
            raise Refusal(f"a gate stopped the commit of {', '.join(failed)}; see the run cards")


def run(folder: Path, workers: int, scale: float, show: bool = True) -> Demo:
    """Run the whole demo in `folder`; `show` prints flags and quality."""
    started = time.monotonic()
    with step("write two weeks of data", 14 * data.FILES_A_DAY * 2) as progress:
        summary = data.write(folder, scale=scale, progress=lambda *_: progress.advance())
    day = summary.days[-1]
    results, qualities = [], []
    # One watch on Ray, trained by DDP workers; the other in this process.
    engines: tuple[tuple[str, EngineName], ...] = (("flows", "ray"), ("cards", "local"))
    for name, engine in engines:
        spec = _move(load(SPECS / f"demo_{name}.yaml"), folder)
        days = DayRange(summary.days[0], summary.days[-2])
        with open_engine(asked=engine):
            train(spec, TrainRequest(days, workers if engine == "ray" else 1, engine=engine))
            results.append(score(spec, day, engine=engine))
            qualities.append(evaluate.evaluate(spec, DayRange(day, day), engine=engine))
            if show:
                _show(spec, results[-1], qualities[-1])
    if show:
        for result in results:
            card = f"run card of {result.watch}: {result.card}"
            out.print(card, highlight=False, soft_wrap=True)
    demo = Demo(folder, tuple(results), tuple(qualities), time.monotonic() - started)
    say(f"demo done in {demo.seconds:.0f} s")
    return demo


def _move(spec: Spec, folder: Path) -> Spec:
    """The spec with its URIs under `folder`."""
    source = folder / Path(spec.input.uri).name
    target = folder / "out" / Path(spec.output.uri).name
    return spec.model_copy(
        update={
            "input": spec.input.model_copy(update={"uri": str(source)}),
            "output": spec.output.model_copy(update={"uri": str(target)}),
        }
    )


def _show(spec: Spec, result: RunResult, quality: dict[str, Any]) -> None:
    out.rule(f"{spec.name}, {result.day}")
    out.print(
        f"{result.counts.scored:,} rows scored, {result.counts.flagged:,} flagged, "
        f"{result.counts.quarantined:,} quarantined",
        highlight=False,
    )
    flags.show(flags.read(f"{spec.output.uri}/flags", result.day), _SHOWN, out, spec.roles)
    for table in evaluate.render_table(quality):
        out.print(table)
