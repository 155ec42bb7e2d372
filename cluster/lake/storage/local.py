"""A store on a local or mounted disk."""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.fs

from cluster.lake.storage import beneath
from cluster.lake.storage.store import (
    MOST_BYTES,
    BadName,
    Listing,
    Missing,
    Object,
    ReadOnlyFile,
    Store,
    changed_error,
    check_key,
    find_fault,
    missing_error,
    oversized_error,
    print_name,
)
from models.refusal import Refusal

# A file has this ending while it is written. Such files are never listed.
_UNFINISHED = ".anomaray-unfinished"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# The errors of file systems without hard links.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class LocalStore(Store):
    """Objects are files. A write goes to an unfinished file, which is then renamed or linked.

    `anchor` is the folder that the operator named, which may lie behind links. Below it, a link is
    followed only to a place inside, and never one that appears meanwhile (see `beneath`).
    """

    def __init__(self, anchor: Path, prefix: str = "") -> None:
        self.anchor, self.prefix = anchor, prefix
        self.root = anchor / prefix
        super().__init__(str(self.root))

    def __reduce__(self) -> Any:
        return LocalStore, (self.anchor, self.prefix)

    def child(self, key: str) -> "LocalStore":
        self._path(key)
        return LocalStore(self.anchor, "/".join(filter(None, (self.prefix, key))))

    def survey(self, prefix: str = "", *, deep: bool = True) -> Listing:
        top = self._path(prefix) if prefix else self.root
        objects, folders, bad = [], [], []
        found = [top] if deep and top.is_file() else _walk(top, self.root, self.anchor, deep)
        for path in found:
            if isinstance(path, BadName):
                bad.append(path)
            elif not deep and path.is_dir():
                folders.append(path.name)
            else:
                with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                    objects.append(_object(path.relative_to(self.root).as_posix(), path.stat()))
        return Listing(tuple(sorted(objects)), tuple(sorted(folders)), tuple(sorted(bad)))

    def stat(self, key: str) -> Object:
        with self._reading(key) as descriptor:
            return _object(key, os.fstat(descriptor))

    def read(self, key: str, most: int = MOST_BYTES) -> bytes:
        with self._reading(key) as descriptor, open(descriptor, "rb", closefd=False) as file:
            size = os.fstat(descriptor).st_size
            if size > most:
                raise oversized_error(self.uri, key, most, size)
            return file.read(most)

    def put(self, key: str, data: bytes) -> None:
        with self._writing(key, data) as (folder, name, unfinished):
            os.replace(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
            beneath.flush_folder(folder)

    def create(self, key: str, data: bytes) -> bool:
        if self.exists(key):
            self.flush(key)
            return False
        return self._create(key, data)

    def _create(self, key: str, data: bytes) -> bool:
        with self._writing(key, data) as (folder, name, unfinished):
            try:
                # A link, unlike a rename, fails where the name is taken, in one step.
                os.link(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
            except FileExistsError:
                beneath.flush_folder(folder)
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                # Not exclusive: creates_once() is False here.
                os.replace(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
            beneath.flush_folder(folder)
        return True

    def flush(self, *keys: str) -> None:
        for key in keys:
            with contextlib.suppress(Missing), self._reading(key) as descriptor:
                os.fsync(descriptor)
        for parent in {self._path(key).parent for key in keys}:
            with (
                contextlib.suppress(FileNotFoundError),
                beneath.open_folder(self.anchor, beneath.resolve(parent, self.anchor)) as folder,
            ):
                beneath.flush_folder(folder)

    def delete(self, key: str) -> None:
        path = self._path(key)
        parents = beneath.resolve(path.parent, self.anchor)
        if parents != path.parent.relative_to(self.anchor).parts:
            raise Refusal(f"{path} lies behind a link: nothing is removed there")
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            beneath.open_folder(self.anchor, parents) as folder,
        ):
            os.unlink(path.name, dir_fd=folder)

    def open_parquet(self, key: str, version: str | None = None) -> "LocalFile":
        with self._reading(key) as descriptor:
            return LocalFile(self, key, os.dup(descriptor), version)

    @property
    def delta_options(self) -> dict[str, str]:
        return {}

    def refuse_links(self, prefix: str = "") -> None:
        top = self._path(prefix) if prefix else self.root
        for folder, folders, files in os.walk(top):
            for name in (*folders, *files):
                path = Path(folder, name)
                if path.is_symlink():
                    raise Refusal(
                        f"{path} is a link: expected only files and folders in a table, since "
                        "they are read and removed by the table's own log; find out who made it, "
                        "and remove it"
                    )

    def arrow_filesystem(self) -> tuple[Any, str]:
        return pyarrow.fs.LocalFileSystem(), self.uri

    def _path(self, key: str) -> Path:
        """The path of the key. `Refusal` where a link on the way leads out of the store."""
        path = self.root / check_key(key)
        beneath.resolve(path, self.anchor)
        return path

    @contextlib.contextmanager
    def _reading(self, key: str) -> Iterator[int]:
        """A descriptor of the key's file. Raises `Missing`."""
        parts = beneath.resolve(self.root / check_key(key), self.anchor)
        try:
            if not parts:
                raise IsADirectoryError(key)
            with beneath.open_folder(self.anchor, parts[:-1]) as folder:
                descriptor = beneath.open_file(parts[-1], folder, self.anchor)
        except _ABSENT:
            raise missing_error(self.uri, key) from None
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _writing(self, key: str, data: bytes) -> Iterator[tuple[int, str, str]]:
        """The key's folder as a handle, its name, and the name of a file with the data beside it.

        That file is flushed to the disk, and removed in any case.
        """
        path = self._path(key)
        temporary = f".{uuid.uuid4().hex}{_UNFINISHED}"
        parents = beneath.resolve(path.parent, self.anchor)
        try:
            with beneath.open_folder(self.anchor, parents, make=True) as folder:
                try:
                    with open(temporary, "xb", opener=beneath.opener(folder)) as file:
                        file.write(data)
                        file.flush()
                        os.fsync(file.fileno())
                    yield folder, path.name, temporary
                finally:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(temporary, dir_fd=folder)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise Refusal(
                f"{path}: the disk is full ({error.strerror}); expected room for {len(data):,} "
                "bytes. Nothing was written; free some space and run again"
            ) from error


class LocalFile(ReadOnlyFile):
    """A local file whose version is checked after each read."""

    def __init__(self, store: LocalStore, key: str, descriptor: int, version: str | None) -> None:
        """Takes over the descriptor."""
        self._descriptor = descriptor
        status = os.fstat(descriptor)
        super().__init__(status.st_size)
        self._uri, self._key = store.uri, key
        self._version = version if version is not None else _version(status)
        try:
            self._check_version()
        except Refusal:
            self.close()
            raise

    def _read_range(self, start: int, stop: int) -> bytes:
        parts = []
        while start < stop:
            part = os.pread(self._descriptor, stop - start, start)
            if not part:
                break
            parts.append(part)
            start += len(part)
        # After the read: a file that is overwritten in place keeps its inode, not its mtime.
        self._check_version()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _check_version(self) -> None:
        found = _version(os.fstat(self._descriptor))
        if found != self._version:
            raise changed_error(self._uri, self._key, self._version, found)

    def close(self) -> None:
        descriptor, self._descriptor = getattr(self, "_descriptor", -1), -1
        if descriptor >= 0:
            os.close(descriptor)
        super().close()


def _version(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}"


def _object(key: str, status: os.stat_result) -> Object:
    modified = datetime.fromtimestamp(status.st_mtime, UTC)
    return Object(key, status.st_size, _version(status), modified)


def _walk(top: Path, root: Path, anchor: Path, deep: bool) -> Iterator[Path | BadName]:
    """What is in the folder, and with `deep` the files below it.

    Links inside the anchor are followed, but never in a circle.
    """
    todo = [(top, frozenset[str]())]
    while todo:
        folder, above = todo.pop()
        real = os.path.realpath(folder)
        if real in above or not folder.is_dir():
            continue
        for entry in os.scandir(folder):
            path = Path(entry.path)
            name = path.relative_to(root).as_posix()
            if entry.name.endswith(_UNFINISHED):
                continue
            if fault := find_fault(name):
                yield BadName(print_name(name), fault)
                continue
            if entry.is_symlink():
                if not path.exists():
                    yield BadName(print_name(name), "a link to nothing, or to itself")
                    continue
                target = os.path.realpath(path)
                if f"{real}/".startswith(f"{target}/"):
                    yield BadName(print_name(name), "a link to a folder that it lies in")
                    continue
                if deep:
                    beneath.resolve(path, anchor)
            if deep and entry.is_dir():
                todo.append((path, above | {real}))
            else:
                yield path
