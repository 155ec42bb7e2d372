"""A loss of power, played from a record of what a process did to its files.

`Recorder` starts processes under `disk.c`, which writes each call down. `Disk` follows the record:
the names and files that are seen at a line, and those that are on the disk then.
"""

import shutil
import subprocess
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

_SOURCE = Path(__file__).with_name("disk.c")
# What is lost: names that no flush of their folder has followed, as on a disk that keeps its order,
# or the bytes of files that were not flushed, whose names a journal had written before them.
Lost = Literal["names", "bytes"]
_FOLDER = -1  # in the place of an inode
# The files after a loss of power: the inode of each, None for an empty one.
Left = Mapping[str, int | None]


def why_not() -> str | None:
    """Why nothing can be recorded on this machine; None where it can."""
    return None if shutil.which("cc") else "calls are recorded by a library that needs a cc"


@dataclass(frozen=True)
class Recorder:
    """Where the record of the files below `root` goes; outside of it, on the same file system."""

    root: Path
    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / "disk.log"

    def environment(self) -> dict[str, str]:
        """Set for a process that is to be recorded."""
        library, kept = self.folder / "disk.so", self.folder / "kept"
        for made in (kept, self.root):
            made.mkdir(parents=True, exist_ok=True)
        if not library.exists():
            built = ["-o", str(library), str(_SOURCE), "-ldl"]
            subprocess.run(["cc", "-shared", "-fPIC", "-O2", *built], check=True)
        return {
            "LD_PRELOAD": str(library),
            "DISK_ROOT": str(self.root),
            "DISK_LOG": str(self.log),
            "DISK_KEEP": str(kept),
        }

    def read(self) -> list[tuple[str, ...]]:
        """The lines of the record, in fields."""
        return [tuple(line.split("\t")) for line in self.log.read_text().splitlines()]

    def leave(self, left: "Left", before: Collection[Path]) -> None:
        """Put the files below `root` into the state after a loss of power: those from before the
        record, and those that are left."""
        for path in list_files(self.root) - set(before):
            path.unlink()
        for name, inode in left.items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            kept = self.folder / "kept" / str(inode)
            Path(name).write_bytes(b"" if inode is None else kept.read_bytes())


@dataclass
class Disk:
    """Names below a folder, with the inodes of their files: as they are seen, and on the disk."""

    seen: dict[str, int] = field(default_factory=dict)
    lasting: dict[str, int] = field(default_factory=dict)
    flushed: set[int] = field(default_factory=set)  # inodes whose bytes are on the disk

    def play(self, line: tuple[str, ...]) -> None:
        """Go on by one line of the record."""
        match line:
            case ("new", inode, path):
                self.seen[path] = int(inode)
            case ("write", inode):
                self.flushed.discard(int(inode))
            case ("sync", inode):
                self.flushed.add(int(inode))
            case ("syncdir", folder):
                for path in [one for one in self.lasting if _parent(one) == folder]:
                    del self.lasting[path]
                self.lasting |= {p: i for p, i in self.seen.items() if _parent(p) == folder}
            case ("mkdir", path):
                self.seen[path] = _FOLDER
            case ("name", old, new):
                self.seen[new] = self.seen[old]
            case ("move", old, new):
                self.seen[new] = self.seen.pop(old)
            case ("gone", path):
                self.seen.pop(path, None)

    def at_risk(self) -> list[str]:
        """Paths of files that are seen, and that a loss of power could take or empty."""
        return sorted(
            path
            for path, inode in self.seen.items()
            if inode != _FOLDER
            and (self.lasting.get(path) != inode or inode not in self.flushed or self._cut(path))
        )

    def _cut(self, path: str) -> bool:
        """Whether a folder on the way is not on the disk."""
        above = _parent(path)
        return above in self.seen and (above not in self.lasting or self._cut(above))

    def left(self, lost: Lost) -> Left:
        """What a loss of power leaves."""
        names = self.lasting if lost == "names" else self.seen
        return {
            path: inode if inode in self.flushed else None
            for path, inode in names.items()
            if inode != _FOLDER and not (lost == "names" and self._cut(path))
        }


def list_files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def losses(record: list[tuple[str, ...]], lost: Lost) -> Iterator[Left]:
    """What a loss of power at each line of the record leaves, without repetitions."""
    disk, before = Disk(), None
    for line in record:
        disk.play(line)
        left = disk.left(lost)
        if left != before:
            yield left
        before = left


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
