"""The token that a process finds or makes before Ray looks for one."""

import os
import stat
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
_SETTLE = "import os, cluster; print(*(k for k in os.environ if k.startswith('RAY_AUTH_')))"


def _settle(home: Path, **environment: str) -> list[str]:
    kept = {name: value for name, value in os.environ.items() if "RAY_AUTH" not in name}
    ended = subprocess.run(
        [sys.executable, "-c", _SETTLE],
        cwd=ROOT,
        env=kept | {"HOME": str(home)} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout.split()


def test_an_absent_token_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    assert _settle(tmp_path) == ["RAY_AUTH_MODE"]
    file = tmp_path / ".ray" / "auth_token"
    token = file.read_text()
    assert len(token) == 64
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]
    file.chmod(0o644)  # as Ray leaves it
    _settle(tmp_path)
    assert file.read_text() == token
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_token_that_is_given_is_taken_as_it_is(tmp_path: Path) -> None:
    _settle(tmp_path, RAY_AUTH_TOKEN="given")
    _settle(tmp_path, RAY_AUTH_TOKEN_PATH=str(tmp_path / "given"))
    assert not (tmp_path / ".ray").exists()


def test_without_a_home_to_write_to_the_token_is_of_the_process(tmp_path: Path) -> None:
    no_folder = tmp_path / "file"
    no_folder.touch()
    assert sorted(_settle(no_folder)) == ["RAY_AUTH_MODE", "RAY_AUTH_TOKEN"]
