"""The rows that a job reads: those of the input, or what is derived from them."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from cluster.lake.derived.derive import Deriver
from cluster.lake.input.snapshot import Snapshot, take_snapshot
from cluster.lake.storage.opening import open_store
from jobs.spec.spec import Spec
from jobs.terminal.console import step, warn

DERIVED = "_derived"


def take_snapshots(spec: Spec, uri: str, days: Sequence[str]) -> tuple[Snapshot, ...]:
    """The snapshots of these days of the input at `uri`, as the spec would have them.

    Where it has a history or a window, what is not derived yet is derived first. All of them have
    one URI. The spec is the one that was loaded: a history of labels needs the label column,
    which a night's own rows lack.
    """
    with _deriver(spec, uri) as deriver:
        if deriver is None:
            return tuple(take_snapshot(uri, spec.input.partition, day) for day in days)
        missing = sorted(day for day in days if not deriver.is_derived(day))
        if missing:
            _say_what_is_left_out(deriver, missing)
            with step(f"derive {_named(missing)}", deriver.count_rows_to_read(missing)) as progress:
                for day in missing:
                    deriver.derive(day, progress.advance)
        return tuple(deriver.take_snapshot(day) for day in days)


def preview(spec: Spec, uri: str, day: str) -> dict[str, Any] | None:
    """What `take_snapshots` would do for a day, without doing it; None where nothing is derived.

    Raises `Refusal` where the days of the input cannot be looked back on.
    """
    with _deriver(spec, uri) as deriver:
        if deriver is None:
            return None
        done = deriver.is_derived(day)
        return {
            "columns": list(deriver.derivation.names),
            "looks_back_on": list(deriver.earlier_days(day)),
            "rows_to_read": 0 if done else deriver.count_rows_to_read([day]),
            "done": done,
        }


def _deriver(spec: Spec, uri: str) -> AbstractContextManager[Deriver | None]:
    derivation = spec.derivation
    if derivation is None:
        return nullcontext()
    target = open_store(spec.output.uri).child(DERIVED).uri
    return Deriver(derivation, uri, spec.input.partition, target)


def _say_what_is_left_out(deriver: Deriver, days: Sequence[str]) -> None:
    """Bad files of earlier days: each stopped its own night, and does not stop this one."""
    earlier = dict.fromkeys(one for day in days for one in deriver.earlier_days(day))
    for file in (file for day in earlier for file in deriver.input_snapshot(day).rejected):
        warn("not looked back on", file.message)


def _named(days: Sequence[str]) -> str:
    return days[0] if len(days) == 1 else f"{len(days)} days, {days[0]} to {days[-1]}"
