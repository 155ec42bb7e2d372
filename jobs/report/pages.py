"""Draw the run card and the index of days: one self-contained HTML page each, from plain JSON.

Log fields are hostile input. Three fences stand between them and a reader: characters that draw
nothing become escapes (`jobs/terminal/printable.py`), every value is escaped, and the page's
Content-Security-Policy runs only our scripts, named by their hashes, and fetches nothing.
"""

import base64
import hashlib
import html
import re
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from cluster.lake.days import day_order
from jobs.report import charts, formats
from jobs.report.document import (
    Books,
    Card,
    DayEntry,
    Estimate,
    FlagLine,
    ProfileFacts,
    QualityDocument,
)
from jobs.report.profile import IDLE
from jobs.terminal.printable import printable, printable_document

# Our own messages, such as a gate's list of columns, may be longer than a log field.
_MESSAGE_LIMIT = 4_000
# Bytes of the table of flags: what leaves a card without pictures below a megabyte.
_ROOM = 750_000
_ROLES: tuple[Literal["entities", "id", "kept"], ...] = ("entities", "id", "kept")
# What `beside_days.html` draws. It stands before any value of a log, and those are escaped.
_LINKS = re.compile(r'<nav class="beside-days".*?</nav>', re.DOTALL)
# Bars of the index page: on a phone, a quarter of a year has at least a pixel for each day.
_BARS = 92


def render_card(card: Card, before: DayEntry | None = None, after: DayEntry | None = None) -> str:
    """The run card as one HTML page without outside requests, with links to the cards of the days
    before and after and to the index above its folder."""
    columns = _list_columns(card["flags"])
    lines = _fit_lines(card["flags"], columns)
    card = printable_document({**card, "flags": card["flags"][:1]}, _MESSAGE_LIMIT)
    scripts = [_load_search()] if lines else []
    return (
        _load_templates()
        .get_template("run_card.html")
        .render(
            card=card,
            beside=Markup(_draw_links(before, after)),  # noqa: S704 - escaped already # nosec B704
            charts=charts.draw_charts(card),
            box=charts.BOX,
            columns=columns,
            lines=lines,
            missing=count_unaccounted(card["books"]),
            scripts=scripts,
            policy=_write_policy(scripts),
            measures=_compare_measures(card),
            parts=_list_profile_parts(card.get("profile")),
        )
    )


def relink(page: str, before: DayEntry | None, after: DayEntry | None) -> str:
    """A page of `render_card` with other links to the days beside it. Drawing a card of 3,000 flags
    anew takes a hundred times as long."""
    return _LINKS.sub(lambda _: _draw_links(before, after), page, count=1)


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


class _Column(NamedTuple):
    """A column of the table of flags."""

    role: Literal["entities", "id", "kept"]
    name: str


class _DayLink(NamedTuple):
    """A day beside the one of a card."""

    day: str
    link: str


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


def _draw_links(before: DayEntry | None, after: DayEntry | None) -> str:
    template = _load_templates().get_template("beside_days.html")
    return template.render(before=_link_day(before), after=_link_day(after))


def _link_day(entry: DayEntry | None) -> _DayLink | None:
    """The day with the link to its card from the folder of another."""
    if entry is None:
        return None
    return _DayLink(printable(entry["day"]), "." + _keep_below(entry["link"]))


def _list_columns(flags: Sequence[FlagLine]) -> list[_Column]:
    """Each carried column once, whatever roles it has."""
    found: dict[str, _Column] = {}
    for role in _ROLES if flags else ():
        for name in flags[0][role]:
            found.setdefault(name, _Column(role, name))
    return list(found.values())


def _fit_lines(flags: Sequence[FlagLine], columns: Sequence[_Column]) -> list[Markup]:
    """Rows of the table of flags, as many as there is room for.

    Drawn without a template, which takes twice the time: there are thousands.
    """
    lines, room = [], _ROOM
    for flag in flags:
        line = _draw_line(flag, columns)
        room -= len(line.encode())
        if room < 0:
            break
        lines.append(Markup(line))  # noqa: S704 - its values are escaped # nosec B704
    return lines


def _draw_line(flag: FlagLine, columns: Sequence[_Column]) -> str:
    """One row of the table of flags, without the end tags that HTML does not need."""
    cells = [f'<tr><td class="n">{flag["severity"]:.1f}']
    cells += [f"<td>{_escape(flag[c.role].get(c.name))}" for c in columns if c.role == "entities"]
    cells.append('<td class="why">')
    if reason := flag["reason"]:
        cells.append(f"<b>{_escape_again(reason['feature'])}</b> {_escape(reason['observed'])}")
        if reason["usual"]:
            cells.append(f"<small>usual: {_escape_again(reason['usual'])}</small>")
    if flag["time"] is not None:
        time = formats.format_time(flag["time"]).replace(" UTC", "")
        cells.append(f'<td class="t">{html.escape(time)}')
    cells += [f"<td>{_escape(flag[c.role].get(c.name))}" for c in columns if c.role != "entities"]
    return "".join(cells)


def _escape(value: Any) -> str:
    return html.escape(formats.format_field(value))


@lru_cache(maxsize=4096)
def _escape_again(text: str) -> str:
    """`_escape` of a text that many flags share: a table is drawn in two thirds of the time."""
    return _escape(text)


def _compare_measures(card: Card) -> list[_MeasureLine]:
    """Compare the quality of the detector and the baselines; nothing without labels."""
    quality = card["quality"]
    if not quality:
        return []
    columns = [quality["detector"], *quality["baselines"].values()]
    chance = f"chance is {formats.format_number(_share_of_anomalies(columns[0]))}"
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
    colour, opacity = charts.choose_hue(stage)
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
def _load_search() -> Markup:
    """The script that searches the table of flags; it has no input in it."""
    source = (_TEMPLATES / "search.js").read_text(encoding="utf-8")
    return Markup(source)  # noqa: S704 - our own code # nosec B704


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
        "base64": formats.encode_bytes,
        "rows": formats.format_count,
        "number": formats.format_number,
        "share": formats.format_share,
        "size": formats.format_size,
        "duration": formats.format_duration,
        "when": formats.format_time,
        "field": formats.format_field,
        "width": formats.format_width,
    }
    pages.filters.update(filters)
    return pages
