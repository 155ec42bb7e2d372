"""How a watch learns, as its spec has it: which rows, and the options of the loop."""

from jobs.spec.spec import Spec
from models.training.options import TrainingOptions


def build_filter(spec: Spec) -> str | None:
    """The filters of input and training, of which both must hold; None where there is none."""
    filters = (spec.input.filter, spec.training.filter)
    return " and ".join(f"({text})" for text in filters if text) or None


def build_options(spec: Spec) -> TrainingOptions:
    """The options of the loop, as the spec has them."""
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
