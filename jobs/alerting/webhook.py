"""One HTTPS POST to a host that the operator allows, and to nothing else.

A spec names a webhook; who may write a spec may not thereby reach what the driver can reach: the
cloud's metadata service, a database behind the firewall. So the host has to be on the operator's
list, its name is resolved once, every address is looked at, the connection goes to the very address
that was looked at, and no redirect is followed.
"""

import ipaddress
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import urllib3

from models.refusal import Refusal

ALLOWED = "ANOMARAY_WEBHOOK_HOSTS"
_TIMEOUT = urllib3.Timeout(connect=5.0, read=10.0)
# Busy or broken for a moment: tried again after 0.5, 1 and 2 s.
_RETRIES = urllib3.Retry(
    total=3,
    redirect=0,
    backoff_factor=0.5,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=("POST",),
    raise_on_status=False,
    raise_on_redirect=False,
    respect_retry_after_header=False,  # the other side does not decide how long a night lasts
)
_METADATA_V6 = ipaddress.ip_address("fd00:ec2::254")


class Undelivered(Exception):
    """A message that did not arrive; the text names the host, never the URL, which is a secret."""


@dataclass(frozen=True)
class Webhook:
    """A URL that may be called: made by `allowed`."""

    host: str
    port: int
    target: str = field(repr=False)  # path and query: they hold the token
    secure: bool = True

    def post(self, document: dict[str, Any]) -> None:
        """Send the document as JSON. Raises `Undelivered`; `Refusal` for a forbidden address."""
        address = self._address()
        try:
            with self._pool(address) as pool:
                answer = pool.request(
                    "POST",
                    self.target,
                    body=json.dumps(document).encode(),
                    headers={"Content-Type": "application/json", "Host": self._named()},
                    redirect=False,
                    retries=_RETRIES,
                    timeout=_TIMEOUT,
                    preload_content=False,  # what it answers is of no interest, at any length
                )
                answer.close()
        except urllib3.exceptions.HTTPError as error:
            raise Undelivered(f"{self.host}: {type(error).__name__}") from None
        if 300 <= answer.status < 400:
            raise Undelivered(f"{self.host} answered {answer.status}: redirects are not followed")
        if answer.status >= 400:
            raise Undelivered(f"{self.host} answered {answer.status}")

    def _pool(self, address: str) -> urllib3.HTTPConnectionPool:
        """Connections to the address, held to the certificate of the name."""
        if not self.secure:
            return urllib3.HTTPConnectionPool(address, self.port)
        return urllib3.HTTPSConnectionPool(
            address,
            self.port,
            server_hostname=self.host,
            assert_hostname=self.host,
            cert_reqs="CERT_REQUIRED",
        )

    def _named(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def _address(self) -> str:
        """The first address of the host, where all of them may be called."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Undelivered(f"{self.host} has no address: {error}") from None
        addresses = [str(entry[4][0]) for entry in found]
        for address in addresses:
            if reason := _forbidden(address, self.host):
                raise Refusal(f"{self.host} is at {address}, {reason}: no webhook is sent there")
        return addresses[0]


def allowed(url: str, hosts: Sequence[str] | None = None) -> Webhook:
    """The webhook at the URL; raises `Refusal` where its host is not in `hosts`.

    `hosts`: names, `*.domain` for those below a domain, each with `:port` where it is not 443; by
    default those of ANOMARAY_WEBHOOK_HOSTS, separated by commas. Plain http is for an address of
    this machine alone, which has to be listed as it is written.
    """
    listed = _listed() if hosts is None else tuple(hosts)
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    if parts.scheme not in ("https", "http") or not host or "@" in parts.netloc:
        raise Refusal("expected https://host/path, without user and password, as a webhook")
    secure = parts.scheme == "https"
    if not secure and not _is_loopback(host):
        raise Refusal(f"the webhook at {host}: expected https://, found http://")
    port = port or (443 if secure else 80)
    if not any(_matches(host, port, entry.strip().lower()) for entry in listed):
        there = ", ".join(listed) or "none"
        raise Refusal(
            f"the webhook's host {host}:{port} is not among those that {ALLOWED} allows ({there})"
        )
    target = parts.path or "/"
    return Webhook(host, port, f"{target}?{parts.query}" if parts.query else target, secure)


def _listed() -> tuple[str, ...]:
    return tuple(entry for entry in os.environ.get(ALLOWED, "").split(",") if entry.strip())


def _matches(host: str, port: int, entry: str) -> bool:
    parts = urlsplit(f"//{entry}")
    name = (parts.hostname or "").rstrip(".")
    if port != (parts.port or 443):
        return False
    return host.endswith(name[1:]) if name.startswith("*.") else host == name


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _forbidden(address: str, host: str) -> str | None:
    """Why nothing is sent to this address; private networks are the operator's own choice."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    if found.is_link_local or found == _METADATA_V6:
        return "which is link-local, where clouds keep their secrets"
    if found.is_loopback and not _is_loopback(host):
        return "which is this machine"
    if found.is_multicast or found.is_unspecified or found.is_reserved:
        return "which is no host's address"
    return None
