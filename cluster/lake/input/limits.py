"""What a Parquet file may declare. What declares more is set aside before a page is decoded.

Only the footer is asked: a look costs no read and no loop over columns. What pages declare of
themselves is bounded by the format, 2 GiB each.
"""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from models.refusal import Refusal

# Files of 1,000 row groups and 500 columns have footers of about 50 MB; decoding one takes about
# ten times its size in memory.
FOOTER_BYTES = 64 * 1024**2
# Leaves of the schema. The widest public tables (genes, clicks) have some thousands.
COLUMNS = 10_000
# Elements of any list in the footer: columns and their parents, row groups, chunks of a row group.
# Reading stops at the list's declared length, before there is memory for it.
_LIST = 4 * COLUMNS
# Uncompressed bytes that are declared, for each byte of the file. Measured: 258 public files of
# flows, transactions, texts and logs have 3.2 at most, a column of one value about 1 with a
# dictionary. Without one it has 21 under snappy, 240 under lz4, and 1,500 to 2,700 under zstd.
EXPANSION = 200
# A file may declare so much whatever its size: it is one split (`jobs.training.plan.SPLIT_BYTES`).
FREE_BYTES = 256 * 1024**2
# Of one row, all columns together: no batch has less than a row, so this is what a row may take.
ROW_BYTES = 256 * 1024**2
# Of one batch that is decoded at once: batches of wide rows have fewer.
BATCH_BYTES = 512 * 1024**2


class Oversized(Refusal):
    """A file that declares more than is decoded."""

    rule = "oversized"


def open_parquet(file: Any, **options: Any) -> pq.ParquetFile:
    """The file, its footer decoded within the limits.

    Raises `Oversized` for a footer that is too large, has too many columns, or nests deeper than
    Arrow's 100 levels; and as pyarrow does for a damaged one.
    """
    _check_footer(file)
    file.seek(0)
    try:
        return pq.ParquetFile(file, thrift_container_size_limit=_LIST, **options)
    except Refusal:  # of the store: the object has changed
        raise
    except pa.ArrowException:
        raise
    except OSError as error:
        if "Exceeded size limit" in str(error):
            most = f"{COLUMNS:,} columns and {_LIST:,} row groups"
            raise Oversized(f"its footer declares a longer list than is read: {most}") from None
        if "too deeply nested" in str(error):
            raise Oversized(
                "its schema is nested deeper than the 100 levels that are read"
            ) from None
        raise
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        # Libraries register Arrow types (Ray's tensors), which parse what the file says of them.
        kind = type(error).__name__
        raise pa.ArrowInvalid(f"its schema names a type that cannot be made ({kind})") from error


def check(metadata: pq.FileMetaData, size: int) -> None:
    """Raise `Oversized` where a file of `size` bytes declares more than is decoded."""
    if metadata.num_columns > COLUMNS:
        raise Oversized(f"it has {metadata.num_columns:,} columns: expected {COLUMNS:,} at most")
    declared = 0
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        declared += group.total_byte_size
        if group.total_byte_size > ROW_BYTES * max(1, group.num_rows):
            raise Oversized(
                f"row group {index} declares {group.total_byte_size:,} bytes in "
                f"{group.num_rows:,} rows: expected {ROW_BYTES:,} a row at most"
            )
    if declared > max(FREE_BYTES, EXPANSION * size):
        raise Oversized(
            f"its {size:,} bytes declare {declared:,} uncompressed: expected {EXPANSION} for each "
            "byte at most; write the file with another compression if they are meant"
        )


def batch_rows(wanted: int, rows: int, size: int) -> int:
    """Rows to decode at once, where `rows` have `size` uncompressed bytes: `wanted`, or fewer."""
    return max(1, min(wanted, BATCH_BYTES * rows // size)) if size else wanted


def _check_footer(file: Any) -> None:
    """The last eight bytes of a Parquet file: the footer's length and `PAR1`."""
    size = file.size()
    if size < 12:
        return  # no Parquet: pyarrow says so
    file.seek(size - 8)
    length = int.from_bytes(file.read(8)[:4], "little")
    if FOOTER_BYTES < length <= size:
        raise Oversized(f"its footer has {length:,} bytes: expected {FOOTER_BYTES:,} at most")
