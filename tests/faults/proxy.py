"""A proxy in front of an S3 server that does to requests what networks and S3 do to them.

Each rule names a kind of fault, the requests that it is for and the share of them that it strikes.
Whether a request is struck is drawn from the seed, the request and how often it came before: not
from the order in which requests of several processes happen to arrive.
"""

import asyncio
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

_HOP_BY_HOP = {
    "connection",
    "expect",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
# Added by aiohttp's client where they are missing: they were not part of what was signed.
_AUTOMATIC = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
_CONTENTS = re.compile(rb"<Contents>.*?</Contents>", re.DOTALL)
_KEY = re.compile(rb"<Key>(.*?)</Key>", re.DOTALL)
# Seconds that a stalled request waits: less than a client's read timeout, longer than patience.
_STALL_S = (2.0, 6.0)


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    method: str
    raw_path: str  # with the query, as it was signed
    headers: CIMultiDict[str]
    body: bytes

    @property
    def key(self) -> str:
        """The object's key, without the bucket."""
        path = unquote(self.raw_path.partition("?")[0])
        return path.lstrip("/").partition("/")[2]

    @property
    def is_listing(self) -> bool:
        return (
            self.method == "GET" and "list-type=2" in self.raw_path and "prefix=" in self.raw_path
        )

    @property
    def listed(self) -> str:
        """The prefix of a listing, which is empty for a whole bucket; empty for other requests."""
        return self._query.get("prefix", [""])[0] if self.is_listing else ""

    @property
    def _query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.raw_path).query)

    @property
    def is_conditional(self) -> bool:
        return self.method == "PUT" and "If-None-Match" in self.headers


@dataclass(frozen=True)
class Reply:
    """What goes back; `sent` bytes of the body reach the client (all, unless it is cut)."""

    status: int
    headers: CIMultiDict[str]
    body: bytes
    sent: int | None = None


Forward = Callable[[Request], Awaitable[Reply]]
# None: the connection is reset.
Kind = Callable[[Request, Forward, random.Random], Awaitable[Reply | None]]


@dataclass
class Rule:
    """Strikes a share of the requests that `where` picks, after the first few, `times` at most."""

    name: str
    kind: Kind
    share: float = 1.0
    where: Callable[[Request], bool] = lambda _: True
    skip: int = 0
    times: int | None = None
    met: int = field(default=0, init=False)
    struck: int = field(default=0, init=False)

    def strikes(self, request: Request, chance: random.Random) -> bool:
        if not self.where(request):
            return False
        self.met += 1
        left = self.times is None or self.struck < self.times
        return left and self.met > self.skip and chance.random() < self.share


class FaultProxy:
    """Serves on a free port of 127.0.0.1 from `start` to `stop`, in a thread of its own."""

    def __init__(self, target: str, seed: int | str) -> None:
        self.target, self.seed = target, seed
        self.rules: list[Rule] = []
        self.requests = 0
        self.endpoint = ""
        self._times_seen: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "FaultProxy":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(timeout=30)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(timeout=30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=30)
        self._loop.close()

    @property
    def struck(self) -> dict[str, int]:
        """How many requests each rule has struck."""
        return {rule.name: rule.struck for rule in self.rules}

    def lift(self) -> None:
        """From now on every request passes untouched."""
        for rule in self.rules:
            rule.times = 0

    async def _open(self) -> None:
        self._client = aiohttp.ClientSession(
            auto_decompress=False,
            connector=aiohttp.TCPConnector(limit=64),
            timeout=aiohttp.ClientTimeout(total=120),
        )
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.endpoint = f"http://{host}:{port}"

    async def _close(self) -> None:
        await self._runner.cleanup()
        await self._client.close()

    async def _handle(self, given: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answer(given)
        except ConnectionResetError:
            return web.StreamResponse()  # the client is gone: it may have been killed

    async def _answer(self, given: web.BaseRequest) -> web.StreamResponse:
        if given.headers.get("Expect") and given.transport:
            given.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # Not `read`, which refuses what is larger than a megabyte.
        body = b"".join([chunk async for chunk in given.content.iter_any()])
        request = Request(given.method, given.raw_path, CIMultiDict(given.headers), body)
        self.requests += 1
        rule, chance = self._draw(request)
        if rule is None:
            return await _send(given, await self._forward(request))
        rule.struck += 1
        reply = await rule.kind(request, self._forward, chance)
        return _reset(given) if reply is None else await _send(given, reply)

    def _draw(self, request: Request) -> tuple[Rule | None, random.Random]:
        name = f"{request.method} {request.raw_path}"
        self._times_seen[name] += 1
        chance = random.Random(f"{self.seed} {name} {self._times_seen[name]}")
        return next((r for r in self.rules if r.strikes(request, chance)), None), chance

    async def _forward(self, request: Request) -> Reply:
        async with self._client.request(
            request.method,
            URL(self.target + request.raw_path, encoded=True),
            headers=_end_to_end(request.headers),
            data=request.body or None,
            allow_redirects=False,
            skip_auto_headers=_AUTOMATIC,
        ) as answer:
            body = await answer.read()
            return Reply(answer.status, _end_to_end(answer.headers), body)


def _end_to_end(headers: Any) -> CIMultiDict[str]:
    """Without the headers that are between two neighbours; `Host` stays as it was signed."""
    return CIMultiDict((k, v) for k, v in headers.items() if k.lower() not in _HOP_BY_HOP)


async def _send(given: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    if given.method != "HEAD":
        response.content_length = len(reply.body)
    await response.prepare(given)
    if given.method != "HEAD":
        await response.write(reply.body[: reply.sent])
    if reply.sent is not None:
        return _reset(given)
    await response.write_eof()
    return response


def _reset(given: web.BaseRequest) -> web.StreamResponse:
    """Break the connection off; the client sees ECONNRESET, or the end of a body too early."""
    transport = given.transport
    if transport is not None:
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.StreamResponse()


def error(status: int, code: str) -> Kind:
    """Answered with an error in S3's form; the request never reaches the server."""

    async def kind(request: Request, forward: Forward, chance: random.Random) -> Reply:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
        return Reply(status, CIMultiDict({"Content-Type": "application/xml"}), body.encode())

    return kind


async def reset(request: Request, forward: Forward, chance: random.Random) -> None:
    """The connection breaks before the request reaches the server."""


async def lost_reply(request: Request, forward: Forward, chance: random.Random) -> None:
    """The server does as asked; the connection breaks before its answer is there."""
    await forward(request)


async def stall(request: Request, forward: Forward, chance: random.Random) -> Reply:
    """The request waits for some seconds."""
    await asyncio.sleep(chance.uniform(*_STALL_S))
    return await forward(request)


async def truncated(request: Request, forward: Forward, chance: random.Random) -> Reply:
    """The body breaks off; its length was announced whole."""
    reply = await forward(request)
    return Reply(reply.status, reply.headers, reply.body, chance.randrange(len(reply.body) or 1))


async def flipped(request: Request, forward: Forward, chance: random.Random) -> Reply:
    """One bit of the body is another one."""
    reply = await forward(request)
    body = bytearray(reply.body)
    if body:
        body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
    return Reply(reply.status, reply.headers, bytes(body))


def hidden(pattern: str) -> Kind:
    """A listing without one of the keys that match."""
    matches = re.compile(pattern)

    async def kind(request: Request, forward: Forward, chance: random.Random) -> Reply:
        reply = await forward(request)
        there = [m for m in _CONTENTS.finditer(reply.body) if matches.search(_key(m.group()))]
        if not there:
            return reply
        gone = chance.choice(there)
        body = reply.body[: gone.start()] + reply.body[gone.end() :]
        return Reply(reply.status, reply.headers, body)

    return kind


def _key(contents: bytes) -> str:
    found = _KEY.search(contents)
    return unquote(found.group(1).decode()) if found else ""


def acting(side: str, action: Callable[[], None]) -> Kind:
    """The action happens "before" or "after" the server does as asked; there is no answer."""

    async def kind(request: Request, forward: Forward, chance: random.Random) -> None:
        if side == "after":
            await forward(request)
        await asyncio.get_running_loop().run_in_executor(None, action)

    return kind


# By the name of their fault: kind, and the requests that it can befall.
KINDS: dict[str, tuple[Kind, Callable[[Request], bool]]] = {
    "500": (error(500, "InternalError"), lambda _: True),
    "503": (error(503, "SlowDown"), lambda _: True),
    "reset": (reset, lambda _: True),
    "stall": (stall, lambda _: True),
    "truncated": (truncated, lambda r: r.method == "GET"),
    "flipped": (flipped, lambda r: r.method == "GET"),
    "lost-reply": (lost_reply, lambda r: r.method in ("PUT", "POST", "DELETE")),
    "409": (error(409, "ConditionalRequestConflict"), lambda r: r.is_conditional),
    "412": (error(412, "PreconditionFailed"), lambda r: r.is_conditional),
}
