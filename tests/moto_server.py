"""moto as a server that writes one object at a time: `python tests/moto_server.py HOST PORT`.

moto looks whether a key is there and then puts it, in threads of one process: of two conditional
PUTs at the same moment both may succeed, which S3 does not allow. It was seen once, on a busy
machine.
"""

import sys
from collections.abc import Iterable
from threading import Lock
from typing import Any

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import run_simple


class OneWriteAtATime:
    """A WSGI application that answers requests which change something one after another."""

    def __init__(self, application: Any) -> None:
        self._application, self._writing = application, Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            answer: Iterable[bytes] = self._application(environ, start_response)
            return answer
        with self._writing:
            return list(self._application(environ, start_response))


if __name__ == "__main__":
    run_simple(
        sys.argv[1],
        int(sys.argv[2]),
        OneWriteAtATime(DomainDispatcherApplication(create_backend_app)),
        threaded=True,
        request_handler=MotoRequestHandler,
    )
