"""Count distinct and repeated keys with a bottom-k sample, which is small and can be merged.

The k smallest 64-bit hashes of the keys are a uniform sample of the *distinct* keys (Beyer et al.,
SIGMOD 2007, the KMV synopsis). As each has its multiplicity, repeats are estimated without bias,
and keys without repeats never show any. (datasketches' theta sketch forgets multiplicities: it
would report repeats within its error.)
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

_K = 1024  # distinct counts within about 3% (1/sqrt(k)); 8 KiB in every receipt
_HASHES = 2.0**64


def hash_keys(columns: list[pa.Array], secret: str | None = None) -> np.ndarray:
    """64-bit hash of each row's key: uint64 [rows].

    Receipts keep these hashes, and a plain hash of an integer can be inverted. With a secret of 16
    characters they are SipHash of the keys as text, so that no key can be found by trying.
    """
    if secret is not None:
        frame = pd.DataFrame({str(i): _to_text(c).to_pandas() for i, c in enumerate(columns)})
        keyed = pd.util.hash_pandas_object(frame, index=False, hash_key=secret, categorize=False)
        return keyed.to_numpy(np.uint64)
    if len(columns) == 1 and pa.types.is_integer(columns[0].type):
        # pandas' own mixing of integers, without a frame around it; nulls are no keys anyway.
        whole = columns[0].fill_null(0).cast(pa.int64(), safe=False)
        return pd.util.hash_array(whole.to_numpy(zero_copy_only=False), categorize=False)
    frame = pd.DataFrame({str(i): _to_hashable(c).to_pandas() for i, c in enumerate(columns)})
    # categorize=False: keys hardly repeat, and finding that out costs a hash table.
    return pd.util.hash_pandas_object(frame, index=False, categorize=False).to_numpy(np.uint64)


def _to_hashable(column: pa.Array) -> pa.Array:
    """Texts as bytes, which need not be UTF-8, and decimals as texts."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type):
        return column.cast(pa.binary())
    return column.cast(pa.string()) if pa.types.is_decimal(column.type) else column


def _to_text(column: pa.Array) -> pa.Array:
    """The values as text; bytes as they are."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _to_text(column.dictionary_decode())
    if pa.types.is_string(kind):
        return column.cast(pa.binary())  # which need not be UTF-8
    binary = pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind)
    return column if binary else column.cast(pa.string())


def keep_smallest(key_hashes: np.ndarray) -> np.ndarray:
    """The k smallest of the hashes of distinct keys, in no order: all that a sample needs."""
    if len(key_hashes) <= _K:
        return key_hashes
    return np.partition(key_hashes, _K)[:_K]


def _empty(dtype: type) -> np.ndarray:
    return np.empty(0, dtype)


@dataclass
class KeySample:
    """The k smallest hashes of keys, and the number of rows with each."""

    keys: np.ndarray = field(default_factory=lambda: _empty(np.uint64))  # ascending
    counts: np.ndarray = field(default_factory=lambda: _empty(np.int64))

    def update(self, key_hashes: np.ndarray) -> None:
        if len(self.keys) == _K:
            key_hashes = key_hashes[key_hashes <= self.keys[-1]]
        keys, counts = np.unique(key_hashes, return_counts=True)
        self._keep(np.concatenate([self.keys, keys]), np.concatenate([self.counts, counts]))

    def merge(self, other: "KeySample") -> None:
        keys, counts = other.keys, other.counts
        if len(self.keys) == _K:  # a full sample: hardly any new key is among the smallest
            few = int(np.searchsorted(keys, self.keys[-1], side="right"))
            keys, counts = keys[:few], counts[:few]
        if len(keys):
            self._keep(np.concatenate([self.keys, keys]), np.concatenate([self.counts, counts]))

    def _keep(self, keys: np.ndarray, counts: np.ndarray) -> None:
        unique, place = np.unique(keys, return_inverse=True)
        total = np.bincount(place, weights=counts, minlength=len(unique)).astype(np.int64)
        self.keys, self.counts = unique[:_K], total[:_K]

    @property
    def distinct(self) -> float:
        """Estimated number of distinct keys; exact below k."""
        if len(self.keys) < _K:
            return float(len(self.keys))
        return (_K - 1) / (float(self.keys[-1]) / _HASHES)

    @property
    def repeats(self) -> float:
        """Estimated number of rows beyond the first of their key; exact below k distinct keys."""
        extra = float((self.counts - 1).sum())
        return extra if len(self.keys) < _K else extra * self.distinct / _K

    def to_document(self) -> dict[str, Any]:
        repeated = self.counts > 1
        return {
            "keys": self.keys.tobytes().hex(),
            "repeated": {str(int(i)): int(self.counts[i]) for i in np.flatnonzero(repeated)},
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "KeySample":
        keys = np.frombuffer(bytes.fromhex(document["keys"]), np.uint64)
        counts = np.ones(len(keys), np.int64)
        for place, count in document["repeated"].items():
            counts[int(place)] = count
        return cls(keys, counts)
