"""The sample of keys: exact when small, unbiased when large, never crying wolf."""

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.splits.key_sample import KeySample, hash_keys


def sample_of(keys: np.ndarray) -> KeySample:
    sample = KeySample()
    sample.update(hash_keys([pa.array(keys)]))
    return sample


@given(st.lists(st.integers(0, 50), min_size=1, max_size=200), st.integers(0, 200))
def test_two_merged_samples_say_what_one_says_of_all_rows(keys: list[int], cut: int) -> None:
    whole = sample_of(np.array(keys))
    merged = KeySample()
    for part in (keys[:cut], keys[cut:]):
        if part:
            merged.merge(KeySample.from_document(sample_of(np.array(part)).to_document()))
    assert merged.distinct == whole.distinct == len(set(keys))
    assert merged.repeats == whole.repeats == len(keys) - len(set(keys))


def test_unique_keys_are_never_called_repeated() -> None:
    assert sample_of(np.arange(200_000)).repeats == 0


def test_large_counts_are_estimated_within_their_error() -> None:
    keys = np.concatenate([np.arange(300_000), np.arange(60_000)])
    sample = KeySample()
    for part in np.array_split(keys, 7):
        sample.merge(sample_of(part))
    assert sample.distinct == pytest.approx(300_000, rel=0.12)
    assert sample.repeats == pytest.approx(60_000, rel=0.35)


def test_keys_of_several_columns_are_told_apart() -> None:
    first = hash_keys([pa.array(["a", "a", "b"]), pa.array([1, 2, 1])])
    assert len(set(first.tolist())) == 3


def test_neighbours_among_wide_decimals_are_told_apart() -> None:
    """A float64 would make one of hundreds of such ids."""
    ids = [Decimal(12345678901234567000 + step) for step in range(400)]
    for kind in (pa.decimal128(38, 0), pa.decimal256(76, 0)):
        assert len(np.unique(hash_keys([pa.array(ids, kind)]))) == 400
