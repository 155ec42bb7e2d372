"""Names in messages: the allowed ones in a line, and the one that a misspelt name was meant for."""

from collections.abc import Iterable

from rapidfuzz import fuzz, process

LEAST_SIMILAR = 60  # of 100: "dst" and "dst_ip" have 67, "ts" and "dst_port" 40
MOST_NAMES = 40


def suggest(name: str, names: Iterable[str]) -> str:
    """The end of a message about an unknown name; empty if no allowed name is similar.

    >>> suggest("durration", ["duration", "port"])
    "; did you mean 'duration'?"
    >>> suggest("x", ["duration", "port"])
    ''
    """
    best = process.extractOne(
        name, list(names), scorer=fuzz.ratio, processor=str.lower, score_cutoff=LEAST_SIMILAR
    )
    return f"; did you mean {best[0]!r}?" if best else ""


def join_names(names: Iterable[str], most: int = MOST_NAMES) -> str:
    """Names separated by commas, cut after `most`.

    >>> join_names(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
