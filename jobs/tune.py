"""Search better options for the spec's detector, in trials on a sample of the training rows."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

import yaml
from rich.table import Table

from cluster.lake.days import DayRange
from cluster.runtime.session import session
from cluster.splits.opening import open_engine
from cluster.training.trials import Subject, Trial, run_trials
from jobs import check
from jobs.output import open_own_output
from jobs.spec.detector import check_detector
from jobs.spec.spec import Spec
from jobs.terminal.console import say, step
from jobs.training.auto import draw_samples
from jobs.training.options import build_options
from jobs.training.plan import format_days, plan_training
from jobs.training.run import TrainingRun
from models.detectors.catalog import CATALOG
from models.detectors.search_space import draw
from models.refusal import Refusal
from models.selection.auto import AUTO
from models.selection.ranking import Judge

TUNINGS = "_tunings"
# Training rows of each trial: enough to rank options.
_ROWS = 50_000


def tune(
    spec: Spec, trials: int, *, days: DayRange | None = None, address: str | None = None
) -> dict[str, Any]:
    """Try the spec's own options and `trials` - 1 random ones. Rank them by held-back labels, or by
    planted anomalies if there are no labels (`models.selection.ranking`).

    Results are kept under the output: the same command resumes, and more trials add to fewer.
    Raises Refusal for a detector without options to tune, and if no trial can be trained.
    """
    check_detector(spec)
    asked = _plan_trials(spec, trials)
    output = open_own_output(spec)
    plan = plan_training(spec, days)
    check.check(spec, plan.snapshots[0].schema, training=True).refuse()
    say(f"tuning {spec.detector.name} of watch {spec.name} on {format_days(plan.days)}")
    with open_engine(address) as engine:
        say(engine.line)
        run = TrainingRun(engine, spec, plan, 1)
        encoder, count = run.fit_encoder()
        data = run.read_rows(encoder, count, CATALOG.find(spec.detector.name).labels)
        rows, held_back = draw_samples(data, _ROWS, spec.training.seed)
        digests = [spec.training_digest, *(snapshot.digest for snapshot in plan.snapshots)]
        store = output.child(TUNINGS).child(_digest(digests))
        options = build_options(spec)
        subject = Subject(spec.detector.name, encoder.layout, options, rows, held_back)
        with session(address) as where:
            say(f"trials by Ray Tune: {where}")
            with step("tune", trials) as bar:
                results = run_trials(subject, asked, store, lambda t: bar.advance(1, _line(t)))
        criterion = Judge(encoder.layout, held_back, spec.training.seed).criterion
    return _document(spec, results, criterion)


def render_table(document: dict[str, Any]) -> Table:
    """A table of the trials for the terminal, the best first."""
    table = Table(title=document["criterion"], title_justify="left")
    for name in ("trial", "AUROC", "epochs", "seconds", "options"):
        table.add_column(name, justify="left" if name == "options" else "right")
    for trial in document["trials"]:
        options = json.dumps(trial["options"]) if not trial["note"] else trial["note"]
        auroc = "" if trial["auroc"] is None else f"{trial['auroc']:.4f}"
        seconds = f"{trial['seconds']:.1f}"
        table.add_row(str(trial["number"]), auroc, str(trial["epochs"]), seconds, options)
    return table


def _plan_trials(spec: Spec, count: int) -> list[Trial]:
    name, given = spec.detector.name, spec.detector.options
    if name == AUTO:
        raise Refusal("expected a detector to tune, found auto: name the detector that it chose")
    space = CATALOG.find(name).space()
    if not space:
        tunable = [other for other, kind in CATALOG.items() if kind.space()]
        raise Refusal(f"{name} has no options to tune; detectors that have: {', '.join(tunable)}")
    drawn = [given | draw(space, spec.training.seed, number) for number in range(1, count)]
    # JSON turns tuples into lists, and the options are compared with stored ones.
    return [
        Trial(number, json.loads(json.dumps(options)))
        for number, options in enumerate([given, *drawn])
    ]


def _document(spec: Spec, results: list[Trial], criterion: str) -> dict[str, Any]:
    ranked = sorted(results, key=lambda t: -1.0 if t.auroc is None else t.auroc, reverse=True)
    if not ranked or ranked[0].auroc is None:
        notes = "; ".join(sorted({trial.note for trial in ranked})) or "none ended"
        raise Refusal(f"expected options that can be trained, found none: {notes}")
    best = {"detector": {"name": spec.detector.name, **ranked[0].options}}
    return {
        "detector": spec.detector.name,
        "criterion": criterion,
        "best": ranked[0].options,
        "yaml": yaml.safe_dump(best, sort_keys=False, default_flow_style=None),
        "trials": [asdict(trial) for trial in ranked],
    }


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


def _line(trial: Trial) -> str:
    return trial.note or f"trial {trial.number}: AUROC {trial.auroc:.4f}"
