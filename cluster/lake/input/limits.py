"""What a Parquet file may declare; a file that declares else is set aside before it is decoded.

Only the footer is checked, which needs no further read. The format itself limits what a page may
declare to 2 GiB.
"""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.lake.input.encrypted_columns import has_encrypted_column
from models.refusal import Refusal

# Files of 1,000 row groups and 500 columns have footers of about 50 MB; decoding one takes about
# ten times its size in memory.
FOOTER_BYTES = 64 * 1024**2
# Leaves of the schema. The widest public tables (genes, clicks) have some thousands.
COLUMNS = 10_000
# AES-GCM's nonce and tag: the signature behind a plain footer whose columns are encrypted.
_SIGNATURE_BYTES = 28
# Elements of any list in the footer: columns and their parents, row groups, chunks of a row group.
# Reading stops at the list's declared length, before memory is allocated for it.
_LIST = 4 * COLUMNS
# Uncompressed bytes declared for each byte of the file. Public files have 3.2 at most, bombs
# thousands (docs/decisions/parquet-limits.md).
EXPANSION = 200
# A file may declare this much whatever its size: it is one split (`splits.SPLIT_BYTES`).
FREE_BYTES = 256 * 1024**2
# One row, all columns together. A batch has at least one row, so this bounds a batch.
ROW_BYTES = 256 * 1024**2
# One batch; batches of wide rows have fewer rows.
BATCH_BYTES = 512 * 1024**2


class Oversized(Refusal):
    """A file declares more than is decoded."""

    rule = "oversized"


class Undecodable(Refusal):
    """A file declares what ends a process that asks pyarrow for it: an encrypted column, or a
    column chunk without a column."""

    rule = "unreadable"


def open_parquet(file: Any, **options: Any) -> pq.ParquetFile:
    """Open a Parquet file and decode its footer, within the limits.

    Raises `Oversized` for a footer that is too large, has too many columns or nests deeper than
    Arrow's 100 levels; and what pyarrow raises for a damaged one.
    """
    _check_footer(file)
    file.seek(0)
    try:
        # INT96 has nanoseconds, but microseconds reach the year 9999, a usual open end.
        return pq.ParquetFile(
            file,
            thrift_container_size_limit=_LIST,
            coerce_int96_timestamp_unit="us",
            **options,
        )
    except (Refusal, pa.ArrowException):  # a Refusal is the store's: the object has changed
        raise
    except OSError as error:
        if "Exceeded size limit" in str(error):
            raise Oversized(
                "its footer declares a longer list than is read: "
                f"{COLUMNS:,} columns and {_LIST:,} row groups"
            ) from None
        if "too deeply nested" in str(error):
            raise Oversized("its schema is nested deeper than 100 levels") from None
        raise
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        # Libraries register Arrow types (Ray's tensors) that parse the file's own text about them.
        kind = type(error).__name__
        raise pa.ArrowInvalid(f"its schema names a type that cannot be made ({kind})") from error


def check(metadata: pq.FileMetaData, size: int, footer: bytes) -> None:
    """Raise `Oversized` where a file of `size` bytes with this footer declares more than is
    decoded, and `Undecodable` where no column chunk may be asked for."""
    signed = len(footer) - metadata.serialized_size == _SIGNATURE_BYTES
    if signed or has_encrypted_column(footer):
        raise Undecodable("some of its columns are encrypted: expected plain Parquet")
    if metadata.num_columns > COLUMNS:
        raise Oversized(f"it has {metadata.num_columns:,} columns: expected {COLUMNS:,} at most")
    declared = 0
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        if group.num_columns != metadata.num_columns:
            raise Undecodable(
                f"row group {index} has {group.num_columns:,} column chunks: expected "
                f"{metadata.num_columns:,}, as many as the schema has columns"
            )
        declared += group.total_byte_size
        if group.total_byte_size > ROW_BYTES * max(1, group.num_rows):
            raise Oversized(
                f"row group {index} declares {group.total_byte_size:,} bytes in "
                f"{group.num_rows:,} rows: expected {ROW_BYTES:,} a row at most"
            )
    if declared > max(FREE_BYTES, EXPANSION * size):
        raise Oversized(
            f"its {size:,} bytes declare {declared:,} uncompressed: expected at most {EXPANSION} "
            "for each byte; if the data is genuine, write the file with another compression"
        )


def batch_rows(wanted: int, rows: int, size: int) -> int:
    """Rows to decode at once, where `rows` have `size` uncompressed bytes: `wanted`, or fewer."""
    return max(1, min(wanted, BATCH_BYTES * rows // size)) if size else wanted


def _check_footer(file: Any) -> None:
    """The last eight bytes of a Parquet file are the footer's length and `PAR1`."""
    size = file.size()
    if size < 12:
        return  # not Parquet: pyarrow says so
    file.seek(size - 8)
    length = int.from_bytes(file.read(8)[:4], "little")
    if FOOTER_BYTES < length <= size:
        raise Oversized(f"its footer has {length:,} bytes: expected {FOOTER_BYTES:,} at most")
    # Kept, so that what is decoded and what `hash_footer` reads are the same bytes.
    file.prefetch([(max(0, size - 8 - length), size)])
