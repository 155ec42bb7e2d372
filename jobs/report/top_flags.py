"""The flags that a run card shows: the most severe, a line for each, and the entities with most."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cluster.lake.types.python_values import list_rows
from jobs.report.document import EntityFlags, FlagFacts, FlagLine, Picture, TopFlag
from jobs.terminal.exact_values import list_uuids, restore_uuid, show_exactly, show_moment
from models.columns import Roles

_TOP_FLAGS, _TOP_ENTITIES = 20, 10
# Lines that fit into a page of a megabyte, and that a person may look through.
MOST_LINES = 3_000


class FlagSummary:
    """Sums up flags shard by shard. A day may have millions: it keeps the most severe, and two
    numbers for each entity."""

    def __init__(self, roles: Roles) -> None:
        self.roles = roles
        self._top: pa.Table | None = None
        self._listed: pa.Table | None = None
        self._uuids: tuple[str, ...] = ()
        self._entities: dict[str, pa.Table] = {}

    def add(self, flags: pa.Table) -> None:
        """Add the flags of one shard."""
        self._uuids = list_uuids(flags.schema)
        self._top = _keep_highest(self._top, flags, _TOP_FLAGS)
        plain = flags.select([name for name in flags.column_names if name != "picture"])
        self._listed = _keep_highest(self._listed, plain, MOST_LINES)
        for name in self.roles.entity:
            # Two cards may share their last four digits, so masks cannot be counted.
            if name not in self.roles.sensitive or name in self.roles.keyed:
                self._count(name, flags)

    def _count(self, name: str, flags: pa.Table) -> None:
        ones = pa.repeat(pa.scalar(1, pa.int64()), flags.num_rows)
        new = pa.table({"value": flags[name], "flags": ones, "severity": flags["severity"]})
        known = self._entities.get(name)
        every = new if known is None else pa.concat_tables([known, new])
        sums = every.group_by("value", use_threads=False).aggregate(
            [("flags", "sum"), ("severity", "max")]
        )
        self._entities[name] = sums.rename_columns(
            {"flags_sum": "flags", "severity_max": "severity"}
        )

    def list_top(self) -> list[TopFlag]:
        """The most severe flags. Sensitive values are disguised in the shards already."""
        rows = list_rows(self._top) if self._top is not None else []
        return [
            {
                **self._describe(row),
                "reasons": row["reasons"] or [],
                "picture": _embed(row.get("picture")),
            }
            for row in rows
        ]

    def list_lines(self) -> list[FlagLine]:
        """The `MOST_LINES` most severe flags, each with its first reason alone."""
        rows = list_rows(self._listed) if self._listed is not None else []
        return [
            {**self._describe(row), "reason": next(iter(row["reasons"] or ()), None)}
            for row in rows
        ]

    def _describe(self, row: dict[str, Any]) -> FlagFacts:
        roles = self.roles
        shown = {n: self._show(n, row[n]) for n in roles.flagged}
        return {
            "severity": row["severity"],
            "score": row["score"],
            "time": shown[roles.time] if roles.time else None,
            "id": {n: shown[n] for n in roles.id},
            "entities": {n: shown[n] for n in roles.entity},
            "kept": {n: shown[n] for n in roles.keep},
        }

    def list_entities(self) -> list[EntityFlags]:
        """The entities with most flags, without masked columns (see `add`)."""
        order = [("flags", "descending"), ("severity", "descending")]
        found: list[EntityFlags] = [
            {
                "column": name,
                "value": self._show(name, row["value"]),
                "flags": row["flags"],
                "max_severity": row["severity"],
            }
            for name, table in self._entities.items()
            for row in list_rows(table.sort_by(order)[:_TOP_ENTITIES])
        ]
        return sorted(found, key=lambda e: (-e["flags"], -e["max_severity"]))[:_TOP_ENTITIES]

    def _show(self, name: str, value: Any) -> Any:
        if name == self.roles.time:
            return show_moment(value, self.roles.time_unit)
        return _simplify(restore_uuid(value) if name in self._uuids else value)


def _keep_highest(known: pa.Table | None, flags: pa.Table, most: int) -> pa.Table:
    every = flags if known is None else pa.concat_tables([known, flags])
    order = pc.sort_indices(every, sort_keys=[("score", "descending")])
    return every.take(order[:most])


def _embed(picture: Any) -> Picture | None:
    if picture is None:
        return None
    return {"feature": picture["feature"], "png": picture["png"]}


def _simplify(value: Any) -> Any:
    shown = show_exactly(value)
    return json.dumps(shown) if isinstance(shown, list | dict) else shown
