"""`detector: auto` in a training: a sample of the rows, the candidates, the table that says why."""

import dataclasses

import ray.data

from cluster import preparing
from jobs.console import say
from jobs.spec import Spec
from models import catalog
from models.choosing import AUTO, AutoConfig, Choice, Tried, choose
from models.encoder import Encoder
from models.learning import TrainingOptions

# Held-back rows that candidates are ranked by: enough for the second digit of an AUROC.
_HELD_BACK = 5_000


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
    seed = spec.training.seed
    options: AutoConfig = catalog.checked(AutoConfig, AUTO, spec.detector.options)
    data["validation"] = data["validation"].materialize()
    learned = preparing.sample(encoder, data["train"], rows, options.rows, seed)
    held = preparing.sample(
        encoder, data["validation"], data["validation"].count(), _HELD_BACK, seed
    )
    briefly = dataclasses.replace(training, epochs=min(training.epochs, options.epochs))
    say("choosing the detector")
    choice = choose(encoder.layout, learned, held, options, briefly, lambda t: say(_line(t)))
    say(f"chose {choice.winner.text} by {choice.criterion}")
    return choice


def _line(tried: Tried) -> str:
    if tried.auroc is None:
        return f"{tried.candidate}: {tried.note}"
    return f"{tried.candidate}: {tried.auroc:.3f} in {tried.seconds:.1f} s"
