"""Who made a champion: entries of the registry signed with Ed25519 (RFC 8032).

What is signed is the whole entry: its number, the watch, and the SHA-256 of the threshold and of
the bundle's manifest, which has those of all its files. So a signature holds for one bundle and one
threshold, in one watch, at one place of its history: no earlier entry can stand in for a later one.
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

from models import canonical_json
from models.refusal import Refusal

_SCHEME = "ed25519:"
# Begins what is signed, so that the key's signatures of anything else are none of an entry.
_DOMAIN = b"anomaray champion 1\n"


@dataclass(frozen=True)
class SigningKey:
    """A private key; it is in no repr, so in no message and no trace."""

    key: Ed25519PrivateKey = field(repr=False)

    @property
    def public(self) -> str:
        """`ed25519:` and 32 bytes in base64, as a spec lists it."""
        raw = self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return _SCHEME + base64.b64encode(raw).decode()

    def sign(self, statement: Mapping[str, Any]) -> dict[str, str]:
        """The signature, as an entry has it."""
        value = base64.b64encode(self.key.sign(_message(statement))).decode()
        return {"key": self.public, "value": value}


def make_key(path: Path) -> SigningKey:
    """A new key in a new file that only its owner can read (mode 0600)."""
    made = SigningKey(Ed25519PrivateKey.generate())
    pem = made.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise Refusal(f"{path} exists: a key is never overwritten; name another file") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    return made


def load_key(path: Path) -> SigningKey:
    """The key of `make_key`. `Refusal` for another kind of key, and for a file that all may read
    or its group may write; a mounted secret is often readable to a group."""
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
            "0600: if it was ever shared, make a new one with `python -m jobs keys`"
        )
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError) as error:
        raise Refusal(f"signing key {path}: expected an Ed25519 key without a password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise Refusal(f"signing key {path}: expected an Ed25519 key, found another kind")
    return SigningKey(key)


def public_key(text: str) -> Ed25519PublicKey:
    """The key that `SigningKey.public` names. Raises ValueError."""
    if not text.startswith(_SCHEME):
        raise ValueError(
            "expected ed25519: and a key in base64, as `python -m jobs keys` prints it"
        )
    try:
        raw = base64.b64decode(text[len(_SCHEME) :], validate=True)
        return Ed25519PublicKey.from_public_bytes(raw)
    except (binascii.Error, ValueError):
        raise ValueError("expected 32 bytes in base64 after ed25519:") from None


def verify(
    statement: Mapping[str, Any], signature: Mapping[str, str] | None, keys: Iterable[str]
) -> None:
    """Raise `Refusal` unless one of the keys signed the statement; says what is wrong, as the end
    of a sentence."""
    trusted = tuple(keys)
    if not isinstance(signature, Mapping):
        raise Refusal("is not signed")
    key, value = signature.get("key"), signature.get("value")
    if key not in trusted:
        raise Refusal(f"is signed with the key {key}, which is none of the spec's")
    try:
        public_key(key).verify(base64.b64decode(str(value), validate=True), _message(statement))
    except (InvalidSignature, binascii.Error, ValueError):
        raise Refusal(
            "has a signature that is not of it: it was changed, or is the entry of another watch "
            "or another time"
        ) from None


def _message(statement: Mapping[str, Any]) -> bytes:
    return _DOMAIN + canonical_json.encode(statement, ascii_only=True)
