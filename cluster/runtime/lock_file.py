"""The lock's pins for what a job needs: what the product depends on, and what that brings."""

import tomllib
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from cluster.runtime.shipping import ROOT


def pins() -> list[str]:
    """Lines of requirements.lock, sorted, without the tools of tests and linters.

    What a package brings is read from those installed here. CUDA's packages are in no lock: they
    come with torch's own pins where a node has or takes its CUDA build.
    """
    lock = (ROOT / "requirements.lock").read_text().split()
    pinned = {canonicalize_name(line.partition("==")[0]): line for line in lock}
    return sorted(pinned[name] for name in _needed() if name in pinned)


def _needed() -> set[NormalizedName]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting = [Requirement(text) for text in project["dependencies"]]
    met: set[tuple[NormalizedName, frozenset[str]]] = set()
    while waiting:
        one = waiting.pop()
        key = canonicalize_name(one.name), frozenset(one.extras)
        if key not in met:
            met.add(key)
            waiting.extend(_brought(one))
    return {name for name, _ in met}


def _brought(by: Requirement) -> Iterator[Requirement]:
    """What an installed package asks for, with the extras that it is wanted with."""
    try:
        asked = metadata.requires(by.name) or []
    except metadata.PackageNotFoundError:
        return  # of another platform, or of CUDA
    for text in asked:
        one = Requirement(text)
        wanted = [{"extra": extra} for extra in ("", *by.extras)]
        if one.marker is None or any(one.marker.evaluate(extra) for extra in wanted):
            yield one
