"""The packages that are sent to other machines: copying them, and a digest to compare them."""

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PACKAGES = ("models", "cluster", "jobs")
LOCK = "requirements.lock"
_UNSHIPPED = ("__pycache__", "*.pyc")


def stage(folder: Path, beside: Mapping[str, Path] | None = None) -> None:
    """Copy the packages into an empty folder, and the files of `beside` to their paths in it."""
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, folder / package, ignore=shutil.ignore_patterns(*_UNSHIPPED)
        )
    for name, file in (beside or {}).items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)


def digest_code() -> str:
    """A digest of the packages that this process imports: the same for the same code."""
    return digest_files(ROOT, PACKAGES)


def digest_files(root: Path, folders: Iterable[str] = (".",)) -> str:
    """SHA-256 of the names and contents of all files in folders of `root`: 16 hex digits."""
    total = hashlib.sha256()
    for folder in folders:
        for file in _files(root / folder):
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            total.update(f"{file.relative_to(root).as_posix()}\0{content}\n".encode())
    return total.hexdigest()[:16]


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            yield path
