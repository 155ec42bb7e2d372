"""No path leads out of the URIs of a spec, of a day or of a registry."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from deltalake import write_deltalake

from cluster.lake.input.partitions import Source, find_days, list_days
from cluster.lake.input.snapshot import take_snapshot
from cluster.lake.output.vacuum import vacuum
from cluster.lake.registry.registry import Promotion, Registry
from cluster.lake.storage import beneath
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Missing
from jobs import flags
from jobs.spec.spec import SpecRefused, load
from models.refusal import Refusal
from tests.cluster.lake.parquet_files import encoded, numbered
from tests.security import hostile

WAYS_OUT = (
    "../other",
    "a/../../other",
    "..",
    "/etc",
    "//etc",
    "a//b",
    "a\\..\\b",
    "a\x00b",
    "a\nb",
    ".",
    "",
)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A store with one day, beside a folder that it must not read."""
    for folder in ("lake/day=1", "other"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.parquet").write_bytes(encoded(numbered(3)))
    return tmp_path / "lake"


@pytest.mark.parametrize("key", WAYS_OUT)
def test_no_key_leads_out_of_a_store(key: str, lake: Path) -> None:
    store = open_store(str(lake))
    for use in (
        store.stat,
        store.read,
        store.child,
        store.delete,
        store.open_parquet,
        lambda key: store.put(key, b""),
        lambda key: store.create(key, b""),
    ):
        with pytest.raises(Refusal):
            use(key)


@pytest.mark.parametrize("day", WAYS_OUT)
def test_no_day_leads_out_of_the_input(day: str, lake: Path) -> None:
    with pytest.raises(Refusal):
        take_snapshot(Source(str(lake), "day"), day)


@pytest.mark.parametrize("name", ["day=..", "day=%2e%2e", "day=..%2F..%2Fother", "day=a%00b"])
def test_no_encoded_day_leads_out_of_the_input(name: str, lake: Path) -> None:
    (lake / name).mkdir()
    days = find_days(Source(str(lake), "day"))
    assert days.names == ("1",)
    assert [one.name for one in days.stray] == [name]


@pytest.mark.timeout(20)
def test_odd_names_and_links_stop_neither_the_days_nor_a_day(lake: Path) -> None:
    day = lake / "day=1"
    for folder in (lake, day):
        (folder / "loop").symlink_to(folder / "loop")
        (folder / "up").symlink_to(lake)
        (folder / "nothing").symlink_to(folder / "gone")
        (folder / "a\\b").mkdir()
        (folder / "a\nb").write_bytes(b"x")
        (Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.parquet"))).write_bytes(b"x")
        here = os.open(folder, os.O_RDONLY)
        for _ in range(200):
            os.mkdir("deep", dir_fd=here)
            below = os.open("deep", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)
    days = find_days(Source(str(lake), "day"))
    assert days.names == ("1",)
    taken = take_snapshot(Source(str(lake), "day"), "1")
    assert (taken.rows, len(taken.misnamed)) == (3, 7)
    assert len(taken.rejected) == 7
    names = " ".join(map(str, (*days.stray, *taken.rejected)))
    for odd in ("loop", "up", "nothing", "a\\b", "a\\nb", "caf\\udce9.parquet", "deep/deep"):
        assert odd in names


@pytest.mark.parametrize("target", ["other/a.parquet", "other"])
def test_a_link_that_leads_out_of_the_input_is_not_followed(target: str, lake: Path) -> None:
    (lake / "day=1" / "link.parquet").symlink_to(lake.parent / target)
    with pytest.raises(Refusal, match="a link that leads out of"):
        take_snapshot(Source(str(lake), "day"), "1")


def test_a_day_that_is_a_link_out_of_the_input_is_not_followed(lake: Path) -> None:
    (lake / "day=2").symlink_to(lake.parent / "other")
    with pytest.raises(Refusal, match="a link that leads out of"):
        take_snapshot(Source(str(lake), "day"), "2")


def test_a_folder_beside_the_days_that_is_a_link_out_is_named(lake: Path) -> None:
    (lake / "elsewhere").symlink_to(lake.parent / "other")
    days = find_days(Source(str(lake), "day"))
    assert days.names == ("1",)
    (stray,) = days.stray
    assert (stray.name, stray.is_day) == ("elsewhere", True)
    assert "a link that leads out of" in stray.reason
    assert take_snapshot(Source(str(lake), "day"), "1").rows == 3


def test_nothing_is_written_or_read_through_a_link_out_of_the_output(lake: Path) -> None:
    (lake / "flags").symlink_to(lake.parent / "other")
    store = open_store(str(lake)).child("day=1")
    assert store.exists("a.parquet")
    for use in (
        lambda: open_store(str(lake)).put("flags/x", b""),
        lambda: open_store(str(lake)).create("flags/x", b""),
        lambda: open_store(str(lake)).read("flags/a.parquet"),
        lambda: open_store(str(lake)).delete("flags/a.parquet"),
        lambda: open_store(str(lake)).child("flags"),
        lambda: open_store(str(lake)).list(),
    ):
        with pytest.raises(Refusal, match="a link that leads out of"):
            use()
    assert [path.name for path in (lake.parent / "other").iterdir()] == ["a.parquet"]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A table of two days in an output, beside a folder with a file that may be none of its."""
    for day in ("1", "2"):
        rows = pa.table({"a": [int(day)], "day": [day]})
        write_deltalake(str(tmp_path / "out" / "flags"), rows, partition_by=["day"], mode="append")
    (tmp_path / "other").mkdir()
    pq.write_table(pa.table({"a": [99]}), tmp_path / "other" / "secret.parquet")
    return tmp_path / "out"


def link_shard(output: Path) -> None:
    (shard,) = (output / "flags" / "day=1").glob("*.parquet")
    shard.unlink()
    shard.symlink_to(output.parent / "other" / "secret.parquet")


def link_day(output: Path) -> None:
    (shard,) = (output / "flags" / "day=1").glob("*.parquet")
    shard.rename(output.parent / "other" / shard.name)
    (output / "flags" / "day=1").rmdir()
    (output / "flags" / "day=1").symlink_to(output.parent / "other")


def link_log(output: Path) -> None:
    (output / "flags" / "_delta_log").rename(output.parent / "other" / "log")
    (output / "flags" / "_delta_log").symlink_to(output.parent / "other" / "log")


def link_entry(output: Path) -> None:
    entry = output / "flags" / "_delta_log" / f"{1:020}.json"
    entry.rename(output.parent / "other" / "entry")
    entry.symlink_to(output.parent / "other" / "entry")


def link_table(output: Path) -> None:
    (output / "flags").rename(output.parent / "other" / "flags")
    (output / "flags").symlink_to(output.parent / "other" / "flags")


LINKS = [link_shard, link_day, link_log, link_entry, link_table]


@pytest.mark.parametrize("link", LINKS)
def test_flags_are_not_read_through_a_link_out_of_their_table(
    link: Callable[[Path], None], output: Path, tmp_path: Path
) -> None:
    uri = str(output / "flags")
    assert sorted(flags.query("SELECT a FROM flags", uri)["a"]) == [1, 2]
    link(output)
    uses: list[Callable[[], object]] = [
        lambda: flags.query("SELECT a FROM flags", uri),
        lambda: flags.query("SELECT a FROM flags", uri, "1"),
        lambda: flags.export(uri, str(tmp_path / "export")),
        lambda: flags.read(uri),
    ]
    for use in uses:
        with pytest.raises(Refusal, match="link"):
            use()
    assert not list((tmp_path / "export").rglob("*.parquet"))


@pytest.mark.parametrize("link", LINKS)
def test_vacuum_removes_nothing_behind_a_link(link: Callable[[Path], None], output: Path) -> None:
    link(output)
    before = sorted(output.parent.rglob("*"))
    for dry_run in (True, False):
        with pytest.raises(Refusal, match="link"):
            vacuum(open_store(str(output)), datetime.now(UTC), timedelta(), dry_run)
    assert sorted(output.parent.rglob("*")) == before


def test_vacuum_does_not_leave_the_table_by_a_link_inside_the_output(output: Path) -> None:
    registry = output / "registry"
    registry.mkdir()
    (registry / "entry").write_bytes(b"")
    (output / "flags" / "day=3").symlink_to(registry)
    store = open_store(str(output))
    with pytest.raises(Refusal, match="day=3 is a link: expected only files and folders"):
        vacuum(store, datetime.now(UTC), timedelta(), dry_run=False)
    with pytest.raises(Refusal, match="lies behind a link: nothing is removed there"):
        store.delete("flags/day=3/entry")
    assert (registry / "entry").exists()


def test_a_folder_that_becomes_a_link_while_it_is_read_gives_nothing_from_outside(
    lake: Path,
) -> None:
    """A thread swaps a folder for a link out of the lake, and back, while another reads."""
    (lake / "day=1" / "a.parquet").write_bytes(b"inside")
    (lake.parent / "other" / "a.parquet").write_bytes(b"outside")
    store, child, over = open_store(str(lake)), open_store(str(lake)).child("day=1"), Event()

    def swap() -> None:
        while not over.is_set():
            (lake / "day=1").rename(lake.parent / "aside")
            (lake / "day=1").symlink_to(lake.parent / "other")
            (lake / "day=1").unlink()
            (lake.parent / "aside").rename(lake / "day=1")

    thread = Thread(target=swap)
    thread.start()
    read: list[bytes | str] = []
    seen: set[bytes | bool] = set()
    end = time.monotonic() + 30
    try:
        while len(read) < 1_000 or (not seen >= {b"inside", True} and time.monotonic() < end):
            for one, key in ((store, "day=1/a.parquet"), (child, "a.parquet")):
                try:
                    read.append(one.read(key))
                    seen.add(b"inside")
                except Refusal as refused:
                    read.append(str(refused))
                    seen.add("a link" in str(refused))
    finally:
        over.set()
        thread.join()
    assert b"outside" not in read
    assert seen >= {b"inside", True}


def test_a_link_is_never_followed_beneath_a_handle(lake: Path) -> None:
    (lake / "link").symlink_to(lake / "day=1")  # inside, but not resolved before it is opened
    with (
        pytest.raises(Refusal, match=r"'link' below .* became a link while it was opened"),
        beneath.open_folder(lake, ("link",)),
    ):
        pass
    (lake / "file").symlink_to(lake / "day=1" / "a.parquet")
    with (
        beneath.open_folder(lake, ()) as folder,
        pytest.raises(Refusal, match=r"'file' below .* became a link while it was opened"),
    ):
        beneath.open_file("file", folder, lake)


@pytest.mark.timeout(20)
def test_a_pipe_in_a_lake_is_set_aside_and_not_waited_for(lake: Path) -> None:
    os.mkfifo(lake / "day=1" / "pipe.parquet")
    taken = take_snapshot(Source(str(lake), "day"), "1")
    found = [(file.key, file.rule) for file in taken.rejected]
    assert found == [("day=1/pipe.parquet", "empty_file")]
    store = open_store(str(lake))
    for use in (store.open_parquet, store.read, store.stat):
        with pytest.raises(Missing):
            use("day=1/pipe.parquet")


def test_a_store_that_is_itself_a_link_is_used_and_links_inside_are_followed(lake: Path) -> None:
    (lake.parent / "link").symlink_to(lake)
    (lake / "day=2").symlink_to(lake / "day=1")
    assert list_days(Source(str(lake.parent / "link"), "day")) == ("1", "2")
    assert take_snapshot(Source(str(lake.parent / "link"), "day"), "2").rows == 3


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "a\\b", "a\nb"])
def test_no_id_leads_out_of_a_registry(name: str, lake: Path) -> None:
    registry = Registry(open_store(str(lake)))
    for use in (
        registry.read_bundle,
        registry.read_threshold,
        lambda name: registry.promote(Promotion(name, "t")),
    ):
        with pytest.raises(Refusal):
            use(name)


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example/x",
        "http://169.254.169.254/latest/meta-data",
        "ftp://evil.example/x",
        "file://evil.example/x",
        "s3://key:secret@bucket/x",
        "s3://bucket/../other",
        "s3:///x",
        "x\ny",
    ],
)
def test_no_place_but_a_path_or_s3_is_opened(uri: str) -> None:
    with pytest.raises(Refusal):
        open_store(uri).list()


@pytest.mark.parametrize("uri", ["https://evil.example/x", "s3://key:secret@bucket/x", "x\ny"])
def test_no_spec_may_name_such_a_place(uri: str, tmp_path: Path) -> None:
    spec = hostile.spec(tmp_path)
    spec["input"] = {"uri": uri}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(spec))
    with pytest.raises(
        SpecRefused, match=r"input\.uri: expected (a path|s3://bucket/prefix)"
    ) as told:
        load(tmp_path / "bad.yaml")
    assert "secret" not in str(told.value)
