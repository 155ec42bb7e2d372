"""Values of rows for JSON and pages, without loss: identity is shown as it came."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from math import isfinite
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa

from models.columns import TimeUnit
from models.decoding.times import decode_times


def show_exactly(value: Any) -> Any:
    """The value as JSON has it. A whole number is an integer of any length; a decimal fraction is
    text, since readers of JSON round it. Bytes are hexadecimal; NaN and infinity are null.

    >>> show_exactly([Decimal("12345678901234567890"), Decimal("1.50"), b"\\x01"])
    [12345678901234567890, '1.50', '01']
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if isfinite(value) else None
        case Decimal():
            return str(value) if value.as_tuple().exponent else int(value)
        case bytes():
            return value.hex()
        case dict():
            return {str(key): show_exactly(one) for key, one in value.items()}
        case np.ndarray() | list() | tuple():
            return [show_exactly(one) for one in value]
        case np.generic():
            return show_exactly(value.item())
    if value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, datetime):
        return format_time(value)
    return value.isoformat() if isinstance(value, date | time) else str(value)


def format_time(moment: datetime) -> str:
    """ISO 8601 in UTC, with the digits below a second that there are. A moment without a zone is
    taken as UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).isoformat()


def show_moment(value: Any, unit: TimeUnit | None) -> Any:
    """A time as `show_exactly`; a number since 1970 with its moment before it."""
    shown = show_exactly(value)
    if unit is None or shown is None:
        return shown
    (moment,) = decode_times(pa.array([value]), unit).instants.to_pylist()
    return shown if moment is None else f"{format_time(moment)} ({shown})"


def list_uuids(schema: pa.Schema) -> tuple[str, ...]:
    """Columns of bytes that are UUIDs (see `cluster.lake.output.schemas`)."""
    return tuple(f.name for f in schema if (f.metadata or {}).get(b"type") == b"uuid")


def restore_uuid(value: bytes | None) -> UUID | None:
    return None if value is None else UUID(bytes=value)
