"""Which Ray a command uses: one rule, and a line that says what came of it.

1. The one that this process already uses.
2. The one at the `address` given: HOST:PORT, `auto` for the one of this machine, `local` for 4.
3. The one at `RAY_ADDRESS`; Ray sets it in the processes of a submitted job.
4. One embedded in this process, which ends with it.

Of all of them a token is asked (`cluster/runtime/token.py`).
"""

import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import NoReturn

import ray

from cluster.runtime.joining import join
from cluster.runtime.shipping import ROOT

_EMBEDDED = "embedded Ray"
_LOCAL = "local"

# glibc gives large blocks back to the system at once and asks for them anew, zeroed page by page:
# scoring in chunks of a megabyte ran 1.4 times as fast when it was told to keep them.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(64 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}

# Ray's own banners, usage pings and progress bars are noise beside ours.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    # Ray Train's controller takes an epoch's report when it polls; its 2 s were most of an epoch on
    # small data.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_DEDUP_LOGS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "PYTHONWARNINGS": "ignore",
}

_used: str | None = None  # the Ray that this process has entered, as a line to print


def start(address: str | None = None, beside: str | None = None) -> None:
    """Start or join Ray for the rest of this process, while the module `beside` is imported.

    Torch and the rest of a job take as long to import as Ray to start: 1.8 s of a command. Leave
    with `leave`. Every later `session` of this process uses this Ray.
    """
    _quiet()
    # Ray starts in this thread: its processes end with the thread that started them.
    importing = threading.Thread(target=import_module, args=(beside or __name__,))
    importing.start()
    _enter(address)
    importing.join()


def leave(code: int) -> NoReturn:
    """End the process with this exit code; an embedded Ray ends with it, and nobody waits.

    An orderly shutdown takes 1.4 s and has nothing to save once a job is done.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    if is_left_running():
        _end_descendants()
    os._exit(code)


def _end_descendants() -> None:
    """Kill Ray's processes. The kernel ends most of them with the one that started them, but not
    the agents of the node, which look for it for up to a minute."""
    import psutil  # type: ignore[import-untyped]  # Ray brings its own

    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it ended by itself
            process.kill()


def is_left_running() -> bool:
    """Whether an embedded Ray of `start` is to be left with `leave`."""
    return _used is not None and _used.startswith(_EMBEDDED)


@contextmanager
def session(address: str | None = None, cpus: int | None = None) -> Iterator[str]:
    """Yield a line that says which Ray is in use; shut down only what was entered here."""
    global _used
    if ray.is_initialized():
        _quiet()
        yield _used or "the Ray that this process already uses"
        return
    line = _enter(address, cpus)
    try:
        yield line
    finally:
        ray.shutdown()
        _used = None


def _enter(address: str | None, cpus: int | None = None) -> str:
    global _used
    address = address or os.environ.get("RAY_ADDRESS") or _LOCAL
    _quiet()
    with _unannounced():
        _used = _embed(cpus) if address == _LOCAL else join(address, MALLOC)
    return _used


def _embed(cpus: int | None) -> str:
    # Workers import the checkout, wherever the command was started.
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    ray.init(
        address=_LOCAL,
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    return f"{_EMBEDDED}, {int(ray.cluster_resources().get('CPU', 0))} CPUs"


@contextmanager
def _unannounced() -> Iterator[None]:
    """Ray announces on stderr that it found its log level in the environment, at any level and
    from C++. The line is taken out; what else is said meanwhile comes afterwards."""
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            for line in held:
                if b"environment variable RAY_BACKEND_LOG_LEVEL" not in line:
                    os.write(2, line)


def _quiet() -> None:
    for name, value in (QUIET | MALLOC).items():
        os.environ.setdefault(name, value)
    for noisy in ("ray.data", "ray.train"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
