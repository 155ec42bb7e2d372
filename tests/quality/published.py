"""Figures that others published, from `baselines.csv` beside the sets."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from tests.public_sets import DATA

# What the paper itself counts as deep learning; DTE-NP is a mean of nearest neighbours' distances.
DEEP = frozenset(
    (
        *("DAGMM", "DDPM", "DIF", "DROCC", "DTE-C", "DTE-IG", "DeepSVDD", "GANomaly", "GOAD"),
        *("ICL", "PlanarFlow", "SLAD", "VAE"),
    )
)
_SOURCE = "arXiv:2305.18593"
_PROTOCOL = "semi-supervised: train on the FIRST 50% of the normal rows"


class Beside(NamedTuple):
    """Figures of a file row's kind that stand beside ours."""

    dataset: str  # as in `baselines.csv`
    protocol: str  # what its text holds
    algorithms: tuple[str, ...]  # those that are shown, all where empty


BESIDE = {
    "mvtec_ad_resnet18": Beside(
        "mvtec_ad_resnet18", _PROTOCOL, ("ICL", "SLAD", "DTE-NP", "DeepSVDD", "MCD", "KNN", "PCA")
    ),
    "mvtec_ad_resnet18_distinct": Beside("mvtec_ad_resnet18", "mean over 7 categories", ()),
    "fashion_mnist": Beside("fashion_mnist", "one-class, train on all 6,000 images", ()),
    "kddcup99_10pct": Beside("kddcup99_10pct", "top-20% threshold", ()),
    "sms_spam": Beside("sms_spam", "NLPAD-SMSSpam", ("DATE", "OpenAI+LOF", "BERT+LOF")),
    "bgl_2k": Beside("bgl_2k", "train on 50%", ()),
    "hdfs_100k": Beside("hdfs_100k", "train on normal sessions", ()),
    "nsl_kdd": Beside("nsl_kdd", "one-class", ()),
    "cicids2017_flows": Beside("cicids2017_flows", "", ()),
    "ctu50_zeek_flows": Beside("ctu50_zeek_flows", "", ()),
}


def beside(family: str, metric: str, data: Path = DATA) -> list[tuple[str, float, bool]]:
    """(algorithm, figure, whether it was published) of a family of tasks, best first; figures that
    were computed on the same copy are no published ones."""
    if family not in BESIDE or not (data / "baselines.csv").exists():
        return []
    wanted = BESIDE[family]
    rows = pd.read_csv(data / "baselines.csv")
    rows = rows[(rows["dataset"] == wanted.dataset) & (rows["metric"] == metric)]
    rows = rows[rows["protocol"].str.contains(wanted.protocol, regex=False)]
    if wanted.algorithms:
        rows = rows[rows["algorithm"].isin(wanted.algorithms)]
    rows = rows.sort_values("value", ascending=False)
    computed = rows["source"].str.startswith("computed on this copy")
    return [
        (str(name), float(value), not ours)
        for name, value, ours in zip(rows["algorithm"], rows["value"], computed, strict=True)
    ]


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
