"""Seconds that an operator sets in the environment."""

import os

from models.refusal import Refusal


def read_seconds(variable: str, default: float) -> float:
    """The seconds in an environment variable, above 0."""
    text = os.environ.get(variable, str(default))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise Refusal(f"{variable} is {text!r}: set it to a number of seconds above 0, or unset it")
    return seconds
