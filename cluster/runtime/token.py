"""The token that lets a process into Ray: found, or made, before Ray looks for one.

Whoever has it may run any code on the cluster. It is read from the environment or from a file, and
never stands in an argument, a log line or a job's description.
"""

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

_VALUE, _FILE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def ensure_token() -> None:
    """Ask every Ray of this process and its children for a token, and see that there is one.

    `RAY_AUTH_TOKEN`, then the file of `RAY_AUTH_TOKEN_PATH`, are taken as they are. Otherwise it is
    Ray's own file in the home folder, which is made where it is absent, and closed to others where
    Ray has left it open to them. Where nothing can be written there, the token is this process's.
    """
    os.environ["RAY_AUTH_MODE"] = "token"
    if {_VALUE, _FILE} & os.environ.keys():
        return
    try:
        _keep(_default())
    except (OSError, RuntimeError):  # a read-only file system, or no home at all
        os.environ[_VALUE] = secrets.token_hex(32)


def describe_source() -> str:
    """Where the token of this process comes from, for messages."""
    if _VALUE in os.environ:
        return f"the variable {_VALUE}"
    return f"the file {os.environ.get(_FILE) or _default()}"


def _default() -> Path:
    return Path.home() / ".ray" / "auth_token"


def _keep(path: Path) -> None:
    """Make the file where it is absent; nobody but its owner reads it."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        whole = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        opened = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(opened, "w") as file:
            file.write(secrets.token_hex(32))
        try:
            with suppress(FileExistsError):  # another process was faster: its token counts
                os.link(whole, path)
        finally:
            whole.unlink()
    found = path.stat()
    if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) & 0o077:
        path.chmod(0o600)
