"""A small encoder and its rows, for tests of splits and of training."""

import numpy as np
import pyarrow as pa
import pytest

from models.columns import Categorical, Numeric
from models.encoding.encoder import Encoder
from models.encoding.fit import EncoderFit


@pytest.fixture(scope="session")
def rows() -> pa.RecordBatch:
    """2,000 rows of three correlated numbers and a category."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=2000)
    return pa.RecordBatch.from_pydict(
        {
            "a": base,
            "b": 2 * base + rng.normal(scale=0.1, size=2000),
            "c": rng.exponential(size=2000),
            "proto": rng.choice(["tcp", "udp"], size=2000),
        }
    )


@pytest.fixture(scope="session")
def encoder(rows: pa.RecordBatch) -> Encoder:
    columns = (Numeric("a"), Numeric("b"), Numeric("c", log1p=True), Categorical("proto"))
    fit = EncoderFit(columns, rows.schema)
    fit.update(rows)
    return fit.finish()
