"""Texts: bytes as tokens, hashed words and 3-grams, and refusals."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from models.columns import Text
from models.decoding.texts import MOST_CHARACTERS, find_grams, tokens_to_text, weigh_grams
from tests.models.flows import batch_of, one_column


def extract(encoder: Any, values: Any) -> Any:
    return encoder.extract(batch_of(pa.table({"t": values})))


@pytest.mark.parametrize(
    "cast",
    [
        lambda a: a,
        lambda a: a.cast(pa.large_string()),
        lambda a: a.cast(pa.string_view()),
        lambda a: a.dictionary_encode(),
        lambda a: pa.concat_arrays([pa.array(["x", "yz"]), a]).slice(2),
    ],
)
def test_tokens_are_the_first_bytes_and_then_padding(cast: Any) -> None:
    texts = cast(pa.array(["ab", "é", "", "abcdef"]))
    encoder = one_column(pa.array(["ab", "cd"]), Text("t", length=4))
    (tokens,) = encoder.layout.tokens
    assert (tokens.name, tokens.size, tokens.length) == ("t", 258, 4)
    found = extract(encoder, texts)
    assert found.tokens[0].dtype == np.int32
    assert found.tokens[0].tolist() == [
        [99, 100, 0, 0],
        [0xC3 + 2, 0xA9 + 2, 0, 0],
        [0, 0, 0, 0],
        [99, 100, 101, 102],
    ]
    assert tokens_to_text(found.tokens[0][1]) == "é"


def test_words_and_3_grams_are_always_hashed_to_the_same_bins() -> None:
    """Another hash would make old bundles wrong."""
    assert np.flatnonzero(weigh_grams(["disk full"], 32)).tolist() == [4, 17, 19, 23, 26, 28, 30]


def test_a_bag_has_norm_one_and_does_not_depend_on_other_texts_or_case() -> None:
    texts = ["disk full on host a", "", "ß ünïcode 😀 text", "DISK FULL on host A", "x"]
    whole = weigh_grams(texts, 64)
    np.testing.assert_allclose((whole**2).sum(1), [1, 0, 1, 1, 1], rtol=1e-6)
    for row, text in enumerate(texts):
        np.testing.assert_array_equal(weigh_grams([text], 64)[0], whole[row])
    np.testing.assert_array_equal(whole[0], whole[3])


def test_all_words_and_3_grams_of_a_text_are_found() -> None:
    text = "to be, or"
    found = find_grams([text], 97)
    parts = sorted(text[s : s + n] for s, n in zip(found.start, found.length, strict=True))
    threes = [text[i : i + 3] for i in range(len(text) - 2)]
    assert parts == sorted([*threes, "to", "be", "or"])
    assert len(np.unique(found.bin)) > 7


def test_a_word_has_another_bin_than_the_same_3_gram() -> None:
    found = find_grams(["the"], 1 << 30)
    assert len(set(found.bin.tolist())) == 2


def test_only_the_beginning_of_a_very_long_text_is_hashed() -> None:
    long = "a b" * MOST_CHARACTERS
    np.testing.assert_array_equal(
        weigh_grams([long], 16), weigh_grams([long[:MOST_CHARACTERS]], 16)
    )


def test_ngrams_are_a_scaled_vector_and_can_be_left_out() -> None:
    texts = ["disk full", "user login", "disk error", "user logout"]
    encoder = one_column(texts, Text("t", ngrams=16))
    (signal,) = encoder.layout.signals
    assert (signal.name, signal.kind, signal.shape) == ("t n-grams", "vector", (16,))
    encoded = encoder(extract(encoder, texts)).signals[0]
    assert encoded.mean(0).abs().max() < 1e-5
    assert not one_column(texts, Text("t", ngrams=0)).layout.signals


def test_invalid_utf8_is_a_problem_and_null_is_one_unless_training_had_nulls() -> None:
    raw = pa.array([b"good", b"\xff\xfe", None]).view(pa.string())
    found = extract(one_column(["ab"], Text("t")), raw)
    assert [(p.row, p.rule) for p in found.problems] == [
        (1, "invalid_utf8"),
        (2, "unexpected_null"),
    ]
    encoder = one_column(["ab", None, "cd"], Text("t", length=4, ngrams=8))
    encoded = encoder(extract(encoder, ["ab", None]))
    assert encoded.numeric.tolist() == [[0.0], [1.0]]
    assert not encoded.tokens[0][1].any()
    assert not encoded.signals[0][1].any()
