"""Values as a page shows them. None is a dash everywhere."""

import base64
from datetime import UTC, datetime
from typing import Any

from jobs.terminal.printable import printable


def encode_bytes(content: bytes) -> str:
    """Base64, the form of bytes in JSON and in the address of an image."""
    return base64.b64encode(content).decode()


def format_count(count: float | None) -> str:
    return "–" if count is None else f"{count:,.0f}"


def format_number(value: float | None) -> str:
    if value is None:
        return "–"
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}"
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def format_share(part: float, whole: float) -> str:
    """Two significant digits of a percentage: 0.0047%, 12%."""
    if not whole:
        return "–"
    percent = 100 * part / whole
    return f"{percent:.2g}%" if percent < 10 else f"{percent:.0f}%"


def format_size(size: float | None) -> str:
    if size is None:
        return "–"
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"


def format_duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def format_time(time: str | None) -> str:
    """Date and time in UTC to the last digit, from ISO 8601; any other text stays as it is."""
    if time is None:
        return "–"
    try:
        moment = datetime.fromisoformat(time)
        moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return format_field(time)
    return f"{moment.replace(tzinfo=None).isoformat(' ')} UTC"


def format_field(value: Any) -> str:
    """A value from a log, of any type, on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return format_number(value)
    return printable(str(value))


def format_width(value: float, whole: float = 100.0) -> str:
    """A CSS percentage from 0 to 100."""
    return f"{min(max(100 * abs(value) / whole, 0.0), 100.0) if whole else 0.0:.1f}%"
