"""A small encoder, rows, and a real head for tests of the cluster layer."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from cluster.runtime.session import session
from cluster.training.row_tables import to_table
from models.columns import Categorical, Numeric
from models.encoding.encoder import Encoder
from models.encoding.fit import EncoderFit
from tests.cluster.runtime.ray_head import RayHead, ray_head, short_folder
from tests.conftest import S3Server


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    with session(cpus=4):
        yield


@pytest.fixture(scope="module")
def head(s3_server: S3Server) -> Iterator[RayHead]:
    """A head whose nodes may open the lake on S3, and are not told where it is."""
    keys = {name: of for name, of in s3_server.environment.items() if "ENDPOINT" not in name}
    with short_folder() as folder, ray_head(folder, **keys) as running:
        yield running


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


@pytest.fixture(scope="session")
def table(rows: pa.RecordBatch, encoder: Encoder) -> pa.Table:
    """The rows as `cluster.training.dataset` hands them to the workers."""
    extracted = encoder.extract(rows)
    label = (np.arange(rows.num_rows) % 10 == 0).astype(np.float32)
    return to_table(extracted, label)
