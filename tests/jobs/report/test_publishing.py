"""Cards of a watch hang together, whichever runs write at once."""

import re
from pathlib import Path
from threading import Thread
from typing import Any

from cluster.lake.storage.local import LocalStore
from cluster.lake.storage.store import MOST_BYTES
from jobs.report.document import parse_card, parse_day_entry
from jobs.report.pages import render_card
from jobs.report.publishing import publish
from tests.jobs.report.sample_card import sample_card, sample_days

DAYS = tuple(f"2026-11-{day:02d}" for day in range(8, 13))


def write(reports: LocalStore, day: str, flagged: int = 1) -> None:
    card: Any = sample_card()
    card["run"]["day"] = day
    card["books"]["flagged"] = flagged
    card["flags"] = card["flags"][:1]
    card["top_flags"] = card["top_flags"][:1]  # with its picture
    entry = sample_days(1)[0] | {"day": day, "link": f"day={day}/run_card.html", "flagged": flagged}
    publish(reports, card, entry)


def links(folder: Path, day: str) -> list[str]:
    page = (folder / f"day={day}" / "run_card.html").read_text()
    (nav,) = re.findall(r"<nav.*?</nav>", page, re.S)
    return [
        Path(link).parent.name.removeprefix("day=") for link in re.findall(r'href="([^"]+)"', nav)
    ][1:]


def hang_together(folder: Path, days: tuple[str, ...] = DAYS) -> bool:
    page = (folder / "index.html").read_text()
    listed = re.findall(r'<th class="day"><a href="\./day=([^/]+)/', page)
    beside = [[*days[max(0, i - 1) : i], *days[i + 1 : i + 2]] for i in range(len(days))]
    return listed == [*reversed(days)] and [links(folder, day) for day in days] == beside


def test_cards_link_to_the_days_beside_them_in_any_order_of_writing(tmp_path: Path) -> None:
    reports = LocalStore(tmp_path)
    for day in (DAYS[3], DAYS[0], DAYS[4], DAYS[1], DAYS[2]):
        write(reports, day)
    assert hang_together(tmp_path)
    assert "data:image/png;base64," in (tmp_path / f"day={DAYS[0]}/run_card.html").read_text()


class Counted(LocalStore):
    """A store that notes what is read."""

    def read(self, key: str, most: int = MOST_BYTES) -> bytes:
        self.keys.append(key)
        return super().read(key, most)

    def __init__(self, anchor: Path) -> None:
        super().__init__(anchor)
        self.keys: list[str] = []


def test_an_entry_is_read_once_and_again_where_another_run_has_changed_it(tmp_path: Path) -> None:
    reports = Counted(tmp_path)
    for day in DAYS:
        write(reports, day)
    entries = [key for key in reports.keys if key.endswith("entry.json")]
    assert sorted(entries) == [f"day={day}/entry.json" for day in DAYS]
    write(LocalStore(tmp_path), DAYS[1], flagged=77)
    write(reports, DAYS[4])
    assert "77 flagged" in (tmp_path / "index.html").read_text()


class Interrupted(LocalStore):
    """A store where another run publishes a day just before this one writes a page."""

    def put(self, key: str, data: bytes) -> None:
        if key.endswith("index.html") and self.other:
            other, self.other = self.other, None
            write(LocalStore(Path(self.uri)), other, flagged=77)
        super().put(key, data)

    other: str | None = None


def test_a_run_that_ends_while_another_writes_its_pages_is_not_lost(tmp_path: Path) -> None:
    for day in DAYS[:1]:
        write(LocalStore(tmp_path), day)
    late = Interrupted(tmp_path)
    late.other = DAYS[2]
    write(late, DAYS[1])
    assert hang_together(tmp_path, DAYS[:3])
    late.other = DAYS[0]  # the neighbour is scored again, with other flags
    write(late, DAYS[1])
    assert hang_together(tmp_path, DAYS[:3])
    assert "77 flags in" in (tmp_path / f"day={DAYS[0]}/run_card.html").read_text()


def test_runs_that_end_at_once_lose_no_day(tmp_path: Path) -> None:
    runs = [Thread(target=write, args=(LocalStore(tmp_path), day)) for day in DAYS]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert hang_together(tmp_path)


def test_a_neighbour_whose_document_cannot_be_read_stops_nobody(tmp_path: Path) -> None:
    reports = LocalStore(tmp_path)
    write(reports, DAYS[0])
    (tmp_path / f"day={DAYS[0]}/run_card.json").write_text('{"run": 1}')
    write(reports, DAYS[1])
    assert hang_together(tmp_path, DAYS[:2])
    (tmp_path / f"day={DAYS[0]}/run_card.html").unlink()
    write(reports, DAYS[1])  # it cannot be drawn, and is left
    assert links(tmp_path, DAYS[1]) == [DAYS[0]]


def test_links_are_all_that_changes_on_the_page_of_a_neighbour(tmp_path: Path) -> None:
    reports = LocalStore(tmp_path)
    page = tmp_path / f"day={DAYS[0]}/run_card.html"
    write(reports, DAYS[0])
    parts = re.split(r"<nav.*?</nav>", page.read_text(), flags=re.S)
    write(reports, DAYS[1])
    assert re.split(r"<nav.*?</nav>", page.read_text(), flags=re.S) == parts
    card = parse_card((tmp_path / f"day={DAYS[0]}/run_card.json").read_bytes(), "card")
    after = parse_day_entry((tmp_path / f"day={DAYS[1]}/entry.json").read_bytes(), "entry")
    assert page.read_text() == render_card(card, None, after)
