"""What a fault is, and the table of them, which each file of faults adds its own to."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.trial import Play


@dataclass(frozen=True)
class Fault:
    """An entry of the table of faults."""

    name: str
    what: str
    play: Play
    s3: bool = False  # played on S3, through the proxy; else on a local disk
    slow: bool = False  # takes more than a minute
    missing: Callable[[], str | None] = lambda: None  # why it cannot be played here
    on_ray: bool = False  # it strikes what only Ray has: actors, raylets


FAULTS: dict[str, Fault] = {}


def fault(
    name: str,
    what: str,
    *,
    s3: bool = False,
    slow: bool = False,
    missing: Callable[[], str | None] = lambda: None,
    on_ray: bool = False,
) -> Callable[[Play], Play]:
    def register(play: Play) -> Play:
        FAULTS[name] = Fault(name, what, play, s3, slow, missing, on_ray)
        return play

    return register
