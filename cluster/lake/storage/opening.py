"""Opening a store by its URI."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from cluster.lake.storage.local import LocalStore
from cluster.lake.storage.s3 import S3Store
from cluster.lake.storage.store import CONTROL, Store, check_key
from models.refusal import Refusal


def open_store(uri: str) -> Store:
    """Open a plain path, `file://…` or `s3://bucket/prefix`. Raises `Refusal` for another URI.

    A URI that ends in `.parquet` opens the folder around it, so that keys begin with the name of
    that file (or folder: Spark writes folders with such names).

    >>> open_store("s3://lake/flows")
    Store('s3://lake/flows')
    """
    scheme = urlsplit(uri).scheme.lower() if "://" in uri else ""
    if CONTROL.search(uri):
        raise Refusal(f"URI {uri!r} holds a control character: expected a path or s3://…")
    if scheme in ("", "file"):
        path = Path(_file_path(uri) if scheme else uri).expanduser().absolute()
        return LocalStore(path.parent if path.suffix == ".parquet" else path)
    if scheme == "s3":
        bucket, _, prefix = uri[len("s3://") :].partition("/")
        parts = [part for part in prefix.split("/") if part]
        if "@" in bucket:  # not quoted: it may be a secret
            raise Refusal("an s3:// URI with '@': credentials belong in the AWS environment")
        if not bucket:
            raise Refusal(f"{uri!r} names no bucket: expected s3://bucket/prefix")
        if parts and parts[-1].endswith(".parquet"):
            parts.pop()
        return S3Store(bucket, check_key("/".join(parts)) if parts else "")
    hint = "; write s3://" if scheme in ("s3a", "s3n") else ""
    raise Refusal(f"{uri!r}: expected a path, file:// or s3://, found {scheme}://{hint}")


def _file_path(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise Refusal(f"{uri!r} names the host {parts.netloc!r}: expected file:///path")
    return unquote(parts.path)
