"""Folders opened part by part below a folder that is trusted, so that no swapped link is followed.

A path is checked first and used later. Whoever may write in the lake can put a link in the place
of a folder between the two. A handle of the folder, opened without following links, stays where it
is (`openat` with `O_NOFOLLOW`, POSIX.1-2008).
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from models.refusal import Refusal

# (device, inode) of the folders whose names this process has flushed. Others may have made a folder
# and been killed before they flushed its name.
_flushed: set[tuple[int, int]] = set()

# O_PATH needs only the right to pass through a folder, not to list it. It is Linux's alone.
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY


def resolve(path: Path, root: Path) -> tuple[str, ...]:
    """The parts from the root to the path, without links. `Refusal` where a link leads out."""
    try:
        real, inside = os.path.realpath(path), os.path.realpath(root)
    except OSError as error:  # a link that was there a moment ago is gone
        raise Refusal(
            f"{path}: a link on the way changed while it was read ({error.strerror}): it is not "
            "followed; find out who writes there"
        ) from None
    if real == inside:
        return ()
    if not real.startswith(inside.rstrip("/") + "/"):
        raise Refusal(
            f"{path} is, or lies behind, a link that leads out of {root}: expected only links that "
            "stay inside; copy the files, mount them there, or name their own place in the spec"
        )
    return tuple(real[len(inside.rstrip("/")) + 1 :].split("/"))


@contextlib.contextmanager
def open_folder(root: Path, parts: tuple[str, ...], make: bool = False) -> Iterator[int]:
    """A handle of the folder at `parts` below the root, for `dir_fd`.

    With `make`, missing folders are made, and their names flushed. Raises `Refusal` where a part is
    a link.
    """
    if make:
        _make_root(root)
    handle = os.open(root, _FOLDER)
    try:
        for part in parts:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=handle)
            below = _open_part(part, handle, root)
            try:
                if make:
                    _flush_name(below, handle)
            finally:
                os.close(handle)
                handle = below
        yield handle
    finally:
        os.close(handle)


def open_file(name: str, folder: int, root: Path) -> int:
    """A descriptor of the plain file in a folder. Raises `IsADirectoryError` for anything else."""
    # O_NONBLOCK: opening a named pipe would wait for its writer for ever.
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=folder)
    except OSError:
        _refuse_link(name, folder, root)
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IsADirectoryError(name)
    return descriptor


def opener(folder: int) -> Callable[[str, int], int]:
    """For `open`: makes files in the folder."""
    return lambda name, flags: os.open(name, flags, 0o666, dir_fd=folder)  # less the umask


def flush_folder(folder: int) -> None:
    """Flush the names in the folder: until then a new one is lost with the power."""
    descriptor = os.open(".", os.O_RDONLY, dir_fd=folder)  # the handle may be of O_PATH
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_root(root: Path) -> None:
    missing = [folder for folder in (root, *root.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        with open_folder(folder.parent, ()) as parent:
            flush_folder(parent)


def _flush_name(folder: int, parent: int) -> None:
    """Flush the name of a folder, once in a process."""
    status = os.fstat(folder)
    identity = (status.st_dev, status.st_ino)
    if identity not in _flushed:
        flush_folder(parent)
        _flushed.add(identity)


def _open_part(part: str, handle: int, root: Path) -> int:
    try:
        return os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=handle)
    except OSError:
        _refuse_link(part, handle, root)
        raise


def _refuse_link(name: str, folder: int, root: Path) -> None:
    """Raise `Refusal` if the name is a link now."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise Refusal(
                f"{name!r} below {root} became a link while it was opened: it is not followed; "
                "find out who writes there"
            )
