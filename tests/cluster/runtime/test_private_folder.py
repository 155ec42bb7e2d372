"""No other user of the machine enters the folder of an embedded Ray."""

from pathlib import Path

import pytest

from cluster.runtime.private_folder import make_private_folder
from models.refusal import Refusal


@pytest.fixture
def above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "above"))
    return tmp_path / "above"


def test_the_folder_is_for_its_owner_and_is_found_again(above: Path) -> None:
    folder = make_private_folder()
    assert folder.parent == above
    assert folder.stat().st_mode & 0o777 == 0o700
    assert make_private_folder() == folder


@pytest.mark.parametrize("spoil", ["open", "link", "file"])
def test_a_name_that_another_has_taken_is_refused(above: Path, spoil: str) -> None:
    folder = make_private_folder()
    if spoil == "open":
        folder.chmod(0o770)
    else:
        folder.rmdir()
        folder.symlink_to(above.parent) if spoil == "link" else folder.touch()
    with pytest.raises(Refusal, match="expected a folder that only its owner, this user, may"):
        make_private_folder()
