"""A real head for tests of the runtime."""

from collections.abc import Iterator

import pytest

from tests.cluster.runtime.ray_head import RayHead, ray_head, short_folder
from tests.conftest import S3Server


@pytest.fixture(scope="module")
def head(s3_server: S3Server) -> Iterator[RayHead]:
    """A head whose nodes may open the lake on S3, and are not told where it is."""
    keys = {name: of for name, of in s3_server.environment.items() if "ENDPOINT" not in name}
    with short_folder() as folder, ray_head(folder, **keys) as running:
        yield running
