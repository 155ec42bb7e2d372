"""One HTTPS POST, only to a host that the operator allows.

Whoever writes a spec names a webhook, but must not reach other services of the driver's network:
the cloud's metadata service, a database behind the firewall. Therefore the host must be on the
operator's list. Its name is resolved once and every address is checked; the connection goes to a
checked address (`addresses.py`), and redirects are not followed.
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

from jobs.alerting.addresses import Network, find_problem, parse_networks
from models.refusal import Refusal

ALLOWED = "ANOMARAY_WEBHOOK_HOSTS"
_TIMEOUT = urllib3.Timeout(connect=5.0, read=10.0)
# A busy server is tried again after 0.5, 1 and 2 s.
_RETRIES = urllib3.Retry(
    total=3,
    redirect=0,
    backoff_factor=0.5,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=("POST",),
    raise_on_status=False,
    raise_on_redirect=False,
    respect_retry_after_header=False,  # the server must not prolong the night
)
_MOST_CHARACTERS = 2_000  # of a URL; the longest that services give out have a few hundred


class Undelivered(Exception):
    """A message did not arrive. The text names the host, never the URL, which is a secret."""


@dataclass(frozen=True)
class Webhook:
    """An allowed URL; made by `parse_webhook`."""

    host: str
    port: int
    target: str = field(repr=False)  # path and query: they hold the token
    secure: bool = True
    networks: tuple[Network, ...] = ()  # beside the internet, where the host may be

    def post(self, document: dict[str, Any]) -> None:
        """Send the document as JSON. Raises `Undelivered`; `Refusal` for a forbidden address."""
        address = self._address()
        try:
            with self._pool(address) as pool:
                answer = pool.request(
                    "POST",
                    self.target,
                    body=json.dumps(document).encode(),
                    headers={"Content-Type": "application/json", "Host": self._authority()},
                    redirect=False,
                    retries=_RETRIES,
                    timeout=_TIMEOUT,
                    preload_content=False,  # the answer may be long and is not read
                )
                answer.close()
        except urllib3.exceptions.HTTPError as error:
            raise Undelivered(f"{self.host}: {type(error).__name__}") from None
        if 300 <= answer.status < 400:
            raise Undelivered(f"{self.host} answered {answer.status}: redirects are not followed")
        if answer.status >= 400:
            raise Undelivered(f"{self.host} answered {answer.status}")

    def _pool(self, address: str) -> urllib3.HTTPConnectionPool:
        """Connections to the address that verify the certificate of the host name."""
        if not self.secure:
            return urllib3.HTTPConnectionPool(address, self.port)
        return urllib3.HTTPSConnectionPool(
            address,
            self.port,
            server_hostname=self.host,
            assert_hostname=self.host,
            cert_reqs="CERT_REQUIRED",
        )

    def _authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def _address(self) -> str:
        """The first address of the host. Raises `Refusal` if any of its addresses is forbidden."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise Undelivered(f"{self.host} has no address: {error}") from None
        addresses = [str(entry[4][0]) for entry in found]
        for address in addresses:
            if reason := find_problem(address, self.networks):
                raise Refusal(f"{self.host} is at {address}, {reason}: webhooks are not sent there")
        return addresses[0]


def parse_webhook(url: str, hosts: Sequence[str] | None = None) -> Webhook:
    """The webhook at a URL. Raises `Refusal` if its host is not in `hosts`.

    `hosts` has names, or `*.domain` for all hosts below a domain, each with `:port` unless the port
    is 443; and addresses or networks (`10.0.0.0/8`) outside of the internet where these hosts may
    be. The default is the list of ANOMARAY_WEBHOOK_HOSTS, separated by commas. Plain http is
    allowed only to a loopback address that is in the list.
    """
    listed = _allowed_hosts() if hosts is None else tuple(hosts)
    try:
        parts = urlsplit(url if _is_plain(url) else "")
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    if len(host) > 253 or not all(0 < len(label) < 64 for label in host.split(".")):
        host = ""
    if parts.scheme not in ("https", "http") or not host or "@" in parts.netloc:
        raise Refusal(
            "expected a webhook such as https://host/path, in ASCII, of at most "
            f"{_MOST_CHARACTERS:,} characters, without user and password"
        )
    secure = parts.scheme == "https"
    if not secure and not _is_loopback(host):
        raise Refusal(f"the webhook at {host}: expected https://, found http://")
    port = port or (443 if secure else 80)
    if not any(_matches(host, port, entry.strip().lower()) for entry in listed):
        there = ", ".join(listed) or "none"
        raise Refusal(f"the webhook's host {host}:{port} is not in the list of {ALLOWED}: {there}")
    target = parts.path or "/"
    target = f"{target}?{parts.query}" if parts.query else target
    return Webhook(host, port, target, secure, parse_networks(listed))


def _is_plain(url: str) -> bool:
    """Whether a URL has no character that libraries drop, quote or refuse each in its own way."""
    return len(url) <= _MOST_CHARACTERS and url.isascii() and url.isprintable() and " " not in url


def _allowed_hosts() -> tuple[str, ...]:
    return tuple(entry for entry in os.environ.get(ALLOWED, "").split(",") if entry.strip())


def _matches(host: str, port: int, entry: str) -> bool:
    if "/" in entry:  # a network
        return False
    try:
        parts = urlsplit(f"//{entry}")
        name, at = (parts.hostname or "").rstrip("."), parts.port or 443
    except ValueError:
        raise Refusal(f"{ALLOWED}: expected hosts with a port or none, found {entry!r}") from None
    if port != at:
        return False
    return host.endswith(name[1:]) if name.startswith("*.") else host == name


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
