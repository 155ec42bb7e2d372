"""Gates: conditions that a run must meet before it is committed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from cluster.lake.input.snapshot import Snapshot
from jobs.scoring.books import RunBooks
from jobs.spec.sections import Gates


@dataclass(frozen=True)
class Gate:
    """One condition, and whether the run met it."""

    name: str
    passed: bool
    message: str


def judge(
    limits: Gates,
    snapshot: Snapshot,
    books: RunBooks,
    recent: Sequence[int],
    name_leader: Callable[[], str] = lambda: "",
) -> list[Gate]:
    """Judge a run by all gates; `recent` holds the rows of the last committed days.

    `name_leader` is asked what leads the flags if these are too many.
    """
    files = len(_list_bad_files(books))
    counts = books.counts
    rate = counts.quarantined / max(1, counts.rows)
    flag_rate = counts.flagged / max(1, counts.scored)
    low, high = limits.flag_rate
    return [
        Gate(
            "the day has rows",
            snapshot.rows > 0,
            f"{snapshot.rows:,} rows in {len(snapshot.files)} files",
        ),
        Gate(
            "files can be read",
            files <= limits.quarantined_files,
            _describe_files(books, limits.quarantined_files),
        ),
        Gate(
            "few rows are quarantined",
            rate <= limits.quarantine_rate,
            f"{counts.quarantined:,} of {counts.rows:,} rows ({rate:.3%}); "
            f"gates.quarantine_rate allows {limits.quarantine_rate:.3%}{_name_worst(books)}",
        ),
        Gate(
            "every score is a number",
            counts.non_finite == 0,
            f"{counts.non_finite:,} scores are NaN or infinite",
        ),
        Gate("scores differ", _scores_differ(books), _describe_range(books)),
        Gate(
            "the flag rate is in its band",
            low <= flag_rate <= high,
            f"{counts.flagged:,} of {counts.scored:,} scored rows ({flag_rate:.3%}) are flagged; "
            f"gates.flag_rate allows {low:.3%} to {high:.3%}"
            f"{name_leader() if flag_rate > high else ''}",
        ),
        _judge_volume(limits.volume, snapshot, recent),
    ]


def _list_bad_files(books: RunBooks) -> list[str]:
    """Files that cannot be read; a name that is none stops no day, and is a warning."""
    return sorted(books.unreadable_files - {file.key for file in books.snapshot.misnamed})


def _describe_files(books: RunBooks, limit: int) -> str:
    bad = _list_bad_files(books)
    if not bad:
        return "all files were read"
    named = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
    return f"{len(bad)} cannot be read ({named}); gates.quarantined_files allows {limit}"


def _name_worst(books: RunBooks) -> str:
    rules = [rule for rule in books.quarantine() if rule.column]
    if not rules:
        return ""
    return f"; most by column {rules[0].column!r}, rule {rules[0].rule}"


def _scores_differ(books: RunBooks) -> bool:
    # A single score cannot differ from itself.
    return books.counts.scored < 2 or books.scores.minimum < books.scores.maximum


def _describe_range(books: RunBooks) -> str:
    if books.scores.count == 0:
        return "no scores"
    low, high = books.scores.minimum, books.scores.maximum
    if low == high and books.counts.scored > 1:
        return f"all {books.scores.count:,} scores are {low:.6g}: detector or input is broken"
    return f"from {low:.4g} to {high:.4g}"


def _judge_volume(
    band: tuple[float, float] | None, snapshot: Snapshot, recent: Sequence[int]
) -> Gate:
    name = "the volume is usual"
    if band is None or not recent:
        reason = "no band is set" if band is None else "there are no earlier days"
        return Gate(name, True, f"{snapshot.rows:,} rows; {reason}")
    usual = median(recent)
    low, high = band[0] * usual, band[1] * usual
    return Gate(
        name,
        low <= snapshot.rows <= high,
        f"{snapshot.rows:,} rows; the median of the last {len(recent)} days is {usual:,.0f}, and "
        f"gates.volume allows {low:,.0f} to {high:,.0f}",
    )
