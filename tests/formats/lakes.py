"""Drawn lakes: files of any schema, name and layout, and what a watch must account for."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from tests.formats.values import TYPES, make_values

Layout = tuple[str, str]  # the folders of day {d}, and the name of that day
LAYOUTS: tuple[Layout, ...] = (
    ("day=2026-11-{d:02}", "2026-11-{d:02}"),
    ("dt=202611{d:02}", "2026-11-{d:02}"),
    ("day={d}", "{d}"),
    ("year=2026/month=11/day={d}", "2026-11-{d:02}"),
    ("2026/11/{d:02}", "2026-11-{d:02}"),
    ("region={r}/day=2026-11-{d:02}", "2026-11-{d:02}"),
    ("day=2026-11-{d:02}/hour={h:02}", "2026-11-{d:02}"),
    ("", "all"),
)
# Types that one column may have in the files of one day, by family.
FAMILIES: tuple[tuple[pa.DataType, ...], ...] = (
    (pa.int32(), pa.int64(), pa.float64(), pa.decimal128(12, 2), pa.bool_()),
    (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())),
    (pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("ns")),
    (pa.timestamp("us", "UTC"), pa.timestamp("ms", "Asia/Tokyo")),
    (pa.date32(), pa.date64()),
    (pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(16), pa.uuid()),
    (pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 4)),
    (pa.time32("s"), pa.time64("us")),
    (pa.duration("s"), pa.duration("us")),
    (pa.uint64(), pa.int64()),
    *((kind,) for kind in TYPES),
    (pa.int64(), pa.string()),  # no common type: a refusal
)
NAMES = (
    *(
        "x",
        "y",
        "id",
        "txn_id",
        "ts",
        "time",
        "src_ip",
        "dst_port",
        "label",
        "class",
        "user",
        "key",
    ),
    *(
        "a.b",
        "",
        "größe",
        "a\nb",
        "day",
        "score",
        "file",
        "row",
        "null",
        "1",
        "'",
        'a "b"',
        "#",
        " ",
    ),
)
FILE_NAMES = (
    *("part-0.parquet", "000000_0", "x.parq", "y.parquet.snappy", "a b.parquet", "ü.parquet"),
    *(
        "k=1.parquet",
        "a\nb.parquet",
        "a\\b.parquet",
        "data",
        "x.csv",
        "part-1.parquet",
        "p%20q.parquet",
    ),
    *("_SUCCESS", ".hidden.parquet", "z.parquet.tmp", "日.parquet", "[b].parquet"),
)
STRAY_FOLDERS = (
    "",
    "day=__HIVE_DEFAULT_PARTITION__",
    "day=",
    "day=tomorrow",
    "Day=2026-11-18",
    "old",
    "2026",
)


@dataclass(frozen=True)
class Part:
    """A file of a lake."""

    path: str
    day: str | None  # the name of its day; None where its folder is of no day
    data: bytes
    rows: int | None  # None: nobody can read it

    @property
    def shown(self) -> str:
        """The path as tables and messages have it."""
        return self.path.replace("\n", "\\n")

    @property
    def visible(self) -> bool:
        return not any(part.startswith(("_", ".")) for part in self.path.split("/"))


@dataclass(frozen=True)
class Lake:
    """A folder of files, and how the watch is told to use its columns."""

    layout: Layout
    parts: tuple[Part, ...]
    roles: dict[str, str]  # for columns that a first spec leaves out, or guesses
    filter: str | None

    def write(self, folder: Path) -> None:
        for part in self.parts:
            path = folder / part.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(part.data)

    @property
    def days(self) -> set[str]:
        """Names of the days that have a visible file."""
        return {part.day for part in self.parts if part.day is not None and part.visible}


def draw_lakes() -> st.SearchStrategy[Lake]:
    """Lakes of four days of one to three files each, most of them fit to be scored."""
    return st.composite(_draw)()


def _rarely(draw: Callable[..., Any], one_in: int) -> bool:
    return bool(draw(st.integers(0, one_in - 1)) == one_in - 1)


def _draw(draw: Callable[..., Any]) -> Lake:
    layout = draw(st.sampled_from(LAYOUTS))
    names = draw(st.lists(st.sampled_from(NAMES), max_size=4, unique=True))
    families = {name: draw(st.sampled_from(FAMILIES)) for name in names}
    parts: dict[str, Part] = {}
    seed = draw(st.integers(0, 2**20))
    for day in (8, 9, 10, 11):
        for place in range(draw(st.integers(1, 3 if day == 11 else 2))):
            seed += 1
            hour = draw(st.sampled_from((0, 23))) if _rarely(draw, 4) else 23
            folder = layout[0].format(d=day, r="eu" if seed % 2 else "us", h=hour)
            # The first file of a day can be read, so that few lakes are refused whole.
            name = draw(st.sampled_from(FILE_NAMES)) if place else f"first-{day}.parquet"
            path = f"{folder}/{name}".lstrip("/")
            bad = day == 11 and place > 0 and _rarely(draw, 3)
            data, rows = _draw_file(draw, families, seed, bad, whole=not place)
            parts[path] = Part(path, layout[1].format(d=day), data, rows)
    if _rarely(draw, 3):
        folder = draw(st.sampled_from(STRAY_FOLDERS))
        path = f"{folder}/stray.parquet".lstrip("/")
        data, rows = _draw_file(draw, families, seed + 1, bad=False, whole=False)
        parts[path] = Part(path, None if layout[0] else "all", data, rows)
    roles = {
        name: draw(st.sampled_from(("keep", "keep", "id", "entity", "time"))) for name in names
    }
    return Lake(layout, tuple(parts.values()), roles, "amount > 1" if _rarely(draw, 3) else None)


def _draw_file(
    draw: Callable[..., Any],
    families: dict[str, tuple[pa.DataType, ...]],
    seed: int,
    bad: bool,
    whole: bool,
) -> tuple[bytes, int | None]:
    """The bytes of a file and its rows; a whole file has some rows and each column once."""
    rng = np.random.default_rng(seed)
    rows = 40 if whole else draw(st.sampled_from((40, 25, 1, 0)))
    columns: list[tuple[str, pa.Array]] = []
    for name, kinds in families.items():
        kind = draw(st.sampled_from(kinds)) if _rarely(draw, 3) else kinds[0]
        if whole or not _rarely(draw, 12):
            columns.append((name, _spoil(draw, make_values(kind, _rarely(draw, 3), rows, seed))))
    for name in ("amount", "load"):
        columns.append((name, _spoil(draw, pa.array(rng.exponential(2.0, rows)))))
    if _rarely(draw, 6):
        columns = columns[::-1]
    if not whole and _rarely(draw, 20):
        columns.append(columns[0])
    table = pa.Table.from_arrays([array for _, array in columns], [name for name, _ in columns])
    data = _encode(draw, table)
    if not bad:
        return data, rows
    kind = draw(st.sampled_from(("cut", "empty", "text", "footer", "pages")))
    if kind == "cut":
        return data[: len(data) // 2], None
    if kind == "footer":
        length = int.from_bytes(data[-8:-4], "little")
        return data[: -8 - length] + bytes(length) + data[-8:], None
    if kind == "pages":  # the footer is whole, and says how many rows are lost
        quarter = len(data) // 4
        return data[:4] + bytes(quarter) + data[4 + quarter :], rows
    return (b"" if kind == "empty" else b"amount,load\n1,2\n"), None


def _encode(draw: Callable[..., Any], table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        compression=draw(st.sampled_from(("snappy", "zstd", "none", "gzip", "brotli", "lz4"))),
        data_page_version=draw(st.sampled_from(("1.0", "2.0"))),
        use_dictionary=draw(st.booleans()),
        row_group_size=draw(st.sampled_from((1000, 7))),
        write_page_checksum=draw(st.booleans()),
        write_page_index=draw(st.booleans()),
        store_schema=not _rarely(draw, 8),
        use_deprecated_int96_timestamps=_rarely(draw, 8),
    )
    return sink.getvalue()


def _spoil(draw: Callable[..., Any], column: pa.Array) -> pa.Array:
    """The column, at times with values at the end of its type."""
    if not len(column) or not _rarely(draw, 6):
        return column
    t, kind = pa.types, column.type
    if t.is_floating(kind) and not t.is_float16(kind):
        odd = draw(st.sampled_from((float("nan"), float("inf"), -3.4e38, 1.7e308)))
        return pa.array([odd, *column.to_pylist()[1:]], kind)
    if t.is_integer(kind):
        width = kind.bit_width - t.is_signed_integer(kind)
        return pa.array([2**width - 1, *column.to_pylist()[1:]], kind)
    if t.is_timestamp(kind) and kind.unit != "ns":
        far = draw(st.sampled_from((2**53, -(2**53), 253_370_764_800)))
        raw = column.cast(pa.int64()).to_pylist()
        return pa.array([far, *raw[1:]], pa.int64()).cast(kind)
    if t.is_string(kind):
        odd = draw(st.sampled_from((b"caf\xe9", b"", b"\x00\x1b[31m", b"-", b"a" * 5000)))
        raw = pa.array([odd, *(v and v.encode() for v in column.to_pylist()[1:])], pa.binary())
        return pa.Array.from_buffers(kind, len(raw), raw.buffers(), raw.null_count)
    return column
