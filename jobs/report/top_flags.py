"""The flags that a run card shows: the most severe, a line for each, and the entities with most."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from cluster.lake.types.python_values import to_python
from jobs.report.document import EntityFlags, FlagFacts, FlagLine, Picture, Reason, TopFlag
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
        if (table := self._top) is None:
            return []
        pictured = "picture" in table.column_names
        pictures = to_python(table["picture"]) if pictured else [None] * table.num_rows
        reasons = to_python(table["reasons"])
        return [
            {**facts, "reasons": why or [], "picture": _embed(picture)}
            for facts, why, picture in zip(self._describe(table), reasons, pictures, strict=True)
        ]

    def list_lines(self) -> list[FlagLine]:
        """The `MOST_LINES` most severe flags, each with its first reason alone."""
        if (table := self._listed) is None:
            return []
        firsts = _list_firsts(table["reasons"].combine_chunks())
        facts = self._describe(table)
        return [{**one, "reason": first} for one, first in zip(facts, firsts, strict=True)]

    def _describe(self, table: pa.Table) -> list[FlagFacts]:
        """Column by column: a page has thousands of flags."""
        roles = self.roles
        shown = {name: self._show(name, table[name]) for name in roles.flagged}
        columns = (
            table["severity"].to_pylist(),
            table["score"].to_pylist(),
            shown[roles.time] if roles.time else [None] * table.num_rows,
            *(
                _join(names, shown, table.num_rows)
                for names in (roles.id, roles.entity, roles.keep)
            ),
        )
        return [
            {
                "severity": severity,
                "score": score,
                "time": time,
                "id": ids,
                "entities": entities,
                "kept": kept,
            }
            for severity, score, time, ids, entities, kept in zip(*columns, strict=True)
        ]

    def list_entities(self) -> list[EntityFlags]:
        """The entities with most flags, without masked columns (see `add`)."""
        order = [("flags", "descending"), ("severity", "descending")]
        found: list[EntityFlags] = []
        for name, table in self._entities.items():
            most = table.sort_by(order)[:_TOP_ENTITIES]
            values = self._show(name, most["value"])
            for value, row in zip(values, most.drop(["value"]).to_pylist(), strict=True):
                flags, severity = row["flags"], row["severity"]
                found.append(
                    {"column": name, "value": value, "flags": flags, "max_severity": severity}
                )
        return sorted(found, key=lambda e: (-e["flags"], -e["max_severity"]))[:_TOP_ENTITIES]

    def _show(self, name: str, column: pa.ChunkedArray) -> list[Any]:
        values = to_python(column)
        if name == self.roles.time:
            return [show_moment(value, self.roles.time_unit) for value in values]
        if name in self._uuids:
            values = [restore_uuid(value) for value in values]
        elif pa.types.is_string(column.type) or pa.types.is_integer(column.type):
            return values  # as JSON has them
        return [_simplify(value) for value in values]


def _join(
    names: Sequence[str], columns: Mapping[str, list[Any]], rows: int
) -> list[dict[str, Any]]:
    """For each row, the values of these columns by name."""
    if not names:
        return [{} for _ in range(rows)]
    values = zip(*(columns[name] for name in names), strict=True)
    return [dict(zip(names, row, strict=True)) for row in values]


def _list_firsts(reasons: pa.ListArray) -> list[Reason | None]:
    """The first reason of each flag; None for a flag without one."""
    first = pc.list_flatten(pc.list_slice(reasons, 0, 1))
    names = [field.name for field in first.type]
    rows = zip(*(part.to_pylist() for part in first.flatten()), strict=True)
    counts = pc.list_value_length(reasons).to_pylist()
    return [cast(Reason, dict(zip(names, next(rows), strict=True))) if n else None for n in counts]


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
