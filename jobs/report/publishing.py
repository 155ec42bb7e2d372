"""Put a run card among the cards of its watch, each linked to the days beside it and to the index.

Every page can be made again from what lies in the folder.
"""

import json
from collections.abc import Mapping
from typing import Any

import structlog

from cluster.lake.days import day_order
from cluster.lake.output.shard import day_folder
from cluster.lake.storage.store import Object, Store
from jobs.report.document import Card, DayEntry, parse_card, parse_day_entry
from jobs.report.formats import encode_bytes
from jobs.report.pages import relink, render_card, render_index
from models.refusal import Refusal

PAGE, INDEX = "run_card.html", "index.html"
_DOCUMENT, _ENTRY = "run_card.json", "entry.json"
_read: dict[tuple[str, Object], DayEntry] = {}  # by the URI of the reports and the object


def publish(reports: Store, card: Card, entry: DayEntry) -> str:
    """Write the card and its entry, the index, and the links of the days beside it; returns the
    URI of the page."""
    folder = day_folder(entry["day"])
    reports.put(f"{folder}/{_DOCUMENT}", _encode(card))
    reports.put(f"{folder}/{PAGE}", render_card(card).encode())
    reports.put(f"{folder}/{_ENTRY}", _encode(entry))
    _link(reports, entry["day"])
    return f"{reports.uri}/{folder}/{PAGE}"


def _link(reports: Store, day: str) -> None:
    """Write the index and the links of the pages around this day from the entries that are there.

    Another run may put its entry after this one looked, and its page before this one writes. So the
    entries are listed again, until none came while the pages were written. A page that another run
    may have written meanwhile is drawn anew from its document.
    """
    seen: list[Object] = []
    while (found := _list_entries(reports)) != seen:
        write_page = _draw_page if seen else _link_page
        seen = found
        entries = [_read_entry(reports, one) for one in found]
        entries.sort(key=lambda entry: day_order(entry["day"]))
        days = [entry["day"] for entry in entries]
        place = days.index(day)
        for i in range(max(place - 1, 0), min(place + 2, len(days))):
            before = entries[i - 1] if i else None
            after = entries[i + 1] if i + 1 < len(days) else None
            write_page(reports, days[i], before, after)
        reports.put(INDEX, render_index(entries).encode())


def _link_page(reports: Store, day: str, before: DayEntry | None, after: DayEntry | None) -> None:
    """Link the page of a day; one that is not there is drawn."""
    key = f"{day_folder(day)}/{PAGE}"
    try:
        page = reports.read(key).decode()
    except Refusal:
        _draw_page(reports, day, before, after)
        return
    reports.put(key, relink(page, before, after).encode())


def _draw_page(reports: Store, day: str, before: DayEntry | None, after: DayEntry | None) -> None:
    """Draw the page of a day from its document. One that cannot be read keeps its page."""
    key = f"{day_folder(day)}/{_DOCUMENT}"
    try:
        card = parse_card(reports.read(key), f"{reports.uri}/{key}")
    except Refusal as refusal:
        structlog.get_logger().warning("card_not_linked", day=day, reason=str(refusal))
        return
    reports.put(f"{day_folder(day)}/{PAGE}", render_card(card, before, after).encode())


def _list_entries(reports: Store) -> list[Object]:
    return [found for found in reports.list() if found.key.endswith(f"/{_ENTRY}")]


def _read_entry(reports: Store, found: Object) -> DayEntry:
    """The entry of a day. What this process has read, or written, is not read again: a backfill
    looks at all entries after each day."""
    place = reports.uri, found
    if place not in _read:
        _read[place] = parse_day_entry(reports.read(found.key), f"{reports.uri}/{found.key}")
    return _read[place]


def _encode(document: Mapping[str, Any]) -> bytes:
    """JSON in ASCII, a line for each part: what a terminal would obey or not draw is an escape."""
    parts = (
        f"{json.dumps(name)}: {json.dumps(part, allow_nan=False, default=encode_bytes)}"
        for name, part in document.items()
    )
    return ("{\n" + ",\n".join(parts) + "\n}\n").replace("\x7f", "\\u007f").encode()
