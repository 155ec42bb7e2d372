"""Results summed up: a table of sets by detectors, and means with their intervals."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tests.quality.measure import Result

_RESAMPLES = 2000


@dataclass(frozen=True)
class Mean:
    """The mean over sets, with its 95% interval when the sets are drawn anew."""

    value: float
    low: float
    high: float
    sets: int


def frame(results: Iterable[Result]) -> pd.DataFrame:
    """One row a result that has a figure."""
    rows = [result.to_document() for result in results if result.auroc is not None]
    return pd.DataFrame(rows).astype({"f1": float}) if rows else pd.DataFrame()


def table(results: pd.DataFrame, measure: str = "auroc") -> pd.DataFrame:
    """The mean over the seeds: sets by detectors; NaN where there is none."""
    return results.pivot_table(index="set", columns="detector", values=measure, aggfunc="mean")


def interval(results: pd.DataFrame, name: str, detector: str) -> tuple[float, float] | None:
    """The 95% interval of a cell over its test rows: the mean ends of the seeds' intervals."""
    chosen = results[(results["set"] == name) & (results["detector"] == detector)]
    known = [pair for pair in chosen["auroc_interval"] if pair is not None]
    if not known:
        return None
    low, high = np.mean(np.array(known), axis=0)
    return float(low), float(high)


def mean(values: "pd.Series[float]") -> Mean:
    """Of one value a set. Sets differ far more than seeds or rows: they are what is resampled."""
    known = values.dropna().to_numpy()
    drawn = np.random.default_rng(0).choice(known, (_RESAMPLES, len(known))).mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Mean(float(known.mean()), float(low), float(high), len(known))


def by_family(table: pd.DataFrame, families: Mapping[str, str]) -> dict[str, pd.DataFrame]:
    """The sets of each family, with the detectors that have a figure on every one of them; a set
    that is not in `families` is one of its own."""
    family = [families.get(name, name) for name in table.index]
    return {str(name): part.dropna(axis=1) for name, part in table.groupby(family, sort=False)}


def complete(table: pd.DataFrame, sets: Iterable[str]) -> pd.DataFrame:
    """The rows of these sets, and of the detectors those that have a figure on every one."""
    chosen = table.reindex([name for name in sets if name in table.index])
    return chosen.dropna(axis=1)
