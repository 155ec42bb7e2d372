"""The rows that a verb reads: the input's own, or rows derived from them."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from cluster.lake.days import day_order
from cluster.lake.derived.derive import Deriver
from cluster.lake.input.snapshot import Snapshot, take_snapshot
from jobs.output import open_output, open_own_output
from jobs.spec.spec import Spec
from jobs.terminal.console import step, warn

DERIVED = "_derived"


@dataclass(frozen=True)
class DerivationPreview:
    """What must be derived before a day can be read."""

    columns: tuple[str, ...]  # histories and windows
    looks_back_on: tuple[str, ...]  # earlier days
    rows_to_read: int  # 0 if the day is derived
    done: bool  # whether the day is derived


def take_snapshots(spec: Spec, uri: str, days: Sequence[str]) -> tuple[Snapshot, ...]:
    """Take the snapshots of these days of the input at `uri`; all of them have one URI.

    If the spec has a history or a window, the days that are not derived yet are derived first. Pass
    the spec as it was loaded: a history of labels needs the label column, which the newest day may
    lack.
    """
    with _open_deriver(spec, uri) as deriver:
        if deriver is None:
            source = spec.source(uri)  # one version of a table for all days
            return tuple(take_snapshot(source, day) for day in days)
        missing = sorted((d for d in days if not deriver.is_derived(d)), key=day_order)
        if missing:
            open_own_output(spec)
            _warn_of_rejected_files(deriver, missing)
            rows = deriver.input.count_rows_to_read(missing)
            with step(f"derive {_join_days(missing)}", rows) as progress:
                for day in missing:
                    deriver.derive(day, progress.advance)
        return tuple(deriver.take_snapshot(day) for day in days)


def describe_empty(newest: str, empty: Sequence[str]) -> list[str]:
    """A message on the days after `newest`, the newest with rows, if there are any."""
    if not empty:
        return []
    names = f"day {empty[0]} has" if len(empty) == 1 else f"days {empty[0]} to {empty[-1]} have"
    return [f"{names} no rows that can be read; {newest} is the newest day with rows"]


def preview_derivation(spec: Spec, uri: str, day: str) -> DerivationPreview | None:
    """Say what `take_snapshots` would derive for a day; None for a spec that derives nothing.

    Raises `Refusal` if histories and windows cannot look back on the days of the input.
    """
    with _open_deriver(spec, uri) as deriver:
        if deriver is None:
            return None
        done = deriver.is_derived(day)
        return DerivationPreview(
            columns=tuple(deriver.derivation.names),
            looks_back_on=tuple(deriver.input.earlier_days(day)),
            rows_to_read=0 if done else deriver.input.count_rows_to_read([day]),
            done=done,
        )


def _open_deriver(spec: Spec, uri: str) -> AbstractContextManager[Deriver | None]:
    derivation = spec.derivation
    if derivation is None:
        return nullcontext()
    target = open_output(spec).child(DERIVED).uri
    return Deriver(derivation, spec.source(uri), target)


def _warn_of_rejected_files(deriver: Deriver, days: Sequence[str]) -> None:
    """Bad files of earlier days: each was refused in its own night and does not stop this one."""
    earlier = dict.fromkeys(one for day in days for one in deriver.input.earlier_days(day))
    for file in (file for day in earlier for file in deriver.input.snapshot(day).rejected):
        warn("left out of histories and windows", file.message)


def _join_days(days: Sequence[str]) -> str:
    return days[0] if len(days) == 1 else f"{len(days)} days, {days[0]} to {days[-1]}"
