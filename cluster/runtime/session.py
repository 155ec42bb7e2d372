"""Sessions: which Ray a command uses, in this order.

1. The Ray that this process already uses.
2. The Ray at the given `address`: HOST:PORT, `auto` for the one of this machine, `local` for 4.
3. The Ray at `RAY_ADDRESS`, which Ray sets in the processes of a submitted job.
4. A Ray embedded in this process, which ends with it and which no other machine reaches.

Each of them asks for a token (`cluster/runtime/token.py`).
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

import psutil  # type: ignore[import-untyped]  # Ray brings its own
import ray

from cluster.runtime.joining import join
from cluster.runtime.lifeline import Lifeline
from cluster.runtime.private_folder import make_private_folder
from cluster.runtime.private_ray import own_machine_only
from cluster.runtime.shipping import ROOT
from models.detectors.plugins import read_permission
from models.masking import describe

_EMBEDDED = "embedded Ray"
_LOCAL = "local"

# What libraries read when a worker loads them. glibc keeps large blocks: scoring is 1.4 times as
# fast (docs/decisions/embedded-ray.md). Threads of torch that wait let go of their core: Ray Train
# loads torch before our code (docs/decisions/waiting-threads.md).
LOADING = {
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "OMP_WAIT_POLICY": "PASSIVE",
}

# No banners, usage pings and progress bars of Ray beside ours.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # Ray Tune's tables on stdout, which it prints at any verbosity
    # Ray Train polls for the report of an epoch; its own 2 s are most of an epoch on small data.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_DEDUP_LOGS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "PYTHONWARNINGS": "ignore",
}

_used: str | None = None  # the Ray that this process uses, as a line to print
_lifeline: Lifeline | None = None  # to it


def start(address: str | None = None, beside: str | None = None) -> None:
    """Start or join Ray for the rest of this process, and import the module `beside` meanwhile.

    Both take about 1.8 s. Leave with `leave`. Each later `session` of this process uses this Ray.
    """
    _quiet()
    # In this thread, as Ray's processes end with the thread that starts them.
    importing = threading.Thread(target=import_module, args=(beside or __name__,))
    importing.start()
    _enter(address)
    importing.join()


def leave(code: int) -> NoReturn:
    """End the process with this exit code, and an embedded Ray with it.

    A shutdown of Ray takes 1.4 s and saves nothing once a job is done.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    if is_left_running():
        if _lifeline is not None:
            _lifeline.release()  # or it ends a command that is done with 75
        end_descendants()
    os._exit(code)


def end_descendants() -> None:
    """Kill Ray's processes. Most end with this process, but the agents of the node look for it for
    up to a minute."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended already
            process.kill()


def is_left_running() -> bool:
    """Whether `start` has embedded a Ray, which ends with `leave`."""
    return _used is not None and _used.startswith(_EMBEDDED)


@contextmanager
def session(address: str | None = None, cpus: int | None = None) -> Iterator[str]:
    """Use a Ray for the block, and shut it down if the block started it. Yields a line that names
    it."""
    global _used
    if ray.is_initialized():
        _quiet()
        yield _used or "the Ray that this process already uses"
        return
    line = _enter(address, cpus)
    try:
        yield line
    finally:
        if _lifeline is not None:
            _lifeline.release()
        ray.shutdown()
        _used = None


def _enter(address: str | None, cpus: int | None = None) -> str:
    global _used, _lifeline
    _lifeline = Lifeline()
    address = address or os.environ.get("RAY_ADDRESS") or _LOCAL
    _quiet()
    with _drop_log_level_line():
        _used = (
            _embed(_lifeline, cpus)
            if address == _LOCAL
            else join(address, LOADING | read_permission())
        )
    if not is_left_running():
        _lifeline.hold_head(ray.get_runtime_context().gcs_address)
    return _used


def _embed(lifeline: Lifeline, cpus: int | None) -> str:
    # Workers import the checkout, whatever the current folder is.
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    folder = make_private_folder() / "ray"
    try:
        with own_machine_only(), lifeline.hold_servers():
            ray.init(
                address=_LOCAL,
                num_cpus=cpus,
                # Ray makes its folder and its sessions writable by every user of the machine.
                _temp_dir=str(folder),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except Exception as error:
        if type(error) not in (Exception, RuntimeError):  # what Ray raises for a dead server
            raise
        raise ConnectionError(
            f"Ray did not start on this machine ({describe(error)}); its logs are in "
            f"{folder}/session_latest/logs"
        ) from error
    return f"{_EMBEDDED}, {int(ray.cluster_resources().get('CPU', 0))} CPUs"


@contextmanager
def _drop_log_level_line() -> Iterator[None]:
    """Drop the line of C++ on stderr which says that Ray's log level is in the environment. Other
    lines are written at the end of the block."""
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
    for name, value in (QUIET | LOADING).items():
        os.environ.setdefault(name, value)
    for noisy in ("ray.data", "ray.train"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
