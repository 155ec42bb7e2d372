"""What a spec derives from other rows: plain values, all of them part of a digest."""

from dataclasses import dataclass

from cluster.lake.derived.history import DAY, DerivedColumn, History, list_columns
from cluster.lake.derived.windows import SHORT, WINDOW, Window


@dataclass(frozen=True)
class Derivation:
    """The columns that are derived, and those that the derived rows carry over."""

    columns: tuple[str, ...]  # of the input that the derived rows carry, where a day has them
    time: str
    label: str | None = None
    filter: str | None = None  # rows that are not in it are carried, and in nobody's history
    also: str | None = None  # a filter whose columns are carried, if they are there
    history: tuple[History, ...] = ()
    window: Window | None = None

    @property
    def derived(self) -> tuple[DerivedColumn, ...]:
        """The columns of the histories."""
        return list_columns(self.history)

    @property
    def names(self) -> tuple[str, ...]:
        """All columns that are derived, in their order."""
        return (*(c.name for c in self.derived), *((WINDOW, SHORT) if self.window else ()))

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns that every day must have, in one type."""
        window = (self.window.entity, *self.window.channels) if self.window else ()
        history = (name for h in self.history for name in (h.entity, h.of, h.distinct) if name)
        return tuple(dict.fromkeys((self.time, *history, *window)))

    @property
    def history_days(self) -> int:
        """Days before a row's own that its history may see."""
        return max((-(-h.reach // DAY) for h in self.history), default=0)

    @property
    def window_days(self) -> int:
        """Days before a row's own that its window may see."""
        return -(-self.window.reach // DAY) if self.window else 0
