"""Protocols of the sets of tables: the ADBench sets, flows and connections."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.spec.spec import load
from models.columns import FeatureColumn, Numeric
from tests.public_sets import ROOT
from tests.quality.protocol import (
    ON_TABLES,
    Protocol,
    Trial,
    first_half_of_normal,
    labels_of,
    one_class,
    random_half_of_normal,
)

ADBENCH = (
    *("annthyroid", "breastw", "campaign", "cardio", "cardiotocography", "donors", "glass"),
    *("http", "letter", "magic_gamma", "mammography", "musk", "pendigits", "shuttle", "smtp"),
    *("thyroid", "wine"),
)
# Sets outside of these bounds are cut to so many rows, or resampled with replacement to so many
# (Livernoche et al., ICLR 2024, section 5; their published figures follow it).
_MOST, _LEAST = 50_000, 1_000


def drawn(rows: pa.Table, seed: int) -> pa.Table:
    """The rows of a trial: cut or resampled where the set is too large or too small."""
    # The legacy generator is the one of the published protocol.
    rng = np.random.RandomState(seed)
    if len(rows) < _LEAST:
        return rows.take(pa.array(rng.choice(len(rows), _LEAST, replace=True)))
    if len(rows) > _MOST:
        return rows.take(pa.array(rng.choice(len(rows), _MOST, replace=False)))
    return rows


def adbench(file: Path, seed: int) -> Trial:
    """The first half of the normal rows in file order; scored are all other rows."""
    rows = drawn(pq.read_table(file), seed)
    names = [name for name in rows.column_names if name not in ("row_id", "label")]
    columns = tuple(Numeric(name) for name in names)
    return one_class(rows, first_half_of_normal(labels_of(rows)), columns)


def nsl_kdd(folder: Path, seed: int) -> Trial:
    """The normal rows of KDDTrain+; scored is KDDTest+. The same for every seed."""
    columns = _features("nsl_kdd")
    wanted = [*(column.name for column in columns), "label"]
    train = pq.read_table(folder / "train.parquet", columns=wanted)
    normal = train.filter(pc.equal(train.column("label"), 0))
    test = pq.read_table(folder / "test.parquet", columns=wanted)
    learned = np.arange(len(normal) + len(test)) < len(normal)
    return one_class(pa.concat_tables([normal, test]), learned, columns)


def cicids2017(folder: Path, seed: int) -> Trial:
    """Monday, which is benign; scored are the later days. No addresses, no ports."""
    columns = _features("cicids2017_flows")
    days = [pq.read_table(p, partitioning=None) for p in sorted(folder.glob("day=*/*.parquet"))]
    monday = np.arange(sum(map(len, days))) < len(days[0])
    return one_class(pa.concat_tables(days), monday, columns)


def ctu50(folder: Path, seed: int) -> Trial:
    """A random half of the normal rows, of all days; scored are all other rows."""
    columns = _features("ctu50_zeek_flows")
    days = [pq.read_table(p, partitioning=None) for p in sorted(folder.glob("day=*/*.parquet"))]
    rows = pa.concat_tables(days)
    return one_class(rows, random_half_of_normal(labels_of(rows), seed), columns)


def kddcup99(folder: Path, seed: int) -> Trial:
    """Attacks, four fifths of the rows, are the normal data, the rows called normal the anomalies.
    A random half of all rows is set apart, and its attacks are learned from; the other half is
    scored, and the highest fifth of it flagged (Zong et al., ICLR 2018, "DAGMM", section 4)."""
    columns = _features("nsl_kdd")
    rows = pq.read_table(folder, columns=[*(c.name for c in columns), "label"])
    rows = rows.take(pa.array(np.random.default_rng(seed).permutation(len(rows))))
    attack = pc.equal(rows.column("label"), 1)
    label = pc.cast(pc.invert(attack), pa.int8())
    rows = rows.set_column(rows.column_names.index("label"), "label", label)
    half = len(rows) // 2
    learned, asked = rows.slice(0, half).filter(attack.slice(0, half)), rows.slice(half)
    whole = pa.concat_tables([learned, asked])
    trial = one_class(whole, np.arange(len(whole)) < len(learned), columns)
    return trial._replace(flagged=0.2)


def _features(spec: str) -> tuple[FeatureColumn, ...]:
    """The features that the repository's own spec of the set gives."""
    return load(ROOT / "specs" / f"{spec}.yaml").features


_HALF = "first half of the normal rows in file order"

TABLES: tuple[Protocol, ...] = (
    *(Protocol(f"adbench/{n}", f"adbench/{n}.parquet", adbench, _HALF, ON_TABLES) for n in ADBENCH),
    *(
        Protocol(name, name, draw, about, ON_TABLES)
        for name, draw, about in (
            ("nsl_kdd", nsl_kdd, "normal rows of KDDTrain+; scored: KDDTest+"),
            ("cicids2017_flows", cicids2017, "Monday; scored: later days"),
            ("ctu50_zeek_flows", ctu50, "a random half of the normal rows"),
            ("kddcup99_10pct", kddcup99, "attacks of a random half; scored: the other, as DAGMM"),
        )
    ),
)
