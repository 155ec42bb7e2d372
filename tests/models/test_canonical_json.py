"""Equal documents have equal bytes."""

import pytest

from models import canonical_json
from models.refusal import Refusal


def test_equal_documents_are_equal_bytes() -> None:
    assert canonical_json.encode({"b": 1, "a": "ü"}) == canonical_json.encode({"a": "ü", "b": 1})
    assert canonical_json.encode({"b": 1, "a": "ü"}) == '{"a":"ü","b":1}'.encode()


def test_older_digests_have_their_own_spaces_and_escapes() -> None:
    document = {"b": [1, 2], "a": "ü"}
    assert canonical_json.encode(document, ascii_only=True) == b'{"a":"\\u00fc","b":[1,2]}'
    assert canonical_json.encode(document, spaced=True) == '{"a": "ü", "b": [1, 2]}'.encode()


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json.encode({"loss": float("nan")})


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(Refusal, match="here: expected a JSON object, found a list"):
        canonical_json.decode(b"[]", "here")
    for data in (b"{", b"[" * 100_000):
        with pytest.raises(Refusal, match="here: expected a JSON document"):
            canonical_json.decode(data, "here")
    deep = b'{"a":' * 60 + b"1" + b"}" * 60
    with pytest.raises(Refusal, match="here: expected JSON of at most 50 levels, found more"):
        canonical_json.decode(deep, "here")
    for constant in (b"NaN", b"-Infinity"):
        with pytest.raises(Refusal, match=r"here: expected a JSON document, found .* no number of"):
            canonical_json.decode(b'{"a":' + constant + b"}", "here")
