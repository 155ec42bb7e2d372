"""The digest that a store has of an object: the bytes that arrive are compared with it."""

import base64
import hashlib
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Data = bytes | bytearray

_MD5 = re.compile(r"[0-9a-f]{32}")  # the ETag of an object of several parts has a "-", too
# Of these, encryption with a key makes the ETag something else.
_OTHER_ETAGS = ("aws:kms", "aws:kms:dsse")


def _crc32(data: Data) -> bytes:
    return zlib.crc32(data).to_bytes(4, "big")


# By the name in S3's answers. CRC32C and CRC64NVME need a library of their own.
_ALGORITHMS: dict[str, Callable[[Data], bytes]] = {
    "ChecksumSHA256": lambda data: hashlib.sha256(data).digest(),
    "ChecksumSHA1": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    "ChecksumCRC32": _crc32,
}


@dataclass(frozen=True)
class StoredDigest:
    """A digest of the whole object."""

    compute: Callable[[Data], bytes]
    value: bytes
    certain: bool  # False for an ETag: some stores give another value than S3, which looks alike

    def matches(self, data: Data) -> bool:
        return self.compute(data) == self.value


def find_etag(answer: Mapping[str, Any]) -> StoredDigest | None:
    """The MD5 in the ETag of an answer about an object; None where the ETag is none by S3's rules:
    of an object of several parts, or encrypted with a key of KMS or of the client."""
    etag = str(answer["ETag"]).strip('"')
    keyed = answer.get("ServerSideEncryption") in _OTHER_ETAGS or "SSECustomerAlgorithm" in answer
    if keyed or not _MD5.fullmatch(etag):
        return None
    return StoredDigest(_md5, bytes.fromhex(etag), certain=False)


def find_checksum(answer: Mapping[str, Any]) -> StoredDigest | None:
    """The checksum of the whole object in an answer that was asked for with `ChecksumMode`; None
    where there is none that can be computed here, or one of parts alone."""
    for name, compute in _ALGORITHMS.items():
        text = str(answer.get(name, ""))
        if text and "-" not in text and answer.get("ChecksumType") != "COMPOSITE":
            return StoredDigest(compute, base64.b64decode(text), certain=True)
    return None


def _md5(data: Data) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()
