"""The end of a command whose Ray has died.

Ray's C++ ends the process of the command itself, half a minute to a minute later, without a word
and with status 1, which is that of a refused gate. So threads here look first.
"""

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

import psutil  # type: ignore[import-untyped]  # Ray brings its own

from cluster.runtime.stopping import end

_SERVERS = ("raylet", "gcs_server")
_FAILED = 75
# Seconds without an answer of a cluster's head; Ray itself gives up after 60.
_PATIENCE_S = 45.0
_LOOK_EVERY_S = 2.0
_FIND_EVERY_S = 0.2


class Lifeline:
    """Ends this process with status 75 when the Ray that it uses is gone, until `release`."""

    def __init__(self) -> None:
        self._released = threading.Event()

    @contextmanager
    def hold_servers(self) -> Iterator[None]:
        """Hold on to each raylet and head that this process starts in the block."""
        known = {child.pid for child in psutil.Process().children(recursive=True)}
        started = threading.Event()
        self._begin(self._find_servers, known, started)
        try:
            yield
        finally:
            started.set()

    def hold_head(self, address: str) -> None:
        """Hold on to the head of a cluster at HOST:PORT."""
        self._begin(self._watch_head, address)

    def release(self) -> None:
        self._released.set()

    def _begin(self, watch: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=watch, args=arguments, daemon=True).start()

    def _find_servers(self, known: set[int], started: threading.Event) -> None:
        over = False
        while not over:
            over = started.wait(_FIND_EVERY_S)  # and one look more
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.Error, OSError):  # it has ended: Ray itself says so
                    if child.pid not in known and (name := child.name()) in _SERVERS:
                        known.add(child.pid)
                        self._begin(self._watch_process, name, os.pidfd_open(child.pid))

    def _watch_process(self, name: str, descriptor: int) -> None:
        select.select([descriptor], [], [])
        os.close(descriptor)
        if not self._released.is_set():
            _give_up(f"the {name} of this machine's Ray has ended")

    def _watch_head(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        heard = time.monotonic()
        while not self._released.wait(_LOOK_EVERY_S):
            with suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), 5):
                heard = time.monotonic()
            if time.monotonic() - heard > _PATIENCE_S:
                _give_up(f"the head of the Ray cluster at {address} does not answer")


def _give_up(why: str) -> NoReturn:
    end(_FAILED, f"failed: {why}. Run the same command to resume.")
