"""A night with a detector of another package: the verbs use it, and refuse it where it is not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.runtime.shipping import ROOT
from tests.night.conftest import DAYS, write_spec

TEMPLATE = ROOT / "models" / "detectors" / "template.py"
PROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "anomaray-apart"
version = "1.0"
[project.entry-points."anomaray.detectors"]
"apart.distance" = "apart:Template"
[tool.setuptools]
py-modules = ["apart"]
"""


def write_project(folder: Path) -> None:
    """A package of one detector that works."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PROJECT)
    shutil.copy(TEMPLATE, folder / "apart.py")


def copy_pyod(folder: Path) -> None:
    pytest.importorskip("pyod", reason="PyOD is not installed here: make pyod")
    shutil.copytree(ROOT / "examples" / "pyod_detectors", folder)


@pytest.mark.parametrize(
    ("write", "detector", "package"),
    [
        (write_project, {"name": "apart.distance", "least_variance": 0.01}, "anomaray-apart 1.0"),
        (copy_pyod, {"name": "pyod.model", "model": "KNN"}, "anomaray-pyod 1.0"),
    ],
    ids=["template", "pyod"],
)
def test_a_night_of_a_detector_that_pip_installed(
    write: object, detector: dict[str, object], package: str, data: Path, tmp_path: Path
) -> None:
    assert callable(write)
    write(tmp_path / "project")
    site = tmp_path / "site"
    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target")
    subprocess.run([sys.executable, *pip, site, tmp_path / "project"], check=True)
    spec = write_spec(tmp_path, data / "flows", tmp_path / "out", detector=detector)

    def run(*arguments: str, path: Path | None = site) -> subprocess.CompletedProcess[str]:
        before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        paths = os.pathsep.join(filter(None, [*before, str(path or "")]))
        return subprocess.run(
            [sys.executable, "-m", "jobs", arguments[0], spec, *arguments[1:]],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": paths},
            capture_output=True,
            text=True,
        )

    trained = run("train")
    assert trained.returncode == 0, trained.stderr
    scored = run("score", "--day", DAYS[5], "--json")
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["counts"]["flagged"] > 0
    flags = json.loads(run("flags", "--json").stdout)
    assert all(len(flag["reasons"]) > 0 for flag in flags)

    refused = run("score", "--day", DAYS[4], path=None)
    assert refused.returncode == 2
    message = " ".join(refused.stderr.split())
    assert f"expected the detector '{detector['name']}' of the package {package}" in message
    (listed,) = (
        bundle
        for bundle in json.loads(run("registry", "--json", path=None).stdout)["bundles"]
        if bundle["champion"]
    )
    assert listed["package"] == package
