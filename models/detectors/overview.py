"""The table of all detectors in docs/detectors.md, and their number in README.md."""

import re
from collections.abc import Mapping

from models.detectors.catalog import CATALOG
from models.detectors.detector import Detector
from models.detectors.plugins import list_allowed, list_plugins
from models.layout import CategoryInput, Layout, NumericInput, SignalInput, TokenInput
from models.refusal import Refusal

_HEADER = "| detector | fits | learns from | idea |\n| --- | --- | --- | --- |\n"
# A layout of each kind of column, on which `Detector.unfit` is called.
_LAYOUTS = {
    "tables": Layout((NumericInput("x", "real"),), (CategoryInput("c", 3),)),
    "vectors": Layout((), (), (SignalInput("v", "vector", (4,)),)),
    "series": Layout((), (), (SignalInput("s", "series", (1, 8)),)),
    "images": Layout((), (), (SignalInput("i", "image", (1, 8, 8)),)),
    "sounds": Layout((), (), (SignalInput("s", "spectrogram", (1, 8, 8)),)),
    "videos": Layout((), (), (SignalInput("v", "video", (1, 4, 8, 8)),)),
    "events and texts": Layout((), (), (), (TokenInput("t", 8, 8),)),
}
_LEARNS = {
    "gradient": "all rows",
    "sample": "a sample of rows",
    "both": "a sample, then all rows",
}
_LABELS = {"some": "a few labelled anomalies", "all": "labelled rows"}


def describe(name: str, kind: type[Detector]) -> tuple[str, str, str, str]:
    """A detector's line in the table: its name, which columns fit, what it learns from, its idea.

    The idea is the first paragraph of the docstring of its class.
    """
    fits = _list_fits(kind)
    columns = "any columns" if len(fits) == len(_LAYOUTS) else ", ".join(fits)
    summary = (kind.__doc__ or "").partition("\n\n")[0]
    idea = " ".join(summary.split()).removesuffix(".")
    return f"`{name}`", columns, _LABELS.get(kind.labels) or _LEARNS[kind.learns], idea


def format_table(catalog: Mapping[str, type[Detector]]) -> str:
    """The table of all detectors, as Markdown: those that fit most kinds of columns first."""
    names = sorted(catalog, key=lambda name: (-len(_list_fits(catalog[name])), name))
    lines = [f"| {' | '.join(describe(name, catalog[name]))} |\n" for name in names]
    return _HEADER + "".join(lines)


def format_plugins() -> str:
    """The table of the detectors of other packages, and a line for each that cannot be used.

    Imports their code. Empty if there are none.
    """
    found, refused = {}, []
    for plugin in list_plugins():
        if plugin.name in CATALOG:
            refused.append(
                f"`{plugin.name}` of {plugin.package}: one of ours has this name and is meant"
            )
    classes = [entry for entry in list_allowed() if ":" in entry]
    for name in [name for name in CATALOG.list_names() if name not in CATALOG] + classes:
        try:
            found[name] = CATALOG.find(name)
        except Refusal as refusal:
            refused.append(str(refusal))
    rows = [(CATALOG.find_package(name), *describe(name, kind)) for name, kind in found.items()]
    lines = [f"| {name} of {package} | {' | '.join(rest)} |\n" for package, name, *rest in rows]
    table = f"\nOf other packages:\n\n{_HEADER}{''.join(lines)}" if lines else ""
    return table + "".join(f"\n{line}\n" for line in refused)


def _list_fits(kind: type[Detector]) -> list[str]:
    return [columns for columns, layout in _LAYOUTS.items() if kind.unfit(layout) is None]


def update_page(page: str, catalog: Mapping[str, type[Detector]]) -> str:
    """docs/detectors.md with the table of this catalogue."""
    before, header, after = page.partition(_HEADER)
    if not header:
        raise ValueError(f"expected docs/detectors.md to have a table that begins\n{_HEADER}")
    return before + format_table(catalog) + re.sub(r"\A(\|.*\n)*", "", after)


def update_readme(readme: str, catalog: Mapping[str, type[Detector]]) -> str:
    """README.md with the number of detectors in this catalogue."""
    return re.sub(r"\b\d+ detectors\b", f"{len(catalog)} detectors", readme)
