"""Protocols of the sets of tables: the ADBench sets, flows and connections, and embeddings."""

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.spec import load
from models.columns import FeatureColumn, Numeric
from tests.quality.protocol import (
    ROOT,
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
MVTEC = ("bottle", "capsule", "hazelnut", "leather", "metal_nut", "screw", "wood")
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


def embeddings(folder: Path, seed: int, category: str) -> Trial:
    """As `adbench`, for vectors, each number a column."""
    rows = drawn(pq.read_table(folder / f"category={category}" / "part-0.parquet"), seed)
    vectors = rows.column("embedding").combine_chunks()
    width = vectors.type.list_size
    numbers = vectors.flatten().to_numpy().reshape(-1, width)
    table = pa.table({f"e{j}": numbers[:, j] for j in range(width)})
    table = table.append_column("label", rows.column("label"))
    columns = tuple(Numeric(f"e{j}") for j in range(width))
    return one_class(table, first_half_of_normal(labels_of(table)), columns)


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
    """Half of the attacks are the normal data; the rows called normal, a fifth, are the anomalies
    (Zong et al., ICLR 2018, "DAGMM", section 4.2), of a random 50,000 rows."""
    columns = _features("nsl_kdd")
    rows = drawn(pq.read_table(folder), seed)
    swapped = pa.array(1 - labels_of(rows))
    rows = rows.set_column(rows.column_names.index("label"), "label", swapped)
    return one_class(rows, random_half_of_normal(labels_of(rows), seed), columns)


def _features(spec: str) -> tuple[FeatureColumn, ...]:
    """The features that the repository's own spec of the set gives."""
    return load(ROOT / "specs" / f"{spec}.yaml").features


_HALF = "first half of the normal rows in file order"

TABLES: tuple[Protocol, ...] = (
    *(Protocol(f"adbench/{n}", f"adbench/{n}.parquet", adbench, _HALF) for n in ADBENCH),
    *(
        Protocol(
            f"mvtec_ad_resnet18/{c}",
            "mvtec_ad_resnet18",
            partial(embeddings, category=c),
            f"{_HALF}; 512 numbers a row",
        )
        for c in MVTEC
    ),
    Protocol("nsl_kdd", "nsl_kdd", nsl_kdd, "normal rows of KDDTrain+; scored: KDDTest+"),
    Protocol("cicids2017_flows", "cicids2017_flows", cicids2017, "Monday; scored: later days"),
    Protocol("ctu50_zeek_flows", "ctu50_zeek_flows", ctu50, "a random half of the normal rows"),
    Protocol("kddcup99_10pct", "kddcup99_10pct", kddcup99, "half of the attacks, as in DAGMM"),
)
