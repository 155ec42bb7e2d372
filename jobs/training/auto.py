"""`detector: auto` in a training: choose a detector on a sample of the rows."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from cluster.training.dataset import TrainingData
from jobs.spec.spec import Spec
from jobs.terminal.console import Step, say, step
from models.batch import Batch
from models.detectors.options import check_options
from models.selection.auto import AUTO, HELD_BACK_ROWS, AutoConfig, CandidateResult, Choice, choose
from models.training.options import TrainingOptions


def choose_detector(spec: Spec, data: TrainingData, training: TrainingOptions) -> Choice:
    """Try the candidates in this process on a sample of `data`, and show how each does.

    `data` has labels, NaN where unknown, if the spec has a label column.
    """
    options: AutoConfig = check_options(AutoConfig, AUTO, spec.detector.options)
    rows, held_back = draw_samples(data, options.rows, spec.training.seed)
    with ExitStack() as shown:
        bars: list[Step] = []

        def show(tried: Sequence[CandidateResult], of: int) -> None:
            if not bars:
                bars.append(shown.enter_context(step("choose the detector", of)))
            for last in tried[-1:]:
                bars[0].advance(1, f"{last.candidate}: {_how(last)}")

        choice = choose(data.encoder.layout, rows, held_back, options, training, show)
    say(f"by {choice.criterion}:")
    for tried in choice.tried:
        if tried.figure is not None:
            say(f"  {tried.candidate}: {tried.figure:.3f}")
    say(f"chose {choice.winner.text}")
    return choice


def draw_samples(data: TrainingData, most: int, seed: int) -> tuple[Batch, Batch]:
    """About `most` of the training rows, and a sample of the held-back rows."""
    data = replace(data, held_back=data.held_back.keep())
    return data.sample_train(most, seed), data.sample_held_back(HELD_BACK_ROWS, seed)


def _how(tried: CandidateResult) -> str:
    return tried.note or f"trained in {tried.seconds:.1f} s"
