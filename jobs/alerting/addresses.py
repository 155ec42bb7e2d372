"""Which addresses a webhook may be called at: those of the internet, and those that are listed.

What is global is Python's reading of IANA's registries of special-purpose addresses. Metadata
services are never called: whoever reaches one from inside a cloud gets the machine's credentials.
"""

from collections.abc import Iterable, Iterator
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# From the providers' own documentation. Those of AWS, Azure, GCP, DigitalOcean, Oracle and
# OpenStack at 169.254.169.254 or fe80::a9fe:a9fe, of ECS and EKS at 169.254.170.2 and .23, and of
# Tencent at 169.254.0.23 are link-local.
METADATA = {
    ip_address(address): cloud
    for address, cloud in {
        "100.100.100.200": "Alibaba Cloud",
        "168.63.129.16": "Azure",
        "192.0.0.192": "Oracle Cloud",
        "fd00:ec2::254": "AWS",
        "fd00:ec2::23": "AWS",
        "fd20:ce::254": "Google Cloud",
        "fd00:c1::a9fe:a9fe": "Oracle Cloud",
        "fd00:42::42": "Scaleway",
    }.items()
}
# Addresses of IPv6 that hold one of IPv4 in their last 32 bits: NAT64 (RFC 6052 and 8215), and the
# deprecated ::a.b.c.d (RFC 4291).
_HOLDS_IPV4 = [ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96")]


def find_problem(address: str, listed: Iterable[Network] = ()) -> str | None:
    """Why the address must not be called; None if it may.

    >>> find_problem("64:ff9b::a9fe:a9fe")
    'a link-local address, where clouds keep their secrets'
    >>> find_problem("10.1.2.3")
    'which is no address of the internet: list it in ANOMARAY_WEBHOOK_HOSTS to allow it'
    >>> find_problem("10.1.2.3", parse_networks(["10.0.0.0/8"]))
    """
    networks = tuple(listed)
    outer = ip_address(address.partition("%")[0])
    problems = (_judge(one, networks) for one in _unwrap(outer))
    return next((problem for problem in problems if problem), None)


def parse_networks(entries: Iterable[str]) -> tuple[Network, ...]:
    """The entries that are an address, with or without a port, or a network."""
    found = []
    for entry in entries:
        host = entry.strip()
        if host.startswith("["):
            host = host[1:].partition("]")[0]
        elif host.count(":") == 1:
            host = host.partition(":")[0]
        try:
            found.append(ip_network(host, strict=False))
        except ValueError:
            continue  # a name
    return tuple(found)


def _judge(address: Address, listed: tuple[Network, ...]) -> str | None:
    if address.is_link_local:
        return "a link-local address, where clouds keep their secrets"
    if cloud := METADATA.get(address):
        return f"where {cloud} keeps the secrets of its machines"
    if address.is_multicast or address.is_unspecified:
        return "which is not the address of a host"
    if any(address in network for network in listed if network.version == address.version):
        return None
    if address.is_loopback:
        return "which is this machine"
    if address.is_reserved or not address.is_global:
        return "which is no address of the internet: list it in ANOMARAY_WEBHOOK_HOSTS to allow it"
    return None


def _unwrap(address: Address) -> Iterator[Address]:
    """The address, and those of IPv4 that packets to it would reach through a tunnel."""
    inner: list[IPv4Address | None] = []
    if isinstance(address, IPv6Address):
        teredo = address.teredo  # server and client (RFC 4380)
        inner = [address.ipv4_mapped, address.sixtofour, *(teredo or ())]
        if any(address in network for network in _HOLDS_IPV4) and int(address) > 1:
            inner.append(IPv4Address(int(address) & 0xFFFFFFFF))
        if (int(address) >> 32) & 0xFDFFFFFF == 0x5EFE:  # ISATAP (RFC 5214)
            inner.append(IPv4Address(int(address) & 0xFFFFFFFF))
    found = [one for one in inner if one is not None]
    # Packets to a mapped or translated address go to the inner one alone.
    if not found or not (address.ipv4_mapped or address in _HOLDS_IPV4[0]):  # type: ignore[union-attr]
        yield address
    yield from found
