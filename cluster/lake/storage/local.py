"""A store on a local or mounted disk."""

import contextlib
import errno
import os
import stat
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.fs

from cluster.lake.storage.store import (
    Object,
    ReadOnlyFile,
    Store,
    changed_error,
    check_key,
    missing_error,
)
from models.refusal import Refusal

# A file has this ending while it is written. Such files are never listed.
_UNFINISHED = ".anomaray-unfinished"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# The errors of file systems without hard links.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


class LocalStore(Store):
    """Objects are files. A write goes to an unfinished file, which is then renamed or linked."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.root = root

    def __reduce__(self) -> Any:
        return LocalStore, (self.root,)

    def child(self, key: str) -> "LocalStore":
        return LocalStore(self._path(key))

    def list(self, prefix: str = "") -> tuple[Object, ...]:
        top = self._path(prefix) if prefix else self.root
        objects = []
        for path in [top] if top.is_file() else _walk(top, self.root, set()):
            with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                objects.append(_object(path.relative_to(self.root).as_posix(), path.stat()))
        return tuple(sorted(objects))

    def folders(self, prefix: str = "") -> tuple[str, ...]:
        top = self._path(prefix) if prefix else self.root
        if not top.is_dir():
            return ()
        return tuple(sorted(entry.name for entry in os.scandir(top) if entry.is_dir()))

    def stat(self, key: str) -> Object:
        try:
            status = self._path(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            raise missing_error(self.uri, key) from None
        if not stat.S_ISREG(status.st_mode):
            raise missing_error(self.uri, key)
        return _object(key, status)

    def read(self, key: str) -> bytes:
        path = self._path(key)
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise missing_error(self.uri, key)
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise missing_error(self.uri, key) from None

    def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with self._unfinished(path, data) as unfinished:
            unfinished.replace(path)
        _flush_folder(path.parent)

    def create(self, key: str, data: bytes) -> bool:
        return not self.exists(key) and self._create(key, data)

    def _create(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        with self._unfinished(path, data) as unfinished:
            try:
                # A link, unlike a rename, fails where the name is taken, in one step.
                path.hardlink_to(unfinished)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                unfinished.replace(path)  # not exclusive: creates_once() is False here
        _flush_folder(path.parent)
        return True

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def open_parquet(self, key: str, version: str | None = None) -> "LocalFile":
        try:
            return LocalFile(self, key, self._path(key), version)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise missing_error(self.uri, key) from None

    @property
    def delta_options(self) -> dict[str, str]:
        return {}

    def arrow_filesystem(self) -> tuple[Any, str]:
        return pyarrow.fs.LocalFileSystem(), self.uri

    def _path(self, key: str) -> Path:
        """The path of the key. `Refusal` where a link on the way leads out of the store."""
        path = self.root / check_key(key)
        _check_inside(path, self.root)
        return path

    @contextlib.contextmanager
    def _unfinished(self, path: Path, data: bytes) -> Iterator[Path]:
        """A file beside `path` with the data, flushed to the disk; removed in any case."""
        temporary = path.with_name(f".{uuid.uuid4().hex}{_UNFINISHED}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise Refusal(
                f"{path}: the disk is full ({error.strerror}); expected room for {len(data):,} "
                "bytes. Nothing was written; free some space and run again"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)


class LocalFile(ReadOnlyFile):
    """A local file whose version is checked after each read."""

    def __init__(self, store: LocalStore, key: str, path: Path, version: str | None) -> None:
        # O_NONBLOCK: opening a named pipe would wait for its writer for ever.
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._descriptor)
            self._descriptor = -1
            raise IsADirectoryError(path)
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


def _check_inside(path: Path, root: Path) -> None:
    """Refuse a link that leads out of the lake: it could name any file that the job may read."""
    real = os.path.realpath(path)
    if real == str(path):  # no link on the way
        return
    inside = os.path.realpath(root)
    if real != inside and not real.startswith(inside.rstrip("/") + "/"):
        raise Refusal(
            f"{path} is, or lies behind, a link that leads out of {root}: expected only links that "
            "stay inside; copy the files, mount them there, or name their own place in the spec"
        )


def _walk(folder: Path, root: Path, above: set[str]) -> Iterator[Path]:
    """All files below the folder. Links inside the root are followed, but never in a circle."""
    real = str(folder.resolve())
    if real in above or not folder.is_dir():
        return
    for entry in os.scandir(folder):
        if entry.is_symlink():
            _check_inside(Path(entry.path), root)
        if entry.is_dir():
            yield from _walk(Path(entry.path), root, above | {real})
        elif not entry.name.endswith(_UNFINISHED):
            yield Path(entry.path)


def _flush_folder(folder: Path) -> None:
    """Flush the folder: until then a new name is not on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
