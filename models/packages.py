"""What a program says in a Python that lacks a package. Nothing here imports one."""

from __future__ import annotations  # a Python that is too old gets this far

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_OURS = ("models", "cluster", "jobs")


def describe_missing(error: Exception) -> str | None:
    """What to do about a package that an import did not find; None for any other error."""
    package = isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0]
    if not package or package in _OURS:
        return None
    python = f"Python {sys.version_info.major}.{sys.version_info.minor} ({sys.executable})"
    return (
        f"expected the packages of Anomaray, found no '{package}' in {python}: "
        "run `make .venv/.done`, which installs them, and use .venv/bin/python"
    )


@contextmanager
def require_packages() -> Iterator[None]:
    """End the process with one line and status 2 where the block imports a missing package."""
    try:
        yield
    except ModuleNotFoundError as error:
        message = describe_missing(error)
        if message is None:
            raise
        print(f"refused: {message}", file=sys.stderr)
        sys.exit(2)
