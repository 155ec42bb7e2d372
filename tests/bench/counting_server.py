"""An S3 server that counts its requests: `python -m tests.bench.counting_server HOST PORT LOG`.

A line of the log is a kind of request as S3 bills them: GET and HEAD at one price; PUT, LIST and
the parts of a multipart upload at another; DELETE at none.
"""

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import run_simple

from tests.moto_server import OneWriteAtATime


def kind_of(method: str, path: str, query: str) -> str:
    """`GET`, `HEAD`, `PUT`, `LIST`, `POST` or `DELETE`; `LIST` is a GET of the bucket itself."""
    of_bucket = "/" not in path.strip("/")
    if method == "GET" and (of_bucket or "list-type" in parse_qs(query)):
        return "LIST"
    return method


def counted(log: Path) -> Counter[str]:
    """Requests by kind so far."""
    return Counter(log.read_text().split())


class _Counting:
    """A WSGI application that writes down the kind of each request."""

    def __init__(self, application: Any, log: Path) -> None:
        self._application, self._log = application, log.open("a", buffering=1)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        kind = kind_of(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"])
        self._log.write(f"{kind}\n")
        answer: Iterable[bytes] = self._application(environ, start_response)
        return answer


if __name__ == "__main__":
    run_simple(
        sys.argv[1],
        int(sys.argv[2]),
        _Counting(
            OneWriteAtATime(DomainDispatcherApplication(create_backend_app)), Path(sys.argv[3])
        ),
        threaded=True,
        request_handler=MotoRequestHandler,
    )
