"""Entries of the registry signed with Ed25519 (RFC 8032), to prove who made a champion.

The signature covers the whole entry: its number, the watch, and the SHA-256 of the threshold and of
the bundle's manifest, which has a digest of each file. So it holds for one bundle and one threshold
in one watch at one place of its history: no earlier entry can stand in for a later one.
"""

import base64
import binascii
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from cluster.lake.storage import beneath
from models import canonical_json
from models.refusal import Refusal

_SCHEME = "ed25519:"
# Begins each signed message, so that no other signature of the key passes for one of an entry.
_DOMAIN = b"anomaray champion 1\n"


@dataclass(frozen=True)
class Signature:
    key: str  # as `SigningKey.public`
    value: str  # base64

    @classmethod
    def from_document(cls, document: Any) -> "Signature | None":
        """The signature in an entry's JSON; None where there is none."""
        if not isinstance(document, Mapping) or set(document) != {"key", "value"}:
            return None
        return cls(str(document["key"]), str(document["value"]))


@dataclass(frozen=True)
class SigningKey:
    """A private key. Its repr, and so messages and tracebacks, do not show it."""

    key: Ed25519PrivateKey = field(repr=False)

    @property
    def public(self) -> str:
        """The public key as a spec lists it: `ed25519:` and 32 bytes in base64."""
        raw = self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return _SCHEME + base64.b64encode(raw).decode()

    def sign(self, statement: Mapping[str, Any]) -> Signature:
        value = base64.b64encode(self.key.sign(_message(statement))).decode()
        return Signature(self.public, value)


def make_key(path: Path) -> SigningKey:
    """Make a key, in a new file that only its owner can read (mode 0600)."""
    signing_key = SigningKey(Ed25519PrivateKey.generate())
    pem = signing_key.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise Refusal(f"{path} exists: a key is never overwritten; name another file") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(descriptor)
    with beneath.open_folder(path.absolute().parent, ()) as folder:
        beneath.flush_folder(folder)
    return signing_key


def load_key(path: Path) -> SigningKey:
    """Load the key of `make_key`.

    Raises `Refusal` for another kind of key, and for a file that everyone may read or the group
    may write. The group may read it, because mounted secrets are often like that.
    """
    try:
        mode = path.stat().st_mode
        data = path.read_bytes()
    except OSError as error:
        raise Refusal(
            f"signing key {path}: expected a file, found none ({error.strerror})"
        ) from None
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise Refusal(
            f"signing key {path}: others may use it (mode {stat.S_IMODE(mode):04o}); expected "
            "0600; if the key was ever shared, make a new one with the verb `keys`"
        )
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError) as error:
        raise Refusal(f"signing key {path}: expected an Ed25519 key without a password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise Refusal(f"signing key {path}: expected an Ed25519 key, found another kind")
    return SigningKey(key)


def parse_public_key(text: str) -> Ed25519PublicKey:
    """Parse `SigningKey.public`. Raises ValueError for any other text."""
    if not text.startswith(_SCHEME):
        raise ValueError("expected ed25519: and a key in base64, as the verb `keys` prints it")
    try:
        raw = base64.b64decode(text[len(_SCHEME) :], validate=True)
        return Ed25519PublicKey.from_public_bytes(raw)
    except (binascii.Error, ValueError):
        raise ValueError("expected 32 bytes in base64 after ed25519:") from None


def verify(statement: Mapping[str, Any], signature: Signature | None, keys: Iterable[str]) -> None:
    """Raise `Refusal` unless one of the keys signed the statement.

    Its message is the end of a sentence about the entry: "is not signed".
    """
    if signature is None:
        raise Refusal("is not signed")
    if signature.key not in tuple(keys):
        raise Refusal(f"is signed with the key {signature.key}, which the spec does not list")
    try:
        value = base64.b64decode(signature.value, validate=True)
        parse_public_key(signature.key).verify(value, _message(statement))
    except (InvalidSignature, binascii.Error, ValueError):
        raise Refusal(
            "does not match its signature: it was changed, or is the entry of another watch or "
            "another time"
        ) from None


def _message(statement: Mapping[str, Any]) -> bytes:
    return _DOMAIN + canonical_json.encode(statement, ascii_only=True)
