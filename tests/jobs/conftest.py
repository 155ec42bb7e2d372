"""Tables of flags of three days."""

from pathlib import Path

import pytest

from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store
from tests.jobs.flag_tables import DAYS, commit, flags


@pytest.fixture
def flag_table(store: Store) -> Store:
    """Three days of 3, 2 and 1 flags, on a local path and on S3."""
    flagged = store.child("flags")
    commit(flagged, *(flags(day, 3 - i) for i, day in enumerate(DAYS)))
    return flagged


@pytest.fixture
def local_flags(tmp_path: Path) -> Store:
    """The same three days, locally only."""
    store = open_store(str(tmp_path / "flags"))
    commit(store, *(flags(day, 3 - i) for i, day in enumerate(DAYS)))
    return store
