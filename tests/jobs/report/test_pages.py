"""The run card says what its document says, whole and safe, with as much or little as there is."""

import base64
import html
import io
import json
import re
from itertools import cycle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jobs.report.document import parse_card
from jobs.report.formats import encode_bytes, format_time
from jobs.report.pages import count_unaccounted, render_card, render_index
from jobs.report.top_flags import MOST_LINES
from jobs.terminal.printable import printable, printable_document
from tests.jobs.report.sample_card import sample_card, sample_days

# What attackers put in log fields; each in every place of the document that a log can reach.
HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "'\"><svg/onload=alert(3)>",
    "{{ 7 * 191 }}{% raw %}",
    "admin\u202egnp.exe\u2066\u200b\x1b[2J\x00\r\n",
    '=HYPERLINK("http://evil.example","x")',
    "javascript:alert(4)",
    "a" * 1_000_000,
    "e" + "\u0301" * 400,
    "\ud800 lone",
)


def hostile_card(*texts: str) -> Any:
    """The sample with every field that a log can reach set to one of `texts`, in turn."""
    card: Any = sample_card()
    turn = cycle(texts)
    card["run"].update(watch=next(turn), day=next(turn))
    card["warnings"] = [next(turn)]
    card["gates"].append({"name": "schema", "passed": False, "message": next(turn)})
    for flag in card["top_flags"]:
        for role in ("id", "entities", "kept"):
            flag[role] = {next(turn): next(turn)}
        flag["time"] = next(turn)
        for reason in flag["reasons"]:
            reason.update(feature=next(turn), observed=next(turn), expected=next(turn))
        if flag["picture"]:
            flag["picture"]["feature"] = next(turn)
    for line in card["flags"]:
        for role in ("id", "entities", "kept"):
            line[role] = {next(turn): next(turn)}
        line["time"] = next(turn)
        line["reason"].update(feature=next(turn), observed=next(turn), usual=next(turn))
    for entity in card["entities"]:
        entity.update(column=next(turn), value=next(turn))
    for entry in card["quarantine"]:
        entry.update(column=next(turn), file=next(turn), rule=next(turn))
    card["quality"]["detector"]["kinds"][0]["kind"] = next(turn)
    card["bundle"].update(options={next(turn): next(turn)}, detector=next(turn))
    return card


def words(page: str) -> str:
    """What a reader sees of a page, without its styles, scripts and tags."""
    page = re.sub(r"(?s)<(style|script)\b.*?</\1>", "", page)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_the_card_answers_its_questions() -> None:
    text = words(render_card(sample_card()))
    for question in (
        "What was flagged",
        "Why",
        "What was read",
        "Did the books balance",
        "How well does it find known anomalies",
        "How it was trained",
        "Where the time went",
        "Which detector",
    ):
        assert question in text
    assert "Committed. 144 flags in 1,202,265 rows; 37 quarantined. The books balance." in text
    assert "1,840,221,003 where 12,400 was expected" in text
    assert "rows 118; 119; 5,210; 48,112; 48,113 …" in text
    assert "1 file" not in text
    assert "9f2c11d47ab05e36" in text


def test_the_page_names_no_other_host() -> None:
    page = render_card(sample_card())
    assert "http" not in page.replace("http-equiv", "")
    assert "default-src 'none'; script-src 'sha256-" in html.unescape(page)
    assert "unsafe-eval" not in page


@pytest.mark.parametrize("width", [1, 12])
def test_a_card_of_thousands_of_flags_is_below_a_megabyte(width: int) -> None:
    card: Any = sample_card()
    for flag in card["top_flags"]:
        flag["picture"] = None
    line = card["flags"][0]
    kept = {f"column_{i}": f"a value of some length {i}" for i in range(width)}
    card["flags"] = [line | {"id": {"uid": f"row-{i}"}, "kept": kept} for i in range(MOST_LINES)]
    card["books"]["flagged"] = MOST_LINES
    page = render_card(card)
    assert len(page.encode()) < 1_000_000
    shown = re.findall(r"<td>row-(\d+)", page)
    assert [int(i) for i in shown] == list(range(len(shown)))  # the most severe of them
    if width == 1:
        assert "All 3,000, the most severe first" in words(page)
    else:
        assert 1_000 < len(shown) < MOST_LINES
        assert f"The {len(shown):,} most severe of 3,000" in words(page)


def test_the_table_of_flags_has_each_column_once_and_what_is_usual() -> None:
    card: Any = sample_card()
    flag = card["flags"][0]
    flag["kept"] = flag["entities"] | {"proto": "tcp", "note": None}
    card["flags"], card["books"]["flagged"] = [flag], 1
    page = render_card(card)
    head = re.findall(r"<th(?: [^>]*)?>(.*?)</th>", page[page.index('id="every"') :])
    assert head[:7] == ["severity", "host_src", "host_dst", "reason", "time, UTC", "uid", "proto"]
    assert "bytes_out 1,840,221,003 usual: median 60, 1 to 7,000" in words(page)


@pytest.mark.parametrize(
    ("time", "shown"),
    [
        ("2026-11-22T04:12:13+01:00", "2026-11-22 03:12:13 UTC"),
        ("2026-11-22T03:12:13.000250", "2026-11-22 03:12:13.000250 UTC"),
        ("0001-01-01T00:00:00+00:00", "0001-01-01 00:00:00 UTC"),
        ("0001-01-01T00:00:00+01:00", "0001-01-01T00:00:00+01:00"),
        ("yesterday", "yesterday"),
        (None, "–"),
    ],
)
def test_a_time_is_shown_to_its_last_digit(time: str | None, shown: str) -> None:
    assert format_time(time) == shown


def test_a_card_links_to_the_days_beside_it_and_to_the_index() -> None:
    before, after = sample_days(3)[2], sample_days(1)[0] | {"link": "day=a%2Fb/run_card.html"}
    links = re.findall(r"<nav.*?</nav>", render_card(sample_card(), before, after), re.S)
    assert re.findall(r'href="([^"]+)"', links[0]) == [
        "../index.html",
        "../day=2026-11-20/card.html",
        "../day=a%252Fb/run_card.html",
    ]
    (alone,) = re.findall(r"<nav.*?</nav>", render_card(sample_card()), re.S)
    assert re.findall(r'href="([^"]+)"', alone) == ["../index.html"]


def test_entities_with_one_flag_each_are_a_line_and_no_row_of_full_bars() -> None:
    card: Any = sample_card()
    for entity in card["entities"]:
        entity["flags"] = 1
    text = words(render_card(card))
    assert "Flagged most often" not in text
    assert "None was flagged twice: each flag has another host_dst and another host_src ." in text


def test_a_card_is_the_same_after_its_json() -> None:
    card = sample_card()
    text = json.dumps(card, default=encode_bytes).encode()
    again = json.dumps(parse_card(text, "card"), default=encode_bytes).encode()
    assert json.loads(again) == json.loads(text)


def test_books_that_do_not_balance_are_said_so() -> None:
    card = sample_card()
    card["books"]["scored"] -= 12
    assert count_unaccounted(card["books"]) == 12
    text = words(render_card(card))
    assert "The books do not balance." in text
    assert "No. 12 rows are unaccounted for." in text
    card["books"]["scored"] += 15
    assert "No. 3 rows were counted more than once." in words(render_card(card))


def test_a_refused_run_says_why_and_that_nothing_was_written() -> None:
    card: Any = sample_card()
    card["run"].update(status="refused", table_version=None)
    card["gates"][2] = {"name": "flag rate", "passed": False, "message": "3.1%, allowed up to 1%"}
    text = words(render_card(card))
    assert "Refused. Nothing was written" in text
    assert text.index("3.1%, allowed up to 1%") < text.index("What was flagged")


def test_a_card_with_nothing_to_show_still_renders() -> None:
    card: Any = sample_card()
    card.update(
        score_histogram=None,
        flags_over_time=None,
        entities=[],
        top_flags=[],
        flags=[],
        quarantine=[],
        training=None,
        quality=None,
        warnings=[],
        gates=[],
        profile=None,
    )
    card["books"].update(dict.fromkeys(card["books"], 0))
    card["bundle"].update(options={}, versions={}, trained_days=[])
    page = render_card(card)
    assert len(page) < 40_000
    assert "<script" not in page  # nothing to search
    assert "No row has a score above the threshold" in words(page)


@pytest.mark.parametrize("missing", ["calibration_counts", "rows", "validation", "interval"])
def test_each_part_may_lack_its_optional_half(missing: str) -> None:
    card: Any = sample_card()
    if missing == "calibration_counts":
        card["score_histogram"]["calibration_counts"] = None
    elif missing == "rows":
        card["flags_over_time"]["rows"] = None
    elif missing == "validation":
        card["training"]["best_epoch"] = None
        for epoch in card["training"]["epochs"]:
            epoch["validation_loss"] = None
    else:
        card["quality"]["detector"]["auroc"] = {
            "value": None,
            "low": None,
            "high": None,
            "reason": "every row is labelled an anomaly",
        }
        assert "every row is labelled an anomaly" in words(render_card(card))
    render_card(card)


def test_every_image_of_a_card_is_whole() -> None:
    card: Any = sample_card()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8))
    large = io.BytesIO()
    noise.save(large, "PNG")  # a photograph does not compress either
    card["top_flags"][0]["picture"] = {"feature": "photo", "png": large.getvalue()}
    sent = [flag["picture"]["png"] for flag in card["top_flags"] if flag["picture"]]
    found = re.findall(r'<img src="data:image/png;base64,([^"]*)"', render_card(card))
    assert [base64.b64decode(text, validate=True) for text in found] == sent
    assert len(found[0]) > 100_000
    for content in sent:
        Image.open(io.BytesIO(content)).load()
    assert (
        json.loads(json.dumps(card["top_flags"][0], default=encode_bytes))["picture"]["png"]
        == (found[0])
    )


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_field_stays_text(text: str) -> None:
    page = render_card(hostile_card(text))
    assert len(page.encode("utf-8")) < 2_000_000  # also: no lone surrogate
    own = re.sub(
        r'(?s)<script>.*?</script>|<style>.*?</style>|<figure class="chart".*?</figure>', "", page
    )
    # Our own pictures are cut out: nothing of their attributes may end them.
    own = re.sub(r'<img src="data:image/png;base64,[\w+/=]*" alt="[^"<>]*">', "", own)
    assert "<script>alert" not in own
    assert "<img" not in own
    assert "<svg" not in own
    assert "1337" not in own.replace("31337", "")  # the template in the field did not run
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u200b\u202e\u2066]", own)
    assert 'href="javascript' not in own
    assert "<script" not in own  # ours are cut out above


def test_no_log_field_enters_a_chart() -> None:
    hostile = render_card(hostile_card("<a href='http://evil'>x</a>"))
    assert figures(hostile) == figures(render_card(sample_card()))
    assert len(figures(hostile)) == 4


def figures(page: str) -> list[str]:
    return re.findall(r'(?s)<figure class="chart".*?</figure>', page)


@given(st.text(max_size=400))
def test_printable_text_is_one_short_line_of_drawn_characters(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert not shown or len(shown.splitlines()) == 1
    assert shown == printable(shown, limit=10_000)  # nothing left to escape
    shown.encode("utf-8")


def test_printable_keeps_the_words_of_the_world() -> None:
    for text in ("naïve Müller", "Việt Nam", "日本語", "שָׁלוֹם", "🙂"):
        assert printable(text) == text
    assert printable("a\u202eb\tc\x1b[2J") == "a\\u202eb\\x09c\\x1b[2J"
    assert printable("x" * 500, limit=4) == "xxxx…"


def test_a_printable_document_keeps_its_shape() -> None:
    document = {"a\x00": [1, True, None, 2.5, float("nan"), ("x\r",)]}
    assert printable_document(document) == {"a\\x00": [1, True, None, 2.5, None, ["x\\x0d"]]}


def test_the_index_lists_all_days_newest_first_with_their_cards() -> None:
    page = render_index(sample_days(30)[::-1])
    assert "30 days, the last one 2026-11-22 : committed , 209 flagged" in words(page)
    links = re.findall(r'<th class="day"><a href="([^"]+)"', page)
    assert links[0] == "./day=2026-11-22/card.html"
    assert links[-1] == "./day=2026-10-24/card.html"
    assert "1 of 30 was refused" in words(page)
    assert page.count("<i style") == 30


def test_the_index_draws_the_last_run_of_a_day_and_lists_all() -> None:
    day = sample_days(1)[0]
    earlier = day | {"when": "2026-11-22T23:00:00+00:00", "status": "refused", "flagged": 9_999}
    page = render_index([earlier, day])
    assert page.count("<i style") == 1
    assert page.count('<th class="day">') == 2
    assert "refused." not in words(page)
    assert "1 day, the last one" in words(page)


def test_an_index_without_days_says_what_to_do() -> None:
    assert "No day has been scored" in words(render_index([]))


@pytest.mark.parametrize(
    ("given", "safe"),
    [
        ("javascript:alert(1)", "./javascript%3Aalert%281%29"),
        ("//evil.example/x", "./evil.example/x"),
        ("../../etc/passwd", "./etc/passwd"),
        ("day=a b\"'<>&/card.html", "./day=a%20b%22%27%3C%3E%26/card.html"),
    ],
)
def test_a_link_of_the_index_stays_below_the_index(given: str, safe: str) -> None:
    page = render_index([sample_days(1)[0] | {"link": given, "day": given}])
    assert re.findall(r'<th class="day"><a href="([^"]+)"', page) == [safe]
