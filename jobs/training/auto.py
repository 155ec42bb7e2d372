"""`detector: auto` in a training: a sample of the rows, the candidates, the table that says why."""

import ray.data

from cluster.training import dataset
from jobs.spec.spec import Spec
from jobs.terminal.console import say
from models.batch import Batch
from models.detectors.options import check_options
from models.encoding.encoder import Encoder
from models.selection.auto import AUTO, HELD_BACK_ROWS, AutoConfig, CandidateResult, Choice, choose
from models.training.options import TrainingOptions


def choose_detector(
    spec: Spec,
    encoder: Encoder,
    data: dict[str, ray.data.Dataset],
    rows: int,
    training: TrainingOptions,
) -> Choice:
    """Try the candidates in this process, on a sample of `data`, and say how each fared.

    `data` holds labels, NaN where there are none, if the spec has a label column.
    """
    options: AutoConfig = check_options(AutoConfig, AUTO, spec.detector.options)
    learned, held = samples(encoder, data, rows, options.rows, spec.training.seed)
    say("choosing the detector")
    choice = choose(
        encoder.layout,
        learned,
        held,
        options,
        training,
        lambda t: say(f"  {t.candidate}: {_how(t)}"),
    )
    say(f"by {choice.criterion}:")
    for tried in choice.tried:
        if tried.figure is not None:
            say(f"  {tried.candidate}: {tried.figure:.3f}")
    say(f"chose {choice.winner.text}")
    return choice


def samples(
    encoder: Encoder, data: dict[str, ray.data.Dataset], rows: int, most: int, seed: int
) -> tuple[Batch, Batch]:
    """About `most` rows to learn from, of the `rows` there are, and some that are held back."""
    held_back = data["validation"].materialize()
    return (
        dataset.sample(encoder, data["train"], rows, most, seed),
        dataset.sample(encoder, held_back, held_back.count(), HELD_BACK_ROWS, seed),
    )


def _how(tried: CandidateResult) -> str:
    return tried.note or f"trained in {tried.seconds:.1f} s"
