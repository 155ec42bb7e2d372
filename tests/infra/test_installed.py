"""The installed command: it finds its own folders, and nobody else finds them."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.infra.rendering import ROOT


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> str:
    kept = {name: of for name, of in os.environ.items() if name != "PYTHONPATH"} | environment
    ended = subprocess.run(
        [*map(str, command)], cwd=cwd, env=kept, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel, the packages of this one, and others named as ours."""
    folder = tmp_path_factory.mktemp("installed")
    checkout = folder / "checkout"
    run("git", "clone", "--quiet", ROOT, checkout)  # a build leaves files
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    options = ("--no-deps", "--no-build-isolation")
    run(*pip, "wheel", *options, "--wheel-dir", folder, checkout)
    venv.create(folder / "venv", with_pip=False)
    (wheel,) = folder.glob("anomaray-*.whl")
    run(*pip, "--python", folder / "venv/bin/python", "install", "--no-deps", wheel)
    (site,) = (folder / "venv/lib").glob("python*/site-packages")
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for name in ("models", "cluster", "jobs"):
        (site / f"{name}.py").write_text("raise ImportError('the package of somebody else')\n")
    return folder / "venv" / "bin"


def test_the_installed_command_runs_outside_of_a_checkout(
    environment: Path, tmp_path: Path
) -> None:
    anomaray = environment / "anomaray"
    assert run(anomaray, "--version", cwd=tmp_path).startswith("anomaray 0.")
    assert "anomaray score" in run(anomaray, "score", "--help", cwd=tmp_path)
    completion = run(anomaray, cwd=tmp_path, _ANOMARAY_COMPLETE="source_bash")
    assert "complete -o default" in completion
    run(anomaray, "generate", "lake", "--days", "4", "--scale", "0.01", cwd=tmp_path)
    run(anomaray, "init", "lake/flows", "--output", "flows.yaml", cwd=tmp_path)
    run(anomaray, "check", "flows.yaml", cwd=tmp_path)


def test_the_contract_of_detectors_runs_on_one_of_another_package(
    environment: Path, tmp_path: Path
) -> None:
    template = (ROOT / "models" / "detectors" / "template.py").read_text()
    (tmp_path / "apart.py").write_text(template)
    python, suite = environment / "python", ("-m", "pytest", "-q", "--pyargs", "anomaray.contract")
    place = {"PYTHONPATH": str(tmp_path), "ANOMARAY_DETECTORS": "apart:Template"}
    passed = run(python, *suite, "-p", "no:cacheprovider", cwd=tmp_path, **place)
    assert re.search(r"\n[3-9]\d passed", passed), passed
    (tmp_path / "apart.py").write_text(template.replace(".sum(1)", ".sum(1).neg()"))
    with pytest.raises(
        AssertionError, match=r"test_shares_and_the_base_add_up_to_the_score\[table"
    ):
        run(python, *suite, "-p", "no:cacheprovider", "-k", "shares", cwd=tmp_path, **place)


def test_nothing_of_it_is_seen_by_other_programs(environment: Path, tmp_path: Path) -> None:
    program = "import sys, anomaray; print([n for n in ('jobs', 'models') if n in sys.modules])"
    assert run(environment / "python", "-c", program, cwd=tmp_path) == "[]\n"
