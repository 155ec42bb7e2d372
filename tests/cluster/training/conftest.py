"""A Ray, a small encoder and rows for tests of training."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from cluster.runtime.session import session
from cluster.training.row_tables import to_table
from models.encoding.encoder import Encoder


@pytest.fixture(scope="module")
def ray_session() -> Iterator[None]:
    with session(cpus=4):
        yield


@pytest.fixture(scope="session")
def table(rows: pa.RecordBatch, encoder: Encoder) -> pa.Table:
    """The rows as `cluster.training.dataset` hands them to the workers."""
    extracted = encoder.extract(rows)
    label = (np.arange(rows.num_rows) % 10 == 0).astype(np.float32)
    return to_table(extracted, label)
