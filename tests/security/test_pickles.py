"""A payload in a bundle or a Parquet file is read as bytes and never runs."""

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data  # registers the Arrow types that unpickle, as it does in every actor
import torch

from cluster.lake.input.partitions import Source
from cluster.lake.input.reading import read_rows
from cluster.lake.input.snapshot import take_snapshot
from cluster.lake.input.splits import cut_splits
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store
from jobs import init
from models.bundle import CALIBRATION, DETECTOR, ENCODER, MANIFEST, open_bundle
from models.refusal import Refusal
from tests.cluster.lake.parquet_files import encoded
from tests.models.test_bundle import forged, nothing, trained

assert ray.data


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.marker,)


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """The folder that a payload makes; after each test it must not exist."""
    marker = tmp_path / "ran"
    yield marker
    assert not marker.exists()


def column(name: str, kind: pa.DataType, values: list[Any], said: bytes) -> pa.Table:
    """A column of an extension type that the file itself names."""
    metadata = {b"ARROW:extension:name": name.encode(), b"ARROW:extension:metadata": said}
    field = pa.field("x", kind, metadata=metadata)
    return pa.table([pa.array(values, kind)], schema=pa.schema([field]))


def read(store: Store, names: list[str]) -> pa.Table:
    taken = take_snapshot(Source(store.uri), "all")
    (split,) = cut_splits(taken, 10**6, 10**9)
    return pa.Table.from_batches([rows.batch for rows in read_rows(store, split, names, 64)])


def pickled_objects(marker: Path) -> pa.Table:
    payload = pickle.dumps(Payload(marker))
    return column("ray.data.arrow_pickled_object", pa.large_binary(), [payload] * 3, b"")


def test_the_attack_works_on_a_plain_reader(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    found = pq.read_table(pa.BufferReader(encoded(pickled_objects(marker))))
    with pytest.raises(FileExistsError):  # by the second row's payload
        found.to_pylist()
    assert marker.exists()


def test_pickled_objects_in_a_column_are_read_as_bytes(tmp_path: Path, marker: Path) -> None:
    store = open_store(str(tmp_path / "lake"))
    table = pickled_objects(marker)
    store.put("a.parquet", encoded(table.append_column("n", [[1.5, 2.5, 3.5]])))
    assert take_snapshot(Source(store.uri), "all").schema.field("x").type == pa.binary()
    found = read(store, ["x", "n"])
    assert found.schema.field("x").type == pa.binary()
    assert found.to_pylist()[0]["x"] == pickle.dumps(Payload(marker))
    found.to_pandas()


def test_pickled_objects_inside_of_lists_and_structs_are_read_as_bytes(
    tmp_path: Path, marker: Path
) -> None:
    objects = pickled_objects(marker).schema.field("x")
    payload = pickle.dumps(Payload(marker))
    inner = objects.with_type(pa.large_binary())
    kinds = {
        "list": (pa.list_(inner), [payload]),
        "fixed": (pa.list_(inner, 1), [payload]),
        "large": (pa.large_list(inner), [payload]),
        "struct": (pa.struct([inner]), {"x": payload}),
        "map": (pa.map_(pa.string(), inner.with_name("value")), [("a", payload)]),
    }
    arrays = [pa.array([value, value], kind) for kind, value in kinds.values()]
    store = open_store(str(tmp_path / "lake"))
    store.put("a.parquet", encoded(pa.table(arrays, names=list(kinds))))
    found = read(store, list(kinds))
    assert found.to_pylist() == [{name: value for name, (_, value) in kinds.items()}] * 2


@pytest.mark.parametrize("said", [b"pickle", b"{}", b"[[1]]", b"\xff", b"null", b"[9e99]"])
@pytest.mark.parametrize(
    "name", ["arrow_tensor", "arrow_tensor_v2", "arrow_variable_shaped_tensor"]
)
def test_a_tensor_type_gets_nothing_to_unpickle(
    name: str, said: bytes, tmp_path: Path, marker: Path
) -> None:
    said = pickle.dumps(Payload(marker)) if said == b"pickle" else said
    kinds: dict[str, tuple[pa.DataType, Any]] = {
        "arrow_tensor": (pa.list_(pa.int64()), [1]),
        "arrow_tensor_v2": (pa.large_list(pa.int64()), [1]),
        "arrow_variable_shaped_tensor": (
            pa.struct([("data", pa.large_list(pa.int64())), ("shape", pa.list_(pa.int32()))]),
            {"data": [1], "shape": [1]},
        ),
    }
    kind, value = kinds[name]
    store = open_store(str(tmp_path / "lake"))
    store.put("a.parquet", encoded(column(f"ray.data.{name}", kind, [value], said)))
    taken = take_snapshot(Source(store.uri), "all")
    assert [file.rule for file in taken.rejected] in (["unreadable"], [])
    if taken.files:
        assert read(store, ["x"]).to_pylist() == [{"x": value}]


def test_the_type_that_arrow_once_unpickled_is_read_as_bytes(tmp_path: Path, marker: Path) -> None:
    store = open_store(str(tmp_path / "lake"))
    said = pickle.dumps(Payload(marker))
    store.put("a.parquet", encoded(column("arrow.py_extension_type", pa.binary(), [b"a"], said)))
    assert read(store, ["x"]).to_pydict() == {"x": [b"a"]}


def test_ray_is_told_not_to_unpickle_whatever_the_environment_says() -> None:
    assert os.environ["RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA"] == "0"


def test_a_first_look_at_a_file_unpickles_nothing(tmp_path: Path, marker: Path) -> None:
    table = pickled_objects(marker).append_column("n", [[1.5, 2.5, 3.5]])
    open_store(str(tmp_path / "lake")).put("a.parquet", encoded(table))
    assert "n:" in init.init(str(tmp_path / "lake"), tmp_path / "watch.yaml")


@pytest.mark.parametrize("name", [ENCODER, DETECTOR, CALIBRATION, MANIFEST])
@pytest.mark.parametrize("saved_by", ["pickle", "torch"])
def test_a_pickle_in_place_of_a_bundles_file_is_refused(
    name: str, saved_by: str, tmp_path: Path, marker: Path
) -> None:
    files = trained("pca").files
    data = pickle.dumps(Payload(marker))
    if saved_by == "torch":
        torch.save({"weights": Payload(marker)}, tmp_path / "weights")
        data = (tmp_path / "weights").read_bytes()
    files = {**files, name: data} if name == MANIFEST else forged(files, nothing, **{name: data})
    with pytest.raises(Refusal):
        open_bundle(files)


def test_a_pickle_beside_a_bundles_files_is_refused(marker: Path) -> None:
    files = {**trained("pca").files, "detector.pkl": pickle.dumps(Payload(marker))}
    with pytest.raises(Refusal, match=r"with 'detector\.pkl'"):
        open_bundle(files)
