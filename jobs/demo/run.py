"""The demo: generates data, trains, scores the last day, shows the flags and their quality."""

import time
from pathlib import Path

from cluster.splits.engine import EngineName, open_engine
from jobs import evaluate, flags
from jobs.demo import data
from jobs.score import score
from jobs.scoring.result import RunResult
from jobs.spec.spec import DayRange, Spec, load
from jobs.terminal.console import out, say, step
from jobs.train import TrainRequest, train
from models.refusal import Refusal

SPECS = Path(__file__).resolve().parents[2] / "specs"
_SHOWN = 8  # flags of each watch, so that all fits on one screen


def run(folder: Path, workers: int, scale: float) -> None:
    """Run the whole demo in `folder`. Raises `Refusal` if a gate stops a commit."""
    started = time.monotonic()
    with step("write two weeks of data", 14 * data.FILES_A_DAY * 2) as progress:
        summary = data.write(folder, scale=scale, progress=lambda *_: progress.advance())
    day = summary.days[-1]
    results = []
    # One watch on Ray, trained by DDP workers; the other in this process.
    engines: tuple[tuple[str, EngineName], ...] = (("flows", "ray"), ("cards", "local"))
    for name, engine in engines:
        spec = _move(load(SPECS / f"demo_{name}.yaml"), folder)
        days = DayRange(summary.days[0], summary.days[-2])
        with open_engine(asked=engine):
            train(spec, TrainRequest(days, workers if engine == "ray" else 1, engine=engine))
            result = score(spec, day, engine=engine)
            results.append(result)
            _show(spec, result, engine)
    for result in results:
        out.print(f"run card of {result.watch}: {result.card}", highlight=False, soft_wrap=True)
    say(f"demo done in {time.monotonic() - started:.0f} s")
    failed = [r.watch for r in results if r.status != "committed"]
    if failed:
        raise Refusal(f"a gate stopped the commit of {', '.join(failed)}; see the run cards")


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


def _show(spec: Spec, result: RunResult, engine: EngineName) -> None:
    out.rule(f"{spec.name}, {result.day}")
    out.print(
        f"{result.counts.scored:,} rows scored, {result.counts.flagged:,} flagged, "
        f"{result.counts.quarantined:,} quarantined",
        highlight=False,
    )
    flags.show(flags.read(f"{spec.output.uri}/flags", result.day), _SHOWN, out, spec.roles)
    quality = evaluate.evaluate(spec, DayRange(result.day, result.day), engine=engine)
    for table in evaluate.render_table(quality):
        out.print(table)
