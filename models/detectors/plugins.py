"""Detectors of other packages: installed with an entry point, or allowed by the operator by name.

Code of another package runs only after one of the two was found, never because a spec or a bundle
names it: installing a package with an entry point is an act of the operator, and so is
ANOMARAY_DETECTORS. Until `load`, nothing of the package is imported.
"""

import hashlib
import os
import re
import socket
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points, packages_distributions, version
from importlib.util import find_spec
from inspect import isabstract
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.masking import describe
from models.refusal import Refusal

if TYPE_CHECKING:  # imports torch, so only `load` imports it at run time
    from models.detectors.detector import Detector

GROUP = "anomaray.detectors"
ALLOWED = "ANOMARAY_DETECTORS"
PLACE = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"
"""MODULE:CLASS, as a regular expression."""

# Names and versions of packages (PEP 508, PEP 440), or "files" and a digest; longer ones are no
# package's.
_NAME, _VERSION = re.compile(r"[\w.-]{1,100}"), re.compile(r"[\w.+! -]{1,100}")


@dataclass(frozen=True)
class Package:
    """The package that a detector comes from; a bundle keeps it."""

    name: str
    version: str  # "files" and a digest of its sources where it was not installed by pip

    @classmethod
    def from_document(cls, document: Any) -> "Package":
        """The package in a bundle's JSON. Raises ValueError for anything else."""
        name, version = document["name"], document["version"]
        if set(document) != {"name", "version"}:
            raise ValueError("expected a name and a version")
        if not (_NAME.fullmatch(name) and _VERSION.fullmatch(version)):
            raise ValueError("expected the name and the version of a package")
        return cls(name, version)

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


# By the top-level module that was imported for a detector.
_LOADED: dict[str, Package] = {}


@dataclass(frozen=True)
class Plugin:
    """A detector of another package, which may run here but is not imported yet."""

    name: str  # as specs write it
    place: str  # MODULE:CLASS
    package: Package

    def load(self) -> "type[Detector]":
        """Import its class. Raises Refusal if that fails, or if it is no detector."""
        module, _, kind = self.place.partition(":")
        try:
            found = getattr(import_module(module), kind)
        except Exception as error:  # whatever a stranger's module does
            missing = f" {error.name}" if isinstance(error, ImportError) and error.name else ""
            raise Refusal(
                f"detector '{self.name}' of {self.package}: expected to import {self.place}, "
                f"found {describe(error)}{missing} in {_describe_python()}: install what it needs"
            ) from error
        _LOADED[module.partition(".")[0]] = self.package
        if problem := _find_problem(found):
            raise Refusal(
                f"detector '{self.name}' of {self.package}: expected {self.place} to be a "
                f"detector, found {problem}; the contract is models/detectors/detector.py"
            )
        return found  # type: ignore[no-any-return]


def find_plugin(name: str) -> Plugin | None:
    """The detector of another package with this name; None if no package has it.

    Raises Refusal for MODULE:CLASS that is not allowed or not installed, and for two packages that
    have the same name.
    """
    if re.fullmatch(PLACE, name):
        return _find_allowed(name)
    found = [plugin for plugin in list_plugins() if plugin.name == name]
    if len(found) > 1:
        raise Refusal(
            f"detector '{name}': expected one package that has it, found "
            f"{' and '.join(str(one.package) for one in found)}: uninstall one, or name the class"
        )
    return found[0] if found else None


def list_plugins() -> list[Plugin]:
    """The detectors of installed packages, by name. Imports none of them."""
    found = []
    for point in entry_points(group=GROUP):
        assert point.dist is not None  # it was read from one
        package = Package(point.dist.name, point.dist.version)
        place = point.value.partition("[")[0].strip()  # without extras
        found.append(Plugin(point.name, place, package))
    return sorted(found, key=lambda plugin: (plugin.name, str(plugin.package)))


def list_allowed() -> list[str]:
    """What ANOMARAY_DETECTORS lists: packages, modules and single classes."""
    return [entry for entry in map(str.strip, os.environ.get(ALLOWED, "").split(",")) if entry]


def read_permission() -> dict[str, str]:
    """The variable of this process that other processes of the same command need."""
    return {ALLOWED: os.environ[ALLOWED]} if ALLOWED in os.environ else {}


def list_packages() -> list[Package]:
    """The packages that detectors may come from, as they are installed here."""
    named = {plugin.package for plugin in list_plugins()}
    tops = {re.split(r"[.:]", entry)[0] for entry in list_allowed()}
    named |= {package for package in map(_find_package, tops) if package is not None}
    return sorted(named, key=str)


def find_culprit(error: BaseException | None) -> Package | None:
    """The package of another's detector whose code an error, or one before it, came through."""
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            top = str(frame.f_globals.get("__name__")).partition(".")[0]
            if top in _LOADED:
                return _LOADED[top]
        error = error.__cause__ or error.__context__
    return None


def require_package(name: str, trained: Package | None) -> None:
    """Raise Refusal unless the package that trained a saved detector is here, in that version.

    `trained` is None for a detector of Anomaray itself. Another version is refused, not only told:
    threshold and severities are of the scores that its code gave, and a resumed run must not mix
    the scores of two codes.
    """
    found = find_plugin(name)
    package = found and found.package
    if package == trained:
        return
    if trained is None:
        raise Refusal(
            f"expected the bundle to name the package of its detector '{name}', found none: it was "
            "not trained by the package here, so train again"
        )
    if package is None:
        raise Refusal(
            f"expected the detector '{name}' of the package {trained}, found no such package in "
            f"{_describe_python()}: if you trust it, install {trained}"
        )
    raise Refusal(
        f"expected the detector '{name}' of the package {trained}, which trained it, found "
        f"{package} in {_describe_python()}: its scores may differ; install {trained}, or train "
        "again"
    )


def _find_allowed(name: str) -> Plugin:
    module = name.partition(":")[0]
    top = module.partition(".")[0]
    listed = list_allowed()
    if not any(name == one or f"{module}.".startswith(f"{one}.") for one in listed):
        raise Refusal(
            f"detector '{name}' is code of another package: expected the operator of "
            f"{socket.gethostname()} to allow it, found {ALLOWED}="
            f"{','.join(listed) or '(nothing)'}: if you trust it, set {ALLOWED}={top}"
        )
    package = _find_package(top)
    if package is None:
        raise Refusal(
            f"detector '{name}': expected the package {top}, found it not installed in "
            f"{_describe_python()}: install it there, or put its folder into PYTHONPATH"
        )
    return Plugin(name, name, package)


def _find_package(top: str) -> Package | None:
    return _read_package(top, tuple(sys.path))


@lru_cache
def _read_package(top: str, path: tuple[str, ...]) -> Package | None:
    """The installed package that has a top-level module; None if there is no such module.

    `path` is where it is looked for; a name without dots is found without importing anything.
    """
    try:
        spec = find_spec(top)
    except ValueError:  # a module without a spec, such as __main__
        spec = None
    if spec is None:
        return None
    for name in packages_distributions().get(top, ())[:1]:
        return Package(name, version(name))
    digest = hashlib.sha256()
    for root in map(Path, spec.submodule_search_locations or [str(spec.origin)]):
        for file in _list_sources(root):
            digest.update(f"{file.relative_to(root.parent).as_posix()}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return Package(top, f"files {digest.hexdigest()[:16]}")


def _list_sources(root: Path) -> Iterator[Path]:
    yield from sorted(root.rglob("*.py")) if root.is_dir() else [root] if root.is_file() else []


def _find_problem(found: object) -> str | None:
    """Why something is no detector; None if it is one."""
    from models.detectors.detector import Detector

    if not isinstance(found, type) or not issubclass(found, Detector):
        return f"{getattr(found, '__name__', type(found).__name__)}, no subclass of Detector"
    if isabstract(found):
        return f"no method {', '.join(sorted(found.__abstractmethods__))}"
    config = getattr(found, "Config", None)
    if not isinstance(config, type) or not is_dataclass(config):
        return "no Config that is a frozen dataclass"
    try:
        made = config()
    except TypeError:
        return "fields of its Config without a default"
    if found.learns != "gradient" and not isinstance(getattr(made, "sample_rows", None), int):
        return "no field sample_rows in the Config of a detector that learns from a sample"
    return None


def _describe_python() -> str:
    python = f"Python {sys.version_info.major}.{sys.version_info.minor} ({sys.executable})"
    return f"{python} on {socket.gethostname()}"
