"""Which columns a spec derives from other rows. Every value here is part of a digest."""

from dataclasses import dataclass

from cluster.lake.derived.history import DAY, DerivedColumn, History, list_columns
from cluster.lake.derived.windows import SHORT, WINDOW, Window
from models.columns import TimeUnit


@dataclass(frozen=True)
class Derivation:
    """The columns that are derived, and the input's columns that derived rows carry over."""

    columns: tuple[str, ...]  # carried over, where a day has them
    time: str
    label: str | None = None
    normal: tuple[str | int, ...] = ()  # see `Roles`
    filter: str | None = None  # rows that do not pass are carried over, but are in no history
    also: str | None = None  # a second filter, whose columns are carried over where a day has them
    history: tuple[History, ...] = ()
    window: Window | None = None
    time_unit: TimeUnit | None = None  # where the time is a number since 1970
    exact: tuple[str, ...] = ()  # columns whose values may not be rounded

    @property
    def derived(self) -> tuple[DerivedColumn, ...]:
        """The columns that histories add."""
        return list_columns(self.history)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all derived columns, in order."""
        return (*(c.name for c in self.derived), *((WINDOW, SHORT) if self.window else ()))

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns that every day must have, with one type."""
        window = self.window.columns if self.window else ()
        history = (name for h in self.history for name in (h.entity, h.of, h.distinct) if name)
        return tuple(dict.fromkeys((self.time, *history, *window)))

    @property
    def numbers(self) -> frozenset[str]:
        """Columns that only numbers are made of."""
        channels = self.window.channels if self.window else ()
        others = {name for h in self.history for name in (h.entity, h.distinct)}
        return frozenset({h.of for h in self.history if h.of} | set(channels)) - others

    @property
    def history_days(self) -> int:
        """Days before its own that a row's history may reach."""
        return max((-(-h.reach // DAY) for h in self.history), default=0)

    @property
    def window_days(self) -> int:
        """Days before its own that a row's window may reach."""
        return -(-self.window.reach // DAY) if self.window else 0
