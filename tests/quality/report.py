"""The page `docs/quality.md`, the heat map beside it, and the figures as CSV."""

import math
from collections.abc import Sequence
from pathlib import Path

import jinja2
import pandas as pd

from tests.quality import published, results, summary
from tests.quality.measure import Result
from tests.quality.registry import PROTOCOLS

_TEMPLATES = Path(__file__).parent
# Published methods that are shown beside ours: the best, the best deep ones, and those that ours
# implement.
_BESIDE = ("KNN", "DTE-C", "LOF", "VAE", "PCA", "IForest", "ECOD", "ICL")
_FAMILIES = {protocol.name: protocol.family for protocol in PROTOCOLS.values()}
# Sets whose published figures, or whose field's, are F1.
_BY_F1 = ("kddcup99_10pct", "hdfs_100k")
_FAMILIES_HEAD = (
    "## Other sets, one-class: means over their tasks",
    "",
    "For each set, the detectors with a figure on all its tasks, best first. F1 uses the",
    "share of flags that the protocol sets, or else the best threshold. Figures in italics",
    "are simple references, computed on the same files. The others are published, some on",
    "more tasks: MVTec AD has fifteen categories there and seven here. In MVTec AD a category",
    "is resampled to 1,000 rows before it is divided, so most of the normal rows that are",
    "scored were also learned from, which favours detectors that remember rows. `_distinct`",
    "has each row once.",
    "",
    "| set | tasks | metric | Anomaray | beside |",
    "| --- | ---: | --- | --- | --- |",
)
# Below this AUROC all cells have the colour of chance.
_CHANCE = 0.5


def write(found: Sequence[Result], page: Path) -> tuple[Path, ...]:
    """Write PAGE, and beside it PAGE's name with .html and .csv; the files written."""
    frame = summary.frame(found)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(markdown(frame, found))
    html, csv = page.with_suffix(".html"), page.with_suffix(".csv")
    html.write_text(heat_map(frame))
    results.to_csv(found, csv)
    return page, html, csv


def markdown(frame: pd.DataFrame, found: Sequence[Result]) -> str:
    """The page's text."""
    table = summary.table(frame)
    lines = [
        "# Quality of the detectors",
        "",
        "Written by `make quality`. Figures are AUROC, the mean over the seeds. Every detector",
        "has its default options and its default training, the same on all sets. No label reaches",
        "a training. Published figures are from Livernoche et al., ICLR 2024 (arXiv:2305.18593);",
        "the ADBench sets follow their protocol. Sets below 1,000 rows are resampled to 1,000",
        "before they are divided, so their figures are optimistic, and so are the published ones.",
        "",
        *_adbench(table),
        *_families(frame, table),
        "## All sets",
        "",
        "The 95% interval over the test rows is in brackets.",
        "",
        *_groups(frame, table),
        "## Speed",
        "",
        "Medians over the sets and seeds, with encoding. The machine had other work at the same",
        "time: take them as orders of magnitude, not as a benchmark.",
        "",
        *_speed(frame),
        "",
        "## Protocols",
        "",
        *(f"- `{n}`: {PROTOCOLS[n].about}" for n in table.index if n in PROTOCOLS),
        *_refused(found),
    ]
    return "\n".join(lines) + "\n"


def _adbench(table: pd.DataFrame) -> list[str]:
    """Means over the ADBench sets, ours and published, best first."""
    reference = published.one_class()
    ours = summary.complete(table, [n for n in table.index if n.startswith("adbench/")])
    if ours.empty or reference.empty:
        return []
    reference = reference.reindex(ours.index).dropna(axis=1)
    best, _ = published.best(reference)
    both = {f"**{name}**": ours[name] for name in ours}
    both |= {f"{name}, published": reference[name] for name in reference}
    rows = [
        (name, summary.mean(values), summary.mean(values - reference[best]))
        for name, values in both.items()
    ]
    rows.sort(key=lambda row: -row[1].value)
    lines = [
        f"## ADBench, one-class: mean of {len(ours)} sets",
        "",
        f"The difference is to {best}, the best published method, set by set. The intervals (95%)",
        "are of the mean, over sets drawn with replacement. The defaults of `knn` were chosen on",
        "nine of these sets, after a first sweep that saw all of them: new sets may give less.",
        "",
        f"| method | mean AUROC | less {best}, published |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {mean.value:.4f} [{mean.low:.3f}–{mean.high:.3f}] | "
        f"{less.value:+.4f} [{less.low:+.3f} to {less.high:+.3f}] |"
        for name, mean, less in rows
    ]
    return [*lines, ""]


def _families(frame: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """Other sets than ADBench's, each a mean over its tasks, with the figures beside."""
    rows = []
    for metric, measured in (("AUROC", table), ("F1", summary.table(frame, "f1"))):
        for family, part in summary.by_family(measured, _FAMILIES).items():
            if family == "adbench" or part.empty or (metric == "F1" and family not in _BY_F1):
                continue
            means = part.mean().sort_values(ascending=False)
            ours = ", ".join(f"`{name}` {value:.3f}" for name, value in means.items())
            shown = ", ".join(
                f"{name} {value:.3f}" if known else f"*{name} {value:.3f}*"
                for name, value, known in published.beside(family, metric)
            )
            rows.append(f"| {family} | {len(part)} | {metric} | {ours} | {shown} |")
    return [*_FAMILIES_HEAD, *rows, ""] if rows else []


def _groups(frame: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """A table for the sets that the same detectors suit."""
    suited = [
        ", ".join(PROTOCOLS[name].detectors) if name in PROTOCOLS else "" for name in table.index
    ]
    lines: list[str] = []
    for _, part in table.groupby(suited, sort=False):
        lines += [*_cells(frame, part.dropna(axis=1, how="all")), ""]
    return lines


def _cells(frame: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    seeds = frame.groupby(["set", "detector"])["seed"].nunique()
    lines = [
        "| set | seeds | " + " | ".join(table.columns) + " |",
        "| --- | --- |" + " --- |" * len(table.columns),
    ]
    for name in table.index:
        cells = [_cell(frame, table, name, detector) for detector in table.columns]
        counts = sorted(set(seeds[name]))
        count = f"{counts[0]}–{counts[-1]}" if len(counts) > 1 else str(counts[0])
        lines.append(f"| {name} | {count} | " + " | ".join(cells) + " |")
    return lines


def _cell(frame: pd.DataFrame, table: pd.DataFrame, name: str, detector: str) -> str:
    value = float(table[detector][name])
    if math.isnan(value):
        return ""
    ends = summary.interval(frame, name, detector)
    shown = f"{value:.3f}"
    return f"{shown} [{ends[0]:.3f}–{ends[1]:.3f}]" if ends else shown


def _speed(frame: pd.DataFrame) -> list[str]:
    speed = frame.groupby("detector")[["train_seconds", "rows_per_second"]].median()
    lines = ["| detector | seconds to train | rows per second to score |", "| --- | --- | --- |"]
    for name, row in speed.sort_values("rows_per_second", ascending=False).iterrows():
        lines.append(f"| {name} | {row['train_seconds']:.1f} | {row['rows_per_second']:,.0f} |")
    return lines


def _refused(found: Sequence[Result]) -> list[str]:
    """Detectors and why they have no figure, each reason once, with how many sets it holds for."""
    sets: dict[tuple[str, str], set[str]] = {}
    for result in found:
        if result.refused:
            sets.setdefault((result.detector, result.refused), set()).add(result.set)
    if not sets:
        return []
    lines = [
        f"- {detector} on {next(iter(names)) if len(names) == 1 else f'{len(names)} sets'}: {why}"
        for (detector, why), names in sets.items()
    ]
    return ["", "## Without a figure", "", *lines]


def heat_map(frame: pd.DataFrame) -> str:
    """Sets by detectors in colour, the published figures beside: one HTML page, no scripts."""
    ours = summary.table(frame)
    reference = published.one_class().reindex(ours.index)
    shown = [name for name in _BESIDE if name in reference]
    groups = [("Anomaray", ours), ("published", reference[shown])]
    loader = jinja2.FileSystemLoader(_TEMPLATES)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["heat"] = heat
    return environment.get_template("heat_map.html").render(
        groups=[(title, list(part.columns)) for title, part in groups],
        rows=[
            (name, [[_known(part[c][name]) for c in part.columns] for _, part in groups])
            for name in ours.index
        ],
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def heat(value: float) -> int:
    """Percent of the full colour: 0 at chance and below, 100 at 1; the last tenth counts most."""
    above = max(0.0, (value - _CHANCE) / (1 - _CHANCE))
    return round(100 * above**3)
