"""The kinds of foreign files, by name: each is a function that writes one."""

import datetime as dt
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tests.formats import foreign
from tests.formats.values import ROWS, STRUCT, TYPES, make_values

Make = Callable[[], bytes]


def write_all(folder: Path) -> list[Path]:
    """Write a file of each kind; kinds of several files get a folder of their own."""
    for name, make in (FILES | dict(list_mixed())).items():
        path = folder / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make())
    return sorted(folder.rglob("*.parquet"))


def _name(kind: pa.DataType) -> str:
    return "".join(c if c.isalnum() else "-" for c in str(kind))[:60].strip("-")


_ENCODINGS = {
    "delta-binary": ("DELTA_BINARY_PACKED", pa.int64()),
    "delta-binary-32": ("DELTA_BINARY_PACKED", pa.int32()),
    "delta-length": ("DELTA_LENGTH_BYTE_ARRAY", pa.string()),
    "delta-bytes": ("DELTA_BYTE_ARRAY", pa.string()),
    "delta-bytes-fixed": ("DELTA_BYTE_ARRAY", pa.binary(5)),
    "split-float": ("BYTE_STREAM_SPLIT", pa.float32()),
    "split-double": ("BYTE_STREAM_SPLIT", pa.float64()),
    "split-int": ("BYTE_STREAM_SPLIT", pa.int64()),
    "split-fixed": ("BYTE_STREAM_SPLIT", pa.binary(16)),
    "split-half": ("BYTE_STREAM_SPLIT", pa.float16()),
    "plain": ("PLAIN", pa.string()),
    "run-length": ("RLE", pa.bool_()),
}


_FAR = dt.datetime(9999, 12, 31)
_NAMES = {
    "empty": ("",),
    "dots": ("a.b", "a", "a.b.c"),
    "unicode": ("größe", "数", "😀"),
    "newline": ("a\nb", "c\r", "\t"),
    "twice": ("a", "a"),
    "case": ("A", "a"),
    "nul": ("a\0b",),
    "of-flags": ("score", "row", "file", "reasons", "severity", "run_id"),
    "day": ("day",),
    "quotes": (
        "'",
        '"',
        "`",
        "a: {b}",
        "#",
        "- c",
        "*x",
        "&y",
        "!z",
        "null",
        "~",
        "1",
        "1.5",
        "true",
    ),
    "long": ("n" * 5000,),
    "markup": ("[red]x[/red]", "<script>"),
    "marks": ("a\u202eb", "\ufeff"),
    "slash": ("a/b", "..", "a=b"),
    "space": (" ", " a ", "a  b"),
}

FILES: dict[str, Make] = {
    **{f"type-{_name(kind)}": partial(foreign.typed, kind) for kind in TYPES},
    **{
        f"nulls-{_name(kind)}": partial(foreign.typed, kind, True)
        for kind in TYPES
        if kind != pa.null()
    },
    **{
        f"all-null-{_name(kind)}": partial(foreign.all_null, kind)
        for kind in (
            pa.float64(),
            pa.string(),
            pa.timestamp("us"),
            pa.list_(pa.int8()),
            STRUCT,
            pa.binary(),
        )
    },
    **{f"encoding-{name}": partial(foreign.encoded_as, *how) for name, how in _ENCODINGS.items()},
    **{
        f"codec-{codec}": partial(foreign.plain, compression=codec)
        for codec in ("none", "snappy", "gzip", "brotli", "zstd", "lz4")
    },
    **{f"names-{name}": partial(foreign.named, *names) for name, names in _NAMES.items()},
    "decimal-int32": partial(foreign.typed, pa.decimal128(7, 2), store_decimal_as_integer=True),
    "decimal-int64": partial(foreign.typed, pa.decimal128(16, 2), store_decimal_as_integer=True),
    "int96-usual": partial(foreign.int96, dt.datetime(2026, 11, 20)),
    "int96-far": partial(foreign.int96, _FAR),
    "int96-first": partial(foreign.int96, dt.datetime(1, 1, 1)),
    "json-by-duckdb": partial(foreign.by_duckdb, "{'n': n}::JSON"),
    "interval-by-duckdb": partial(foreign.by_duckdb, "to_days((n % 9)::INTEGER)"),
    "enum-by-duckdb": partial(foreign.by_duckdb, "(['a', 'b'][n % 2 + 1])::ENUM('a', 'b')"),
    "hugeint-by-duckdb": partial(foreign.by_duckdb, "n::HUGEINT"),
    "uuid-by-duckdb": partial(foreign.by_duckdb, "uuid()"),
    "timetz-by-duckdb": partial(foreign.by_duckdb, "'10:00:00+02'::TIMETZ"),
    "union-by-duckdb": partial(foreign.by_duckdb, "{'a': [n, NULL], 'b': MAP {'k': n}}"),
    "blob-by-duckdb": partial(foreign.by_duckdb, "'\\xAA'::BLOB"),
    "enum": partial(foreign.relabelled, 4, 4),
    "bson": partial(foreign.relabelled, 20, 13),
    "pages-v2": partial(foreign.plain, data_page_version="2.0"),
    "pages-v2-delta": partial(
        foreign.typed,
        pa.int64(),
        True,
        data_page_version="2.0",
        use_dictionary=False,
        column_encoding={"x": "DELTA_BINARY_PACKED"},
    ),
    "pages-tiny": partial(foreign.plain, data_page_size=1, write_batch_size=1, max_rows_per_page=1),
    "page-index": partial(foreign.plain, write_page_index=True),
    "page-checksums": partial(foreign.plain, write_page_checksum=True),
    "page-huge": foreign.huge_page,
    "bloom-filter": partial(foreign.plain, bloom_filter_options={"x": {"ndv": 64}}),
    "content-chunks": partial(foreign.plain, use_content_defined_chunking=True),
    "no-statistics": partial(foreign.plain, write_statistics=False),
    "no-arrow-schema": partial(foreign.typed, pa.timestamp("us", "UTC"), store_schema=False),
    "version-1": partial(foreign.typed, pa.timestamp("ns"), version="1.0"),
    "version-2.4": partial(foreign.typed, pa.uint32(), version="2.4"),
    "sorted": partial(foreign.plain, sorting_columns=[pq.SortingColumn(0)]),
    "old-lists": partial(
        foreign.typed, pa.list_(pa.int32()), True, use_compliant_nested_type=False
    ),
    "no-row-groups": foreign.no_row_groups,
    "empty-row-groups": foreign.empty_row_groups,
    "many-row-groups": partial(foreign.plain, row_group_size=1),
    "no-rows": lambda: foreign.encode(pa.table(foreign.numbers())[:0]),
    "no-columns": partial(foreign.no_columns, 0),
    "no-columns-but-rows": partial(foreign.no_columns, 5),
    "one-row": lambda: foreign.encode(pa.table(foreign.numbers())[:1]),
    "two-rows": lambda: foreign.encode(pa.table(foreign.numbers())[:2]),
    "constant": lambda: foreign.encode(pa.table({"x": [1.0] * ROWS, "y": ["a"] * ROWS})),
    "not-finite": lambda: foreign.column(
        pa.array([np.nan, np.inf, -np.inf, 1.0, 2.5] * (ROWS // 5))
    ),
    "only-not-finite": lambda: foreign.column(pa.array([np.nan, np.inf] * (ROWS // 2))),
    "far-numbers": lambda: foreign.column(pa.array([1.7e308, -1.7e308, 5e-324, 0.0] * (ROWS // 4))),
    "far-integers": lambda: foreign.column(pa.array([2**63 - 1, -(2**63), 0, 1] * (ROWS // 4))),
    "far-unsigned": lambda: foreign.column(pa.array([2**64 - 1, 0] * (ROWS // 2), pa.uint64())),
    "far-dates": lambda: foreign.column(
        pa.array([2**31 - 1, -(2**31)] * (ROWS // 2), pa.int32()).cast(pa.date32())
    ),
    "far-times": lambda: foreign.column(
        pa.array([2**63 - 1, -(2**63)] * (ROWS // 2)).cast(pa.timestamp("us"))
    ),
    "far-seconds": lambda: foreign.column(
        pa.array([2**53, -(2**53)] * (ROWS // 2)).cast(pa.timestamp("ms"))
    ),
    "far-durations": lambda: foreign.column(
        pa.array([2**63 - 1, -(2**63)] * (ROWS // 2)).cast(pa.duration("ns"))
    ),
    "invalid-utf8": foreign.invalid_utf8,
    "long-texts": lambda: foreign.column(pa.array(["a" * 100_000, "b"] * (ROWS // 2))),
    "empty-texts": lambda: foreign.column(pa.array([""] * ROWS)),
    "unknown-zone": lambda: foreign.column(make_values(pa.timestamp("us", "Mars/Olympus"))),
    "required": foreign.required,
    "wide": partial(foreign.wide, 1000),
    "metadata-broken": foreign.broken_metadata,
    "arrow-schema-broken": partial(foreign.broken_arrow_schema, b"no base64"),
    "arrow-schema-of-nothing": partial(foreign.broken_arrow_schema, b""),
    "pandas-index": lambda: foreign.by_pandas(
        foreign.frame().set_index(pd.Index(np.arange(ROWS) * 3, name="key"))
    ),
    "pandas-unnamed-index": lambda: foreign.by_pandas(
        foreign.frame().set_index(pd.Index([f"r{i}" for i in range(ROWS)]))
    ),
    "pandas-index-levels": lambda: foreign.by_pandas(
        foreign.frame().set_index([pd.Index(np.arange(ROWS) % 3), pd.Index(np.arange(ROWS))])
    ),
    "pandas-column-levels": lambda: foreign.by_pandas(foreign.frame_of_levels()),
    "pandas-category": lambda: foreign.by_pandas(
        foreign.frame().assign(x=pd.Categorical(["a", "b"] * (ROWS // 2), ordered=True))
    ),
    "pandas-period": lambda: foreign.by_pandas(
        foreign.frame().assign(x=pd.period_range("2026-01", periods=ROWS, freq="M"))
    ),
    "pandas-interval": lambda: foreign.by_pandas(
        foreign.frame().assign(x=pd.interval_range(0, ROWS))
    ),
    "pandas-nullable": lambda: foreign.by_pandas(
        foreign.frame().assign(x=pd.array([1, None] * (ROWS // 2), dtype="Int64"))
    ),
    "damaged-zero-bytes": lambda: b"",
    "damaged-magic-only": lambda: b"PAR1",
    "damaged-two-magics": lambda: b"PAR1PAR1",
    "damaged-truncated": lambda: foreign.plain()[:-40],
    "damaged-half": lambda: (data := foreign.plain())[: len(data) // 2],
    "damaged-text": lambda: b"amount,load\n1,2\n",
    "damaged-footer": partial(foreign.damaged_footer, 7),
    "damaged-footer-end": partial(foreign.damaged_footer, 97),
    "damaged-footer-length": partial(foreign.claims, 2**31),
    "damaged-footer-longer": partial(foreign.claims, 2**32 - 1),
    "damaged-footer-empty": partial(foreign.claims, 0),
    "damaged-pages": lambda: foreign.flipped(foreign.plain(compression="none"), *range(4, 1200, 3)),
    "damaged-pages-zstd": lambda: foreign.flipped(
        foreign.plain(compression="zstd"), *range(40, 1200, 11)
    ),
    "damaged-pages-gzip": lambda: foreign.flipped(
        foreign.plain(compression="gzip"), *range(40, 1200, 11)
    ),
    "damaged-pages-snappy": lambda: foreign.flipped(foreign.plain(), *range(40, 1200, 11)),
    "damaged-page-header": lambda: foreign.flipped(foreign.plain(), 5, 6),
    "damaged-checksum": lambda: foreign.flipped(
        foreign.plain(write_page_checksum=True, compression="none"), 300
    ),
    "damaged-hole": lambda: (data := foreign.plain())[:200] + data[260:],
    "damaged-rotated": lambda: foreign.plain()[4:],
    "encrypted-footer": partial(foreign.encrypted, False),
    "encrypted-column": partial(foreign.encrypted, True),
    "encrypted-unsigned": partial(foreign.encrypted_unsigned, b"\x5c\x2c\x19\x18\x01x\x00\x00"),
    "encrypted-unsigned-long": partial(
        foreign.encrypted_unsigned, b"\x0c\x10\x0c\x04\x09\x02\x18\x01x\x00\x00"
    ),
}

_MIXED: dict[str, tuple[Make, ...]] = {
    "int32-int64": (partial(foreign.typed, pa.int32()), partial(foreign.typed, pa.int64())),
    "int64-double": (partial(foreign.typed, pa.int64()), partial(foreign.typed, pa.float64())),
    "int-text": (partial(foreign.typed, pa.int64()), partial(foreign.typed, pa.string())),
    "texts": tuple(
        partial(foreign.typed, kind)
        for kind in (
            pa.string(),
            pa.large_string(),
            pa.string_view(),
            pa.dictionary(pa.int8(), pa.string()),
        )
    ),
    "bytes": tuple(
        partial(foreign.typed, kind)
        for kind in (pa.binary(), pa.binary_view(), pa.binary(16), pa.uuid())
    ),
    "text-bytes": (partial(foreign.typed, pa.string()), partial(foreign.typed, pa.binary())),
    "times": tuple(partial(foreign.typed, pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")),
    "zones": (
        partial(foreign.typed, pa.timestamp("us", "UTC")),
        partial(foreign.typed, pa.timestamp("ms", "Asia/Tokyo")),
    ),
    "zone-none": (
        partial(foreign.typed, pa.timestamp("us", "UTC")),
        partial(foreign.typed, pa.timestamp("us")),
    ),
    "date-time": (partial(foreign.typed, pa.date32()), partial(foreign.typed, pa.timestamp("us"))),
    "decimals": (
        partial(foreign.typed, pa.decimal128(10, 2)),
        partial(foreign.typed, pa.decimal128(30, 10)),
        partial(foreign.typed, pa.int64()),
    ),
    "bool-int": (partial(foreign.typed, pa.bool_()), partial(foreign.typed, pa.int64())),
    "null-text": (partial(foreign.typed, pa.null()), partial(foreign.typed, pa.string())),
    "lists": tuple(
        partial(foreign.typed, kind)
        for kind in (pa.list_(pa.float64()), pa.large_list(pa.float64()), pa.list_(pa.float32(), 4))
    ),
    "structs": (
        partial(foreign.typed, STRUCT),
        partial(foreign.typed, pa.struct([("a", pa.int64())])),
    ),
    "missing": (
        partial(foreign.typed, pa.int64()),
        lambda: foreign.encode(pa.table(foreign.numbers(5))),
    ),
    "order": (partial(foreign.named, "a", "b"), partial(foreign.named, "b", "a")),
    "no-rows": (
        partial(foreign.typed, pa.int64()),
        lambda: foreign.encode(pa.table({"amount": pa.nulls(0)})),
    ),
    "no-columns": (partial(foreign.typed, pa.int64()), partial(foreign.no_columns, 5)),
    "twice": (partial(foreign.named, "a"), partial(foreign.named, "a", "a")),
    "case": (partial(foreign.named, "a"), partial(foreign.named, "A")),
    "unsigned": (partial(foreign.typed, pa.uint64()), partial(foreign.typed, pa.int64())),
    "nested-plain": (partial(foreign.typed, STRUCT), partial(foreign.typed, pa.string())),
    "damaged": (foreign.plain, lambda: foreign.plain(compression="none")[:-40]),
    "encrypted": (partial(foreign.typed, pa.int32()), partial(foreign.encrypted, True)),
    "codecs": tuple(
        partial(foreign.plain, compression=codec) for codec in ("none", "gzip", "brotli", "lz4")
    ),
}


def list_mixed() -> Iterator[tuple[str, Make]]:
    """The files of one folder whose schemas differ."""
    for name, makes in _MIXED.items():
        for place, make in enumerate(makes):
            yield f"mixed-{name}/{'abcdef'[place]}", make
