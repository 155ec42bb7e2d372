"""From a spec: which rows to train on, and the options of the training loop."""

from jobs.spec.spec import Spec
from models.training.options import TrainingOptions


def build_filter(spec: Spec) -> str | None:
    """A filter for rows that pass the filters of input and training; None if there is neither."""
    filters = (spec.input_filter, spec.training_filter)
    return " and ".join(f"({text})" for text in filters if text) or None


def build_options(spec: Spec) -> TrainingOptions:
    """The options of the training loop."""
    given = spec.training
    return TrainingOptions(
        epochs=given.epochs,
        batch_rows=given.batch_rows,
        learning_rate=given.learning_rate,
        weight_decay=given.weight_decay,
        warmup=given.warmup,
        patience=given.patience,
        clip_gradient=given.clip_gradient or float("inf"),
        trim=given.trim,
        accumulate=given.accumulate,
        seed=given.seed,
    )
