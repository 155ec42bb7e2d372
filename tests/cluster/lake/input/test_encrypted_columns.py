"""A footer that declares encrypted columns is found by its bytes, and never asked of pyarrow."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.lake.days import ALL
from cluster.lake.input.encrypted_columns import has_encrypted_column
from cluster.lake.input.partitions import Source
from cluster.lake.input.snapshot import take_snapshot
from tests.formats import foreign

# Crypto metadata of a column chunk: a key of the column, in short and long headers, with a second
# field, and after an offset of its index.
KEYS = (
    b"\x5c\x2c\x19\x18\x01x\x00\x00",
    b"\x0c\x10\x0c\x04\x09\x02\x18\x01x\x00\x00",
    b"\x5c\x2c\x19\x18\x01x\x18\x02kk\x00\x00",
    b"\x16\x02\x4c\x2c\x19\x18\x01x\x00\x00",
)
FOOTER_KEY = b"\x5c\x1c\x00\x00"  # the metadata themselves are plain


def footer_of(data: bytes) -> bytes:
    return data[-8 - int.from_bytes(data[-8:-4], "little") : -8]


@pytest.mark.parametrize("crypto", KEYS)
def test_a_file_with_an_encrypted_column_is_set_aside_without_a_signature(
    tmp_path: Path, crypto: bytes
) -> None:
    (tmp_path / "a.parquet").write_bytes(foreign.encrypted_unsigned(crypto))
    (tmp_path / "b.parquet").write_bytes(foreign.encrypted_unsigned(b""))
    (tmp_path / "c.parquet").write_bytes(foreign.encrypted_unsigned(FOOTER_KEY))
    taken = take_snapshot(Source(str(tmp_path)), ALL)
    (bad,) = taken.rejected
    assert (bad.key, bad.rule) == ("a.parquet", "unreadable")
    assert "some of its columns are encrypted: expected plain Parquet" in bad.message
    assert [file.key for file in taken.files] == ["b.parquet", "c.parquet"]


@given(st.binary(max_size=64), st.integers(0, 400), st.sampled_from(KEYS))
def test_no_bytes_are_too_odd_to_look_at(odd: bytes, place: int, crypto: bytes) -> None:
    footer = footer_of(foreign.encrypted_unsigned(crypto))
    has_encrypted_column(footer[:place] + odd + footer[place:])
    assert has_encrypted_column(footer)
    assert not has_encrypted_column(footer_of(foreign.encrypted_unsigned(b"")))
