"""docs/verbs.md describes the verbs as the command line has them."""

import re

from jobs.cli.reference import PAGE, render_page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == render_page(), "docs/verbs.md is stale: run make docs"


def test_a_verb_has_its_examples_and_its_own_exit_statuses() -> None:
    page = render_page()
    assert "| 75 | a store or a node failed" in page
    score = page.partition("## score\n")[2].partition("\n## ")[0]
    assert re.search(r"^python -m jobs score \S+ --day [\d-]+$", score, re.MULTILINE)
    assert re.findall(r"^Exit status (\d+)", score, re.MULTILINE) == ["1"]
