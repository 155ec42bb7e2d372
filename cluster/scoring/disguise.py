"""Disguise of sensitive columns before anything is written: as masks, or as keyed digests.

A mask keeps the last four digits of a card number (ISO/IEC 7812: up to 19 digits), and nothing of
any other value. A digest is HMAC-SHA-256 (RFC 2104) under a key that is in no output. A value has
the same digest in every run, so flags of one address can be counted and joined, but nobody without
the key can try out addresses.
"""

import hashlib
import hmac
import os
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from cluster.lake.types.python_values import to_python
from models.columns import Roles
from models.refusal import Refusal

KEY, KEY_FILE = "ANOMARAY_HMAC_KEY", "ANOMARAY_HMAC_KEY_FILE"
# A key shorter than the digest weakens it (RFC 2104, section 3).
_LEAST_BYTES = 32
# 128 bits: two of 10^15 values share a digest with probability 1e-9.
_DIGITS = 32
_HIDDEN = "****"
_CARD = r"^[0-9]{12,19}$"


@dataclass(frozen=True)
class Secret:
    """The key of the digests. Its bytes are in no repr, and so in no message or traceback."""

    key: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """Eight hexadecimal digits that name the key without revealing it."""
        return self.digest(b"id", b"")[:8]

    def digest(self, purpose: bytes, value: bytes) -> str:
        """HMAC-SHA-256 of purpose (without NUL), NUL and value. The purpose ensures that no value,
        whoever chose it, has the digest of something else."""
        return hmac.digest(self.key, purpose + b"\0" + value, hashlib.sha256).hex()


def load_secret(environment: dict[str, str] | None = None) -> Secret:
    """Read the key from the file that `ANOMARAY_HMAC_KEY_FILE` names, or from `ANOMARAY_HMAC_KEY`.

    Raises `Refusal` for a key that is missing or shorter than 32 bytes.
    """
    variables = os.environ if environment is None else environment
    if path := variables.get(KEY_FILE):
        try:
            key, where = Path(path).read_bytes().strip(), KEY_FILE
        except OSError as error:
            raise Refusal(f"{KEY_FILE}: expected a file with a key: {error.strerror}") from None
    else:
        key, where = variables.get(KEY, "").encode().strip(), KEY
    if not key:
        raise Refusal(
            f"a column is `sensitive: hmac`, and there is no key: expected {KEY_FILE} to name a "
            f"file with a key (made by `openssl rand -hex 32`), or {KEY} to hold it, on every node"
        )
    if len(key) < _LEAST_BYTES:
        raise Refusal(
            f"{where}: expected a key of {_LEAST_BYTES} bytes or more, found {len(key)}; make one "
            "with `openssl rand -hex 32`"
        )
    return Secret(key)


@dataclass(frozen=True)
class Disguise:
    """Disguises the sensitive columns of a watch."""

    roles: Roles
    secret: Secret | None = None  # None if no column is keyed

    @classmethod
    def of(cls, roles: Roles) -> "Disguise":
        """With the key from the environment, if a column needs one."""
        return cls(roles, load_secret() if roles.keyed else None)

    def require_key(self, key_id: str) -> "Disguise":
        """Returns itself; raises `Refusal` if its key is not the one with this id."""
        if self.key_id != key_id:
            raise Refusal(
                f"the key for `sensitive: hmac` on this node is {self.key_id or 'missing'}, and "
                f"{key_id or 'missing'} where the run was started: give all nodes the same key"
            )
        return self

    @property
    def key_id(self) -> str:
        """The id of the key; "" without a key."""
        return self.secret.id if self.secret else ""

    @property
    def hash_key(self) -> str | None:
        """Sixteen characters made from the key, for hashes of ids; None if ids are not secret."""
        if self.secret is None or not self.roles.keyed & set(self.roles.id):
            return None
        return self.secret.digest(b"count", b"")[:16]

    def hide(self, table: pa.Table) -> pa.Table:
        """The table with its sensitive columns as text that may be written and shown."""
        for place, name in enumerate(table.schema.names):
            if name in self.roles.sensitive:
                table = table.set_column(place, name, self._hide_column(name, table.column(name)))
        return table

    def _hide_column(self, name: str, column: pa.ChunkedArray) -> pa.Array:
        whole = column.combine_chunks()
        if name not in self.roles.keyed:
            return mask_values(whole)
        assert self.secret is not None
        return digest_values(whole, self.secret)


def mask_values(column: pa.Array) -> pa.Array:
    """`****`, and the last four digits of a card number; null stays null. Text [rows]."""
    text = _to_text(column)
    if text is None:
        return pc.if_else(pc.is_valid(column), _HIDDEN, pa.scalar(None, pa.string()))
    digits = pc.replace_substring_regex(text, r"[ \-]", "")
    card = pc.match_substring_regex(digits, _CARD)
    tail = pc.if_else(card, pc.utf8_slice_codeunits(digits, -4), "")
    return pc.binary_join_element_wise(_HIDDEN, tail, "")


def digest_values(column: pa.Array, secret: Secret) -> pa.Array:
    """`<id of the key>:<digest>` of each value; null stays null. Text [rows]."""
    text = _to_text(column)
    if text is None:
        text = pa.array([None if v is None else repr(v).encode() for v in to_python(column)])
    values = text.dictionary_encode()
    digests = [
        f"{secret.id}:{secret.digest(b'value', _to_bytes(value))[:_DIGITS]}"
        for value in values.dictionary.to_pylist()
    ]
    return pa.array(digests, pa.string()).take(values.indices)


def _to_text(column: pa.Array) -> pa.Array | None:
    """The values as text; None for bytes and nested values, which have no one spelling."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    plain = pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if plain or pa.types.is_decimal(kind) or pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return column.cast(pa.string())
    return None


def _to_bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
