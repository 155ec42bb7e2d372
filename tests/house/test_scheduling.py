"""A test that hangs ends its process: it fails by its name, and the others run on."""

import subprocess
import sys
from pathlib import Path

from cluster.runtime.shipping import ROOT

_CONFTEST = """
from tests.scheduling import Scheduling

def pytest_xdist_make_scheduler(config, log):
    return Scheduling(config, log)
"""
_HANGS = """
import threading

def test_before():
    pass

def test_that_hangs():
    threading.Event().wait()

def test_after():
    pass
"""


def test_a_test_that_hangs_fails_by_its_name_and_the_others_run_on(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntimeout = 2\ntimeout_method = thread\n")
    (tmp_path / "test_one.py").write_text(_HANGS)
    (tmp_path / "test_two.py").write_text("def test_beside():\n    pass\n")
    options = ["--numprocesses", "2", "--no-loadscope-reorder", "--max-worker-restart", "3", "-v"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, str(tmp_path)]
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert ended.returncode == 1, ended.stderr[-2000:]
    assert "1 failed, 3 passed" in ended.stdout
    assert "crashed while running 'test_one.py::test_that_hangs'" in ended.stdout
