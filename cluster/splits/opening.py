"""The door to the engines: which one a command uses, and why."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module

from cluster.runtime import garbage
from cluster.runtime.nodes import count_gpus
from cluster.splits.engine import Engine, EngineName
from models.refusal import Refusal


@dataclass(frozen=True)
class EngineChoice:
    name: EngineName
    why: str


def choose_engine(
    address: str | None = None, asked: EngineName | None = None, workers: int = 1
) -> EngineChoice:
    """The engine of a command. Raises Refusal for `local` with a cluster's address or several
    workers.

    >>> choose_engine(asked="ray")
    EngineChoice(name='ray', why='--engine ray')
    """
    if asked == "local":
        for found, what in ((address, f"--address {address}"), (workers > 1, f"{workers} workers")):
            if found:
                raise Refusal(
                    f"expected --engine local alone, found {what}: the local engine is one process "
                    "of this machine; choose --engine ray"
                )
        return EngineChoice("local", "--engine local")
    reasons = (
        (asked == "ray", "--engine ray"),
        (address, f"--address {address}"),
        (_is_ray_running(), "this process uses a Ray"),
        (os.environ.get("RAY_ADDRESS"), "RAY_ADDRESS is set"),
        (workers > 1, f"{workers} workers"),
    )
    for applies, why in reasons:
        if applies:
            return EngineChoice("ray", why)
    if (gpus := count_gpus()) > 1:
        return EngineChoice("ray", f"{gpus} GPUs")
    return EngineChoice("local", "no cluster is named")


def _is_ray_running() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


@contextmanager
def open_engine(
    address: str | None = None, asked: EngineName | None = None, workers: int = 1
) -> Iterator[Engine]:
    """The engine for the block. A Ray that the block starts ends with it."""
    choice = choose_engine(address, asked, workers)
    if choice.name == "local":
        from cluster.splits.local_engine import LocalEngine

        garbage.resume()
        yield LocalEngine(choice.why)
        return
    from cluster.runtime.session import session
    from cluster.splits.ray_engine import RayEngine

    with session(address) as where:
        garbage.resume()
        yield RayEngine(f"{where} ({choice.why})")


def start(address: str | None, asked: EngineName | None, beside: str) -> None:
    """Import the module `beside`, and start Ray meanwhile if its engine is chosen, for the rest of
    this process."""
    if choose_engine(address, asked).name == "local":
        import_module(beside)
        return
    from cluster.runtime import session

    session.start(address, beside)


def leave(code: int) -> None:
    """End the process at once with this exit code if tasks still run in threads, or an embedded Ray
    is left running; otherwise return."""
    session = sys.modules.get("cluster.runtime.session")
    if session is not None and session.is_left_running():
        session.leave(code)
    local = sys.modules.get("cluster.splits.local_engine")
    if local is not None and local.is_busy():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
