"""Figures that others published, from `baselines.csv` beside the sets."""

from functools import cache
from pathlib import Path

import pandas as pd

from tests.quality.protocol import DATA

# What the paper itself counts as deep learning; DTE-NP is a mean of nearest neighbours' distances.
DEEP = frozenset(
    (
        *("DAGMM", "DDPM", "DIF", "DROCC", "DTE-C", "DTE-IG", "DeepSVDD", "GANomaly", "GOAD"),
        *("ICL", "PlanarFlow", "SLAD", "VAE"),
    )
)
_SOURCE = "arXiv:2305.18593"
_PROTOCOL = "semi-supervised: train on the FIRST 50% of the normal rows"


@cache
def one_class(data: Path = DATA) -> pd.DataFrame:
    """AUROC, sets by algorithms, of Livernoche et al. (ICLR 2024, README of its code, table 2),
    under the protocol of `tables.adbench`; empty without the data folder."""
    file = data / "baselines.csv"
    if not file.exists():
        return pd.DataFrame()
    rows = pd.read_csv(file)
    chosen = rows[
        rows["source"].str.contains(_SOURCE, regex=False, na=False)
        & rows["protocol"].str.startswith(_PROTOCOL, na=False)
        & ~rows["protocol"].str.contains("orientation only|average over", na=False)
        & (rows["metric"] == "AUROC")
    ]
    return chosen.pivot(index="dataset", columns="algorithm", values="value")


def best(table: pd.DataFrame, deep: bool = False) -> tuple[str, float]:
    """The algorithm with the highest mean over the sets, and that mean."""
    means = table.mean()
    if deep:
        means = means[means.index.isin(DEEP)]
    return str(means.idxmax()), float(means.max())
