"""Signals, heard by programs of every kind: those that help, and those that do not."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # of Ray
import pytest

ROOT = Path(__file__).parents[3]
_BEGIN = """
import os, signal, sys, threading, time
from cluster.runtime import stopping
stopping.listen()
def ready():
    print("ready", flush=True)
"""
_HELPS = "with stopping.obey():\n    ready()\n    time.sleep(600)"
_NO_HELP = {
    "swallows": """
ready()
while True:
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        pass
""",
    "replaces the handlers": """
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: None)
ready()
while True:
    time.sleep(600)
""",
    "waits in C": """
import ctypes
ready()
ctypes.CDLL(None).pause()
while True:
    ctypes.CDLL(None).pause()
""",
    "takes long to clean up": """
try:
    ready()
    time.sleep(600)
finally:
    time.sleep(600)
""",
    "has a thread that does not end": """
threading.Thread(target=time.sleep, args=(600,)).start()
ready()
time.sleep(600)
""",
    "turns it into its own exit": """
signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
with stopping.obey():
    ready()
    time.sleep(600)
""",
}
_LINES = {
    signal.SIGINT: "Interrupted. Run the same command to resume.\n",
    signal.SIGTERM: "Terminated. Run the same command to resume.\n",
}


@contextmanager
def begin(program: str) -> "Iterator[subprocess.Popen[str]]":
    """The program from where it is ready, until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", _BEGIN + program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()


@pytest.mark.parametrize("number", _LINES)
@pytest.mark.parametrize("program", [_HELPS, *_NO_HELP.values()], ids=["helps", *_NO_HELP])
def test_one_signal_ends_any_program_with_one_line(program: str, number: signal.Signals) -> None:
    with begin(program) as process:
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (128 + number, _LINES[number])


def test_a_second_signal_ends_at_once_what_would_clean_up_for_long() -> None:
    program = "stopping._GRACE_S = 900\ntry:\n    ready()\n    time.sleep(900)\n"
    program += "finally:\n    ready()\n    time.sleep(900)"
    with begin(program) as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"  # it cleans up
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, _LINES[signal.SIGINT])


def test_a_block_may_handle_its_signals_and_end_as_it_likes() -> None:
    program = """
stopping._GRACE_S = 0
with stopping.obey():
    with stopping.handle_signals() as signals:
        for _ in range(2):
            try:
                ready()
                time.sleep(600)
            except KeyboardInterrupt:
                pass
    sys.exit(signals.status - 100)
"""
    with begin(program) as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (43, "")


def test_a_signal_that_the_parent_ignores_stays_ignored() -> None:
    program = _BEGIN + "os.kill(os.getpid(), signal.SIGINT)\nprint('goes on')"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stdout) == (0, "goes on\n")


def test_a_ray_whose_servers_die_ends_its_command_with_75_and_leaves_nothing() -> None:
    program = """
from cluster.runtime.session import session
with session("local", cpus=1):
    ready()
    time.sleep(600)
"""
    with begin(program) as process:
        servers = {
            child.name(): child for child in psutil.Process(process.pid).children(recursive=True)
        }
        servers["gcs_server"].kill()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 75
    assert errors == (
        "failed: the gcs_server of this machine's Ray has ended. Run the same command to resume.\n"
    )
    psutil.wait_procs(servers.values(), timeout=60)
    assert not [name for name, server in servers.items() if server.is_running()]


def test_a_ray_that_ends_with_its_command_does_not_change_its_status() -> None:
    """Also where the thread that waits for Ray's servers sees their end first."""
    program = """
import shutil, subprocess, tempfile
from cluster.runtime import session, stopping
from cluster.runtime.lifeline import Lifeline
raylet = shutil.copy(shutil.which("sleep"), f"{tempfile.mkdtemp()}/raylet")
session._used, session._lifeline = session._EMBEDDED, Lifeline()
with session._lifeline.hold_servers():
    subprocess.Popen([raylet, "600"])
while not any("_watch_process" in thread.name for thread in threading.enumerate()):
    time.sleep(0.01)
end = session.end_descendants
def end_and_linger():
    end()
    time.sleep(3)  # the others may run
session.end_descendants = end_and_linger
ready()
"""
    for last, status, line in (
        ("session.leave(0)", 0, ""),
        ("stopping.end(130, 'Interrupted.')", 130, "Interrupted.\n"),
    ):
        with begin(program + last) as process:
            _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (status, line)


def test_a_head_that_does_not_answer_is_given_up() -> None:
    program = """
from cluster.runtime import lifeline
lifeline._PATIENCE_S = lifeline._LOOK_EVERY_S = 0.05
lifeline.Lifeline().hold_head("127.0.0.1:1")
ready()
time.sleep(600)
"""
    with begin(program) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == os.EX_TEMPFAIL
    assert "the head of the Ray cluster at 127.0.0.1:1 does not answer" in errors
