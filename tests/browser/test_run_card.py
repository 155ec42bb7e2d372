"""The pages in a real browser: charts draw, nothing leaves, nothing hostile runs, all fits."""

import itertools
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

import pytest

from jobs.report.pages import render_card, render_index
from tests.jobs.report.sample_card import sample_card, sample_days
from tests.jobs.report.test_pages import HOSTILE, hostile_card

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"
)

# A container has no sandbox to nest in, no GPU, and 64 MB of /dev/shm.
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
_CHARTS = ("scores", "over-time", "training", "stages")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        yield browser
        browser.close()


class Visit:
    """A page opened from disk, with all that it tried to do on the way."""

    def __init__(self, browser: Any, folder: Path, source: str, **context: Any) -> None:
        self.file = folder / "page.html"
        self.file.write_text(source, encoding="utf-8")
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        self.complaints: list[str] = []  # errors and refusals by the content security policy
        self.page = browser.new_context(**context).new_page()
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.on("dialog", self._dismiss)
        self.page.on("console", lambda m: self.complaints.append(m.text))
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.page.goto(self.file.as_uri())
        self.page.wait_for_load_state("load")

    def _dismiss(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def quiet(self) -> bool:
        """Only the file itself was asked for, and nothing was said or refused."""
        return (self.requests, self.dialogs, self.complaints) == ([self.file.as_uri()], [], [])

    def wait_for_charts(self) -> None:
        for chart in _CHARTS:
            self.page.wait_for_selector(f"#{chart} > svg")

    def overflow(self) -> int:
        """Pixels that the page is wider than its window."""
        wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.page.evaluate(wider))

    def is_as_wide_as_its_window(self) -> bool:
        """Whether the page fits a phone, a tablet and a desk."""
        for width in (360, 768, 1280):
            self.page.set_viewport_size({"width": width, "height": 800})
            if self.overflow() > 0:
                return False
        return True


def test_the_charts_draw_under_a_policy_that_lets_nothing_out_and_fit_the_window(
    browser: Any, tmp_path: Path
) -> None:
    visit = Visit(browser, tmp_path, render_card(sample_card()))
    visit.wait_for_charts()
    assert visit.page.locator("#over-time rect").count() > 20  # bars
    assert visit.is_as_wide_as_its_window()
    assert visit.quiet(), visit.complaints


def test_labels_of_charts_can_be_read_on_a_phone(browser: Any, tmp_path: Path) -> None:
    size = {"width": 390, "height": 844}
    visit = Visit(browser, tmp_path, render_card(sample_card()), viewport=size)
    boxes = """name => [...document.querySelectorAll(name)].map(t => t.getBoundingClientRect())
        .filter(b => b.width).map(b => [b.left, b.right, b.height])"""
    for chart in _CHARTS:
        labels = visit.page.evaluate(boxes, f"#{chart} text")
        assert all(left >= 0 and right <= 390 and high > 9 for left, right, high in labels)
        across = sorted(visit.page.evaluate(boxes, f"#{chart} .x:not(.unit)"))
        assert all(one[1] + 4 < other[0] for one, other in itertools.pairwise(across))


def test_a_flag_is_found_by_its_words_and_all_are_there_without_scripts(
    browser: Any, tmp_path: Path
) -> None:
    card = sample_card()
    uid = card["flags"][17]["id"]["uid"]
    visit = Visit(browser, tmp_path, render_card(card))
    rows = visit.page.locator("#every tbody tr:visible")
    assert rows.count() == len(card["flags"])
    visit.page.locator("#find").fill(f"10.12  {uid.upper()}")
    same = [flag for flag in card["flags"] if flag["id"]["uid"] == uid]
    sync_api.expect(rows).to_have_count(len(same))
    assert visit.page.locator("#found").inner_text() == f"{len(same)} found"
    visit.page.locator("#find").fill("")
    sync_api.expect(rows).to_have_count(len(card["flags"]))
    assert visit.quiet(), visit.complaints
    plain = Visit(browser, tmp_path, render_card(card), java_script_enabled=False)
    assert plain.page.locator("#every tbody tr").count() == len(card["flags"])
    assert plain.page.locator("#find").is_hidden()


@pytest.fixture
def evil() -> Iterator[ThreadingHTTPServer]:
    """A server that would love to hear from a page; `heard` lists what did reach it."""

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    heard: list[str] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        server.heard = heard  # type: ignore[attr-defined]
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("fenced", [True, False])
def test_the_policy_stops_a_script_and_an_image_that_got_past_the_escapes(
    fenced: bool, browser: Any, tmp_path: Path, evil: Any
) -> None:
    # The last fence: what if a template forgot to escape? Without the policy, it would hurt.
    image = f"<img src='http://127.0.0.1:{evil.server_port}/x'>"
    smuggled = f"<script>alert(1)</script><img src='x:' onerror='alert(2)'>{image}"
    source = render_card(sample_card()).replace("<header>", f"<header>{smuggled}", 1)
    if not fenced:
        source = source.replace("Content-Security-Policy", "Nothing")
    visit = Visit(browser, tmp_path, source)
    visit.wait_for_charts()
    assert visit.dialogs == ([] if fenced else ["1", "2"])
    assert evil.heard == ([] if fenced else ["/x"])


# Each text in turn everywhere, then the ones that could break the layout in all places at once.
@pytest.mark.parametrize("texts", [HOSTILE, HOSTILE[-3:-2], HOSTILE[4:5]], ids=range(3))
def test_hostile_log_fields_do_nothing_and_keep_the_page_in_shape(
    texts: tuple[str, ...], browser: Any, tmp_path: Path
) -> None:
    size = {"width": 360, "height": 740}
    visit = Visit(browser, tmp_path, render_card(hostile_card(*texts)), viewport=size)
    visit.wait_for_charts()
    assert visit.quiet(), visit.complaints
    assert visit.overflow() <= 0
    for word in ("script", "img:not([src^='data:image/png;base64,'])", "svg", "a"):
        assert visit.page.locator(f"article {word}, #every {word}").count() == 0


def test_the_index_is_not_wider_than_its_window(browser: Any, tmp_path: Path) -> None:
    visit = Visit(browser, tmp_path, render_index(sample_days()))
    assert visit.is_as_wide_as_its_window()
    assert visit.quiet(), visit.complaints


def test_a_dark_page_has_dark_charts_and_prints_in_black_on_white_with_charts_that_fit(
    browser: Any, tmp_path: Path
) -> None:
    visit = Visit(browser, tmp_path, render_card(sample_card()), color_scheme="dark")
    visit.wait_for_charts()
    background = "getComputedStyle(document.body).backgroundColor"
    ticks = "getComputedStyle(document.querySelector('#scores text.x')).fill"
    assert max(channels(visit.page.evaluate(background))) < 40
    dark = visit.page.evaluate(ticks)
    assert min(channels(dark)) > 120
    visit.page.emulate_media(color_scheme="light")  # without a reload
    ticked = visit.page.locator("#scores text.x").first
    sync_api.expect(ticked).not_to_have_css("fill", dark)
    assert min(channels(visit.page.evaluate(background))) > 240
    assert max(channels(visit.page.evaluate(ticks))) < 120
    visit.page.emulate_media(media="print", color_scheme="dark")
    visit.page.set_viewport_size({"width": 680, "height": 960})  # A4 less its margins
    assert visit.overflow() <= 0
    assert channels(visit.page.evaluate(background)) == [255, 255, 255]
    for chart in _CHARTS:
        svg = visit.page.locator(f"#{chart} > svg").bounding_box()
        place = visit.page.locator(f"#{chart}").bounding_box()
        assert svg["width"] <= 680
        assert svg["height"] <= place["height"] + 1
    assert len(visit.page.pdf(prefer_css_page_size=True)) > 20_000


def channels(colour: str) -> list[int]:
    """rgb(1, 2, 3) as numbers."""
    return [int(c) for c in colour.removeprefix("rgb(").removesuffix(")").split(",")]


def test_the_index_links_to_the_cards_beside_it(browser: Any, tmp_path: Path) -> None:
    days = sample_days(3)
    card = tmp_path / days[0]["link"]
    card.parent.mkdir(parents=True)
    card.write_text("<h1>the card</h1>", encoding="utf-8")
    visit = Visit(browser, tmp_path, render_index(days))
    visit.page.locator("tbody a").first.click()
    visit.page.wait_for_selector("text=the card")
    assert unquote(visit.page.url) == unquote(card.as_uri())
