"""The image as far as it can be told without a container: its text, and its install step."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cluster.runtime.shipping import PACKAGES
from infra.install import pins
from tests.infra.rendering import ROOT, pods

IMAGE = ROOT / "infra/image"
_TEXT = (IMAGE / "Dockerfile").read_text()
# Instructions with their continuation lines joined, without comments.
_LINES = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", _TEXT, flags=re.M)).splitlines()


def _all(instruction: str) -> list[str]:
    found = (line for line in _LINES if line.startswith(f"{instruction} "))
    return [line.removeprefix(f"{instruction} ") for line in found]


def test_hadolint_has_nothing_against_the_dockerfile() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    command = [str(hadolint), "--failure-threshold", "style", str(IMAGE / "Dockerfile")]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_the_base_has_its_full_version() -> None:
    assert set(_all("FROM")) == {
        "python:${PYTHON_VERSION}-slim-${DEBIAN} AS packages",
        "python:${PYTHON_VERSION}-slim-${DEBIAN}",
    }
    version = next(a for a in _all("ARG") if a.startswith("PYTHON_VERSION="))
    assert re.fullmatch(r"PYTHON_VERSION=3\.11\.\d+", version)


def test_the_image_runs_as_the_user_of_the_pods_who_owns_nothing() -> None:
    assert _all("USER") == ["10001:10001"]
    assert {pod.spec["securityContext"]["runAsUser"] for pod in pods("gpu")} == {10001}
    assert "chown" not in _TEXT


def test_the_image_has_what_ray_ships_and_no_more_than_the_build_may_see() -> None:
    copied = [c.split()[0] for c in _all("COPY") if c.split()[-1] != "./" and "--from" not in c]
    assert {*copied} == {*PACKAGES, "specs"}
    ignored = (IMAGE / "Dockerfile.dockerignore").read_text().splitlines()
    shown = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert "*" in ignored
    locks = {"requirements.lock", "requirements-cuda.lock"}
    assert shown == {*copied, *locks, "pyproject.toml", "infra/install.py"}


def test_no_tool_of_tests_is_among_what_the_image_installs() -> None:
    assert "--tools" not in "".join(_all("RUN"))
    tools = pins(ROOT / "requirements-dev.lock").keys()
    assert {"pytest", "moto", "mypy", "ruff"} <= tools
    assert not tools & pins(ROOT / "requirements.lock").keys()


@pytest.mark.slow
def test_the_install_step_makes_an_environment_that_runs_from_a_checkout_it_cannot_write(
    tmp_path: Path,
) -> None:
    prefix, checkout = tmp_path / "venv", tmp_path / "anomaray"
    # An index has torch for one kind of device, and what is installed here came from it.
    variant = "gpu" if torch.version.cuda else "cpu"
    command = [sys.executable, str(ROOT / "infra/install.py"), str(prefix), "--variant", variant]
    subprocess.run([*command, "--checkout", str(ROOT)], check=True, timeout=280)
    assert not list(prefix.glob("bin/pip*"))
    assert not list(prefix.glob("lib/python*/site-packages/moto"))
    for name in (*PACKAGES, "specs"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        checkout.mkdir(exist_ok=True)
        copy(source, checkout / name)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(checkout)}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    verb = [str(prefix / "bin/python"), "-m", "jobs", "generate", "data", "--scale", "0.01"]
    subprocess.run(verb, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert list((tmp_path / "data").rglob("*.parquet"))
    ray = [str(prefix / "bin/ray"), "--version"]
    assert b"2.60.0" in subprocess.run(ray, env=environment, check=True, capture_output=True).stdout
