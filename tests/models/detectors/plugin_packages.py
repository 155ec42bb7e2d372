"""Packages on disk that bring detectors, as pip installs them."""

import sys
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).parents[3] / "models" / "detectors" / "template.py"


class Site:
    """A folder of packages, at the end of the path of this process for one test."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, patch
        patch.setattr(sys, "path", [*sys.path, str(folder)])
        patch.delenv("ANOMARAY_DETECTORS", raising=False)

    def allow(self, *entries: str) -> None:
        """What the operator does."""
        self._patch.setenv("ANOMARAY_DETECTORS", ", ".join(entries))

    def write(self, module: str, text: str | None = None) -> Path:
        """A module, which leaves the file `ran` beside it when it is imported; its text is by
        default a detector `Template` that works."""
        path = self.folder / f"{module}.py"
        ran = self.folder / "ran"
        path.write_text(
            f"import pathlib\npathlib.Path({str(ran)!r}).touch()\n"
            + (TEMPLATE.read_text() if text is None else text)
        )
        self._patch.delitem(sys.modules, module, raising=False)
        return ran

    def install(self, package: str, version: str, module: str, **points: str) -> Path:
        """The metadata of a package that has one module and these entry points."""
        folder = self.folder / f"{package.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
        )
        (folder / "RECORD").write_text(f"{module}.py,,\n{folder.name}/METADATA,,\n")
        lines = [f"{name} = {place}" for name, place in points.items()]
        (folder / "entry_points.txt").write_text("\n".join(["[anomaray.detectors]", *lines, ""]))
        return folder
