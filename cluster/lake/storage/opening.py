"""Opening a store by its URI, and comparing URIs as the places that they name."""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cluster.lake.storage.local import LocalStore
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
        parts = prefix.removesuffix("/").split("/") if prefix else []
        if "@" in bucket:  # not quoted: it may be a secret
            raise Refusal("an s3:// URI with '@': credentials belong in the AWS environment")
        if not bucket:
            raise Refusal(f"{uri!r} names no bucket: expected s3://bucket/prefix")
        if not all(parts):
            raise Refusal(
                f"{uri!r} has an empty folder name ('//'): S3 takes it for another place; expected "
                "s3://bucket/prefix with single slashes"
            )
        if parts and parts[-1].endswith(".parquet"):
            parts.pop()
        from cluster.lake.storage.s3 import S3Store  # takes 0.3 s

        return S3Store(bucket, check_key("/".join(parts)) if parts else "")
    hint = "; write s3://" if scheme in ("s3a", "s3n") else ""
    raise Refusal(f"{uri!r}: expected a path, file:// or s3://, found {scheme}://{hint}")


def open_table_store(uri: str) -> Store:
    """As `open_store`, for a folder of an output: a link in its place must not lead out of that."""
    store = open_store(uri)
    if isinstance(store, LocalStore):
        return LocalStore(store.root.parent).child(store.root.name)
    return store


def _file_path(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise Refusal(f"{uri!r} names the host {parts.netloc!r}: expected file:///path")
    return unquote(parts.path)


def find_place(uri: str) -> str:
    """The place that a URI names, however it is spelled: with `file://`, `..`, links or slashes.

    Raises `Refusal` as `open_store` does.

    >>> find_place("s3://lake/flows/"), find_place("file:///a/../b//")
    ('s3://lake/flows', '/b')
    """
    store = open_store(uri)
    last = (unquote(uri) if uri.startswith("file:") else uri).rstrip("/").rpartition("/")[2]
    name = f"/{last}" if last.endswith(".parquet") else ""
    return f"{store.uri}{name}" if store.remote else os.path.realpath(f"{store.uri}{name}")


def is_inside(uri: str, folder: str) -> bool:
    """Whether the place of a URI is, or lies in, that of another."""
    inner, outer = find_place(uri), find_place(folder)
    if inner == outer or inner.startswith(outer.rstrip("/") + "/"):
        return True
    if inner.startswith("s3://") or not Path(outer).exists():
        return False
    # One folder may have two names without a link: mounts, and disks that ignore case.
    way = (Path(inner), *Path(inner).parents)
    return any(path.samefile(outer) for path in way if path.exists())
