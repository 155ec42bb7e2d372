"""The token for Ray: found or made before Ray looks for it.

With the token anyone can run code on the cluster. It is read from the environment or a file, and
never appears in an argument, a log line or the description of a job.

Each command imports this module before it hears signals: `secrets` alone takes as long as Python.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

_VALUE, _FILE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def ensure_token() -> None:
    """Make Ray require a token, in this process and its children, and make sure that there is one.

    The token is `RAY_AUTH_TOKEN`, or in the file of `RAY_AUTH_TOKEN_PATH`, or in Ray's own file in
    the home folder. That file is made if absent, and closed to other users. If it cannot be
    written, the token is in the environment of this process only.
    """
    os.environ["RAY_AUTH_MODE"] = "token"
    if {_VALUE, _FILE} & os.environ.keys():
        return
    try:
        _ensure_file(_default())
    except (OSError, RuntimeError):  # a read-only file system, or no home folder
        os.environ[_VALUE] = _draw(32)


def describe_source() -> str:
    """The origin of this process's token, for messages."""
    if _VALUE in os.environ:
        return f"the variable {_VALUE}"
    return f"the file {os.environ.get(_FILE) or _default()}"


def _default() -> Path:
    return Path.home() / ".ray" / "auth_token"


def _draw(octets: int) -> str:
    """Random hexadecimal digits of the system, fit for a secret."""
    return os.urandom(octets).hex()


def _ensure_file(path: Path) -> None:
    """Make the file if it is absent; only its owner can read it."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        whole = path.with_name(f"{path.name}.{_draw(4)}")
        opened = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(opened, "w") as file:
            file.write(_draw(32))
            file.flush()
            os.fsync(opened)  # a loss of power after the link would leave an empty token
        try:
            with suppress(FileExistsError):  # another process was faster; its token is used
                os.link(whole, path)
        finally:
            whole.unlink()
    found = path.stat()
    if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) & 0o077:
        path.chmod(0o600)
