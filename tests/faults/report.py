"""The trials fault by fault: a table for people, a document for machines."""

from collections.abc import Sequence
from typing import Any

from tests.faults.trial import Outcome

_COLUMNS = (
    "fault",
    "trials",
    "struck",
    "lost",
    "doubled",
    "different",
    "partial reads",
    "hangs",
    "done again",
    "begun twice",
    "failed commands",
    "slowest, s",
    "violated",
)


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown: a line a fault, and one of all."""
    faults = list(dict.fromkeys(o.fault for o in sorted(outcomes, key=lambda o: o.fault)))
    lines = [_row(name, [o for o in outcomes if o.fault == name]) for name in faults]
    lines.append(_row("**all**", outcomes))
    head = ["| " + " | ".join(_COLUMNS) + " |", "|---" + "|--:" * (len(_COLUMNS) - 1) + "|"]
    return "\n".join([*head, *lines])


def _row(name: str, outcomes: Sequence[Outcome]) -> str:
    cells = [
        len(outcomes),
        sum(o.struck for o in outcomes),
        sum(o.lost for o in outcomes),
        sum(o.doubled for o in outcomes),
        sum(o.different for o in outcomes),
        sum(o.partial_reads for o in outcomes),
        sum(o.hang for o in outcomes),
        sum(o.redone for o in outcomes),
        sum(o.repeated for o in outcomes),
        sum(o.failures for o in outcomes),
        f"{max((o.seconds for o in outcomes), default=0):.0f}",
        sum(bool(o.violations) for o in outcomes),
    ]
    return "| " + " | ".join([name, *map(str, cells)]) + " |"


def line(outcome: Outcome) -> str:
    """One trial on one line."""
    return (
        f"{outcome.trial:4} seed {outcome.seed} {outcome.fault:26} {outcome.moment:44} "
        f"commands {outcome.commands} ({outcome.failures} failed) {outcome.seconds:6.1f} s  "
        f"{outcome.verdict}"
    )


def document(outcomes: Sequence[Outcome], seed: int, skipped: dict[str, str]) -> dict[str, Any]:
    return {
        "seed": seed,
        "trials": [o.to_document() for o in outcomes],
        "skipped": skipped,
        "violated": sum(bool(o.violations) for o in outcomes),
    }


def markdown(outcomes: Sequence[Outcome], seed: int, skipped: dict[str, str]) -> str:
    parts = [f"# {len(outcomes)} trials of seed {seed}", table(outcomes)]
    parts += [f"Not played: {name}: {reason}." for name, reason in skipped.items()]
    bad = [o for o in outcomes if o.violations]
    if bad:
        parts += ["## Violations", "\n".join(f"- {line(o).strip()}" for o in bad)]
    return "\n\n".join(parts) + "\n"
