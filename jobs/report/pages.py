"""Draw the run card and the index of days: one self-contained HTML page each, from plain JSON.

Log fields are hostile input. Three fences stand between them and a reader: characters that draw
nothing become escapes (`jobs/terminal/printable.py`), jinja2 escapes every value, and the page's
Content-Security-Policy runs only our scripts, named by their hashes, and fetches nothing.
"""

import base64
import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from cluster.lake.days import day_order
from jobs.report.charts import choose_hue, draw_charts
from jobs.report.document import (
    Books,
    Card,
    DayEntry,
    Estimate,
    ProfileFacts,
    QualityDocument,
)
from jobs.report.profile import IDLE
from jobs.terminal.printable import printable, printable_document

# Our own messages, such as a gate's list of columns, may be longer than a log field.
_MESSAGE_LIMIT = 4_000
# Bars of the index page: on a phone, a quarter of a year has at least a pixel for each day.
_BARS = 92


def render_card(card: Card) -> str:
    """The run card as one HTML page without outside requests."""
    card = printable_document(card, _MESSAGE_LIMIT)
    figures = draw_charts(card)
    scripts = [_load_plotly(), _load_chart_script()] if figures else []
    return (
        _load_templates()
        .get_template("run_card.html")
        .render(
            card=card,
            figures=figures,
            missing=count_unaccounted(card["books"]),
            scripts=scripts,
            policy=_write_policy(scripts),
            measures=_compare_measures(card),
            parts=_list_profile_parts(card.get("profile")),
        )
    )


def render_index(entries: Sequence[DayEntry]) -> str:
    """The page of all days, newest first, each with a link to its run card."""
    clean: list[DayEntry] = printable_document(list(entries), _MESSAGE_LIMIT)
    for entry, original in zip(clean, entries, strict=True):
        entry["link"] = _keep_below(original["link"])
    newest = sorted(clean, key=lambda e: (day_order(e["day"]), e["when"]), reverse=True)
    last_runs = [next(runs) for _, runs in groupby(newest, key=lambda e: (e["day"], e["watch"]))]
    return (
        _load_templates()
        .get_template("index.html")
        .render(
            entries=newest,
            bars=last_runs[:_BARS][::-1],
            highest=max((e["flagged"] for e in last_runs[:_BARS]), default=0),
            watches=sorted({e["watch"] for e in clean}),
            policy=_write_policy([]),
        )
    )


def count_unaccounted(books: Books) -> int:
    """Rows that were neither filtered, scored nor quarantined: 0 where the books balance."""
    return books["rows"] - books["filtered"] - books["scored"] - books["quarantined"]


class _MeasureLine(NamedTuple):
    """A measure, with its value for the detector and for each baseline."""

    label: str
    hint: str
    cells: list[Estimate | None]
    best: float | None  # of the cells, where there are several


class _StageLine(NamedTuple):
    """A stage of the profile."""

    name: str
    colour: str  # of the page's variables
    opacity: float
    seconds: float
    rate: float | None  # rows a second


class _ProfilePart(NamedTuple):
    """The profile of the driver, or of the actors."""

    name: str
    hint: str
    whole: float  # seconds
    stages: list[_StageLine]
    rows: int  # 0 where stages do not handle rows


def _compare_measures(card: Card) -> list[_MeasureLine]:
    """Compare the quality of the detector and the baselines; nothing without labels."""
    quality = card["quality"]
    if not quality:
        return []
    columns = [quality["detector"], *quality["baselines"].values()]
    chance = f"chance is {_format_number(_share_of_anomalies(columns[0]))}"
    lines: list[tuple[str, str, list[Estimate | None]]] = [
        ("AUROC", "1 is perfect, 0.5 is chance", [one["auroc"] for one in columns]),
        ("AUPRC", chance, [one["auprc"] for one in columns]),
        ("precision", "share of flags that are anomalies", [one["precision"] for one in columns]),
        ("recall", "share of anomalies that are flagged", [one["recall"] for one in columns]),
        ("F1", "of precision and recall", [one["f1"] for one in columns]),
    ]
    for i, at in enumerate(quality["detector"]["at_k"]):
        both = [one["at_k"][i] if i < len(one["at_k"]) else None for one in columns]
        hint = "of the highest scores"
        lines.append(
            (f"precision at {at['k']:,}", hint, [one and one["precision"] for one in both])
        )
        lines.append((f"recall at {at['k']:,}", hint, [one and one["recall"] for one in both]))
    result = []
    for label, hint, cells in lines:
        known = [c["value"] for c in cells if c and c["value"] is not None]
        best = max(known) if len(known) > 1 else None
        result.append(_MeasureLine(label, hint, cells, best))
    return result


def _list_profile_parts(profile: ProfileFacts | None) -> list[_ProfilePart]:
    """A table for the driver, and one for the actors if they did anything."""
    if not profile:
        return []
    threads = f"{profile['threads']:,} {'thread' if profile['threads'] == 1 else 'threads'}"
    parts = [("driver", "", profile["driver"], 0)]
    if profile["actors"]:
        parts.append(("actors", threads, profile["actors"], profile["rows"]))
    return [
        _ProfilePart(
            name,
            hint,
            sum(stages.values()),
            [_describe_stage(stage, seconds, rows) for stage, seconds in stages.items()],
            rows,
        )
        for name, hint, stages, rows in parts
    ]


def _describe_stage(stage: str, seconds: float, rows: int) -> _StageLine:
    colour, opacity = choose_hue(stage)
    rate = rows / seconds if rows and seconds and stage != IDLE else None
    return _StageLine(stage, colour, opacity, seconds, rate)


def _share_of_anomalies(quality: QualityDocument) -> float | None:
    return quality["anomalies"] / quality["rows"] if quality["rows"] else None


# The page's fences.


def _write_policy(scripts: Sequence[str]) -> str:
    """A Content-Security-Policy that allows these scripts, inline styles and nothing else."""
    digests = (hashlib.sha256(s.encode()).digest() for s in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(d).decode()}'" for d in digests) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; "
        "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _keep_below(link: str) -> str:
    """The link, kept below the page's own folder: without scheme, host or `..`."""
    parts = [p for p in link.split("/") if p not in ("", ".", "..")]
    return "./" + "/".join(quote(p, safe="=", errors="replace") for p in parts)


@cache
def _load_plotly() -> Markup:
    return _prepare_script(get_plotlyjs())


@cache
def _load_chart_script() -> Markup:
    return _prepare_script((_TEMPLATES / "charts.js").read_text(encoding="utf-8"))


def _prepare_script(source: str) -> Markup:
    """The source as a browser sees it, so that both compute the same hash."""
    source = source.replace("\r\n", "\n").replace("\r", "\n")
    if "</script" in source.lower():
        raise AssertionError("a script that closes its own element cannot be inlined")
    return Markup(source)  # noqa: S704 - plotly's and our own code, no input in it # nosec B704


_TEMPLATES = Path(__file__).parent / "templates"


@cache
def _load_templates() -> jinja2.Environment:
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "base64": encode_bytes,
        "rows": _format_count,
        "number": _format_number,
        "share": _format_share,
        "size": _format_size,
        "duration": _format_duration,
        "when": _format_time,
        "field": _format_field,
        "width": _format_width,
    }
    pages.filters.update(filters)
    return pages


def encode_bytes(content: bytes) -> str:
    """Base64, the form of bytes in JSON and in the address of an image."""
    return base64.b64encode(content).decode()


# Formats of values. None is a dash everywhere.


def _format_count(count: float | None) -> str:
    return "–" if count is None else f"{count:,.0f}"


def _format_number(value: float | None) -> str:
    if value is None:
        return "–"
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}"
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _format_share(part: float, whole: float) -> str:
    """Two significant digits of a percentage: 0.0047%, 12%."""
    if not whole:
        return "–"
    percent = 100 * part / whole
    return f"{percent:.2g}%" if percent < 10 else f"{percent:.0f}%"


def _format_size(size: float | None) -> str:
    if size is None:
        return "–"
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"


def _format_duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _format_time(time: str | None) -> str:
    """Date and time in UTC, from ISO 8601; any other text stays as it is."""
    if time is None:
        return "–"
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return _format_field(time)
    moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _format_field(value: Any) -> str:
    """A value from a log, of any type, on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _format_number(value)
    return printable(str(value))


def _format_width(value: float, whole: float = 100.0) -> str:
    """A CSS percentage from 0 to 100."""
    return f"{min(max(100 * abs(value) / whole, 0.0), 100.0) if whole else 0.0:.1f}%"
