"""JSON documents in one canonical form, so that equal facts are equal bytes and equal digests."""

import json
from typing import Any

from models.refusal import Refusal


def encode(document: dict[str, Any]) -> bytes:
    """Sorted keys, no spaces, UTF-8. `ValueError` for NaN and infinity, which are no JSON."""
    text = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def decode(data: bytes, where: str) -> dict[str, Any]:
    """The document in `data`; `where` names it in the `Refusal` of anything else."""
    try:
        document = json.loads(data)
    except ValueError as error:
        raise Refusal(f"{where}: expected a JSON document, found something else: {error}") from None
    if not isinstance(document, dict):
        raise Refusal(f"{where}: expected a JSON object, found a {type(document).__name__}")
    return document
