"""The documents of `--json` as docs/outputs.md describes them."""

import re
from pathlib import Path

_PAGE = Path(__file__).parents[3] / "docs" / "outputs.md"


def read_documented() -> dict[str, set[str]]:
    """The keys of the document that each verb prints."""
    section = _PAGE.read_text().partition("## Results as JSON\n")[2].partition("\n## ")[0]
    found: dict[str, set[str]] = {}
    for verbs, text in re.findall(r"^\| (`.+?) \| (.+) \|$", section, re.MULTILINE):
        main = text.partition("With `--")[0].replace("as of `", "")
        for verb in re.findall(r"`(\w+)`", verbs):
            found[verb] = set(re.findall(r"(?:^|, |; )`(\w+)`", main))
    return found
