"""Stopping a command: the first SIGINT or SIGTERM ends it within seconds, the second at once.

Python runs a signal handler in its main thread, between two of its own instructions. That is too
late where the thread waits in C, and no help where a library swallows the KeyboardInterrupt, as an
import does, or replaces the handler, as Ray does. So a second thread hears the signals, and ends
the process if the main thread does not. `jobs.__main__` imports this module before all others.
"""

from __future__ import annotations  # a Python that is too old is told so by `models.packages`

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

_SIGNALS = {
    signal.SIGINT: "Interrupted. Run the same command to resume.",
    signal.SIGTERM: "Terminated. Run the same command to resume.",
}
# Seconds for the main thread to clean up. A cluster is told that its job has ended.
_GRACE_S = 2.0
_CLUSTER_GRACE_S = 8.0
_SHOW_CURSOR = b"\x1b[?25h\r\n"  # a progress bar hides it

_heard: signal.Signals | None = None  # the first signal
_raised = False  # it in the main thread
_handled: Handled | None = None  # a block that handles its signals itself
_hearing = -1  # the end of a pipe that has a byte for each signal
_taking, _beginning = threading.Lock(), threading.Lock()
_status: int | None = None  # that the process is ending with
_stderr = 2  # this process's own, also while a block has put another in its place


def listen() -> None:
    """Hear the signals from now on. A signal that the parent process had ignored stays ignored."""
    global _stderr, _hearing
    _stderr = os.dup(2)
    _hearing, telling = os.pipe()
    for end_of_pipe in (_hearing, telling):
        os.set_blocking(end_of_pipe, False)
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    signal.set_wakeup_fd(telling, warn_on_full_buffer=False)
    sys.excepthook = _explain
    sys.unraisablehook = _explain_finaliser
    threading.Thread(target=_watch, name="anomaray-stop", daemon=True).start()


def run(command: Callable[[], None]) -> NoReturn:
    """Run a command that ends with a SystemExit, and end the process with its status.

    Python's own end takes a second after an import of torch, and a signal kills it there.
    """
    try:
        command()
    except SystemExit as error:
        _flush()
        os._exit(error.code if isinstance(error.code, int) else bool(error.code))
    sys.exit()


@contextmanager
def obey() -> Iterator[None]:
    """Once a signal was heard, any failure of the block ends the process with one line."""
    try:
        yield
    except BaseException as error:
        _take()  # the thread may not have seen yet what made a library leave
        if _heard is None or (isinstance(error, SystemExit) and not error.code):
            raise
        _flush_and_end()


class Handled:
    """The signals of a block that handles them itself."""

    status = 130  # of a command that ended by the latest of them


@contextmanager
def handle_signals() -> Iterator[Handled]:
    """Each signal is a KeyboardInterrupt in the block, which decides itself what ends."""
    global _handled
    _handled = Handled()
    try:
        yield _handled
    finally:
        with _taking:
            _read(4096)
            _handled = None


def _interrupt(number: int, _: Any) -> None:
    """Raise a KeyboardInterrupt in the main thread, once: what cleans up is not interrupted."""
    global _heard, _raised
    if _handled is not None:
        _handled.status = 128 + number
    elif _raised:
        return
    else:
        _heard, _raised = _heard or signal.Signals(number), True
    raise KeyboardInterrupt


def _watch() -> None:
    """End the process some seconds after the first signal, and at once after the second."""
    while _heard is None:
        select.select([_hearing], [], [])
        _take()
    deadline = time.monotonic() + (_CLUSTER_GRACE_S if _is_on_a_cluster() else _GRACE_S)
    while (left := deadline - time.monotonic()) > 0:
        if select.select([_hearing], [], [], left)[0] and _take():
            break
    _end()


def _take() -> bool:
    """Take note of the next signal, if there is one that the verb does not handle itself."""
    global _heard
    with _taking:
        number = next(iter(_read(1)), None)
        if number not in _SIGNALS or _handled is not None:
            return False
        _heard = _heard or signal.Signals(number)
        return True


def _read(signals: int) -> bytes:
    try:
        return os.read(_hearing, signals)
    except OSError:  # none has come, or nobody listens
        return b""


def _is_on_a_cluster() -> bool:
    """Whether this process has joined a Ray that others have started."""
    ray, session = (sys.modules.get(name) for name in ("ray", "cluster.runtime.session"))
    joined = getattr(ray, "is_initialized", bool)()
    return joined and not getattr(session, "is_left_running", bool)()


def _explain(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """The hook for errors that nobody catches, such as an interrupt among the first imports."""
    if _heard is not None:
        _flush_and_end()
    sys.__excepthook__(kind, error, trace)


def _explain_finaliser(unraised: Any) -> None:
    """The hook for errors of finalisers: an interrupt is no news there."""
    if _heard is None:
        sys.__unraisablehook__(unraised)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a reader that has gone
            stream.flush()


def _flush_and_end() -> NoReturn:
    _flush()
    _end()


def _end() -> NoReturn:
    assert _heard is not None
    end(128 + _heard, _SIGNALS[_heard])


def end(status: int, line: str) -> NoReturn:
    """End the process, and the Ray that it has started, with this line on stderr.

    Of several threads the first decides: the end of its Ray is no news for the others. Nothing is
    waited for: all that is cut here may be cut by a SIGKILL too.
    """
    global _status
    with _beginning:
        first = _status is None
        _status = status if _status is None else _status
    if first:
        text = f"{line}\n".encode()
        with suppress(OSError):
            os.write(_stderr, _SHOW_CURSOR + text if os.isatty(_stderr) else text)
    session = sys.modules.get("cluster.runtime.session")
    with suppress(Exception):  # it is being imported: Ray has not started
        session.end_descendants()  # type: ignore[union-attr]
    os._exit(_status)
