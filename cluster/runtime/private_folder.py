"""A folder for temporary files that no other user of the machine can enter."""

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from models.refusal import Refusal

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_private_folder() -> Path:
    """`anomaray-UID` in `RAY_TMPDIR`, or else in the system's folder of temporary files, mode 0700.

    Its name is short, because Ray's sockets are in it. Raises `Refusal` where another user has
    taken the name.
    """
    above = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    above.mkdir(parents=True, exist_ok=True)
    folder = above / f"anomaray-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & _OTHERS:
        raise Refusal(
            f"{folder}: expected a folder that only its owner, this user, may enter (mode 0700), "
            f"found mode {stat.S_IMODE(found.st_mode):04o} of user {found.st_uid}; remove it, or "
            "set RAY_TMPDIR to a folder of your own"
        )
    return folder
