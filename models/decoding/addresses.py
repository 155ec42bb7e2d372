"""Parses IPv4 and IPv6 addresses and tells their kind.

The networks come from the IANA special-purpose address registries (RFC 6890 and its updates). They
are listed here because `ipaddress` changes its answers between patch releases of Python, and a
bundle must give the same score after an upgrade.
"""

import socket
from collections.abc import Iterable
from ipaddress import ip_network
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Bools = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]

PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
MULTICAST = ("224.0.0.0/4", "ff00::/8")
RESERVED = (  # of no host on the internet: loopback, link-local, test, future use
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "240.0.0.0/4",
    "::/64",  # unspecified and loopback; nothing else is assigned
    "100::/64",
    "2001:db8::/32",
    "fe80::/10",
)
MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:a.b.c.d is the IPv4 address a.b.c.d (RFC 4291, 2.5.5.2)
LONGEST = 15  # characters of "255.255.255.255"


class Addresses(NamedTuple):
    """Parsed addresses, [rows]."""

    version: npt.NDArray[np.uint8]  # 4 or 6; 0 if the text is not an address
    head: Words  # the IPv4 address, or the first 64 bits of the IPv6 address

    def take(self, indices: npt.NDArray[np.int32]) -> "Addresses":
        return Addresses(self.version[indices], self.head[indices])

    def lie_in(self, networks: Iterable[str]) -> Bools:
        """Which addresses lie in one of the networks, given as prefixes of at most 64 bits."""
        found = np.zeros(len(self.version), bool)
        for text in networks:
            network = ip_network(text)
            bits = 32 if network.version == 4 else 64
            base = int(network.network_address) >> (network.max_prefixlen - bits)
            shift = np.uint64(bits - network.prefixlen)
            inside = (self.head >> shift) == np.uint64(base >> int(shift))
            found |= inside & (self.version == network.version)
        return found

    def share_network(self, other: "Addresses", prefix: int) -> Bools:
        """Which pairs share their first `prefix` bits (IPv4) or 64 bits (IPv6).

        An IPv6 subnet has 64 bits (RFC 4291, section 2.5.4).
        """
        difference = self.head ^ other.head
        near = (difference >> np.uint64(32 - prefix)) == 0
        same = np.where(self.version == 4, near, difference == 0)
        result: Bools = (self.version == other.version) & (self.version != 0) & same
        return result


def parse(texts: pa.Array) -> Addresses:
    """Parse a string array without nulls. Text that is not an address gets version 0.

    >>> parse(pa.array(["10.0.0.1", "fe80::1", "no"])).version.tolist()
    [4, 6, 0]
    """
    version, head = _parse4(texts)
    odd = np.flatnonzero(version == 0)
    for row, text in zip(odd, texts.take(pa.array(odd)).cast(_to_binary(texts)), strict=True):
        version[row], head[row] = _parse6(text.as_py())
    return Addresses(version, head)


def _to_binary(texts: pa.Array) -> pa.DataType:
    return pa.large_binary() if pa.types.is_large_string(texts.type) else pa.binary()


def _parse6(raw: bytes) -> tuple[int, int]:
    address, _, _ = raw.partition(b"%")  # a zone, as in fe80::1%eth0, is not part of the address
    try:
        packed = socket.inet_pton(socket.AF_INET6, address.decode("ascii"))
    except (OSError, ValueError):  # ValueError: not ASCII, or a NUL character
        return 0, 0
    if packed.startswith(MAPPED):
        return 4, int.from_bytes(packed[12:])
    return 6, int.from_bytes(packed[:8])


def _parse4(texts: pa.Array) -> tuple[npt.NDArray[np.uint8], Words]:
    """Parse dotted quads without leading zeros, like `inet_pton`, over all bytes at once."""
    rows = len(texts)
    version, head = np.zeros(rows, np.uint8), np.zeros(rows, np.uint64)
    short = np.asarray(pc.less_equal(pc.binary_length(texts), LONGEST))
    dotted = short & np.asarray(pc.equal(pc.count_substring(texts, "."), 3))
    candidates = np.flatnonzero(dotted)
    if not len(candidates):
        return version, head
    chosen = pc.take(texts, pa.array(candidates)).cast(_to_binary(texts)).cast(pa.binary())
    offsets = np.frombuffer(chosen.buffers()[1], np.int32)[: len(chosen) + 1]
    data = np.frombuffer(chosen.buffers()[2], np.uint8)[: offsets[-1]]
    dots = np.flatnonzero(data == ord(".")).reshape(-1, 3)
    starts = np.column_stack([offsets[:-1], dots + 1])
    ends = np.column_stack([dots, offsets[1:]])
    lengths = ends - starts
    good = ((lengths >= 1) & (lengths <= 3)).all(axis=1)
    octets = np.zeros(starts.shape, np.int64)
    for place in range(3):
        there = lengths > place
        digit = data[np.maximum(ends - 1 - place, 0)].astype(np.int64) - ord("0")
        good &= (~there | ((digit >= 0) & (digit <= 9))).all(axis=1)
        octets += np.where(there, digit, 0) * 10**place
    leading_zero = (data[np.minimum(starts, len(data) - 1)] == ord("0")) & (lengths > 1)
    good &= ((octets <= 255) & ~leading_zero).all(axis=1)
    quads = octets[good].astype(np.uint64)
    version[candidates[good]] = 4
    head[candidates[good]] = quads @ np.array([1 << 24, 1 << 16, 1 << 8, 1], np.uint64)
    return version, head
