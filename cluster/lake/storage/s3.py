"""A store on S3, or on anything that speaks its protocol."""

import contextlib
import uuid
from typing import Any

import pyarrow.fs

from cluster.lake.storage.ranged_file import RangedFile
from cluster.lake.storage.s3_requests import (
    PRECONDITION,
    S3Requests,
    error_code,
    object_of,
    read_credentials,
)
from cluster.lake.storage.store import (
    MOST_BYTES,
    BadName,
    Listing,
    Missing,
    Object,
    Store,
    find_fault,
    print_name,
)
from models.refusal import Refusal

_ONE_LEVEL = {"Delimiter": "/"}
_WRITER = "anomaray-writer"  # metadata that tells our own object from another's


class S3Store(Store):
    """Objects below `s3://bucket/prefix`."""

    remote = True

    def __init__(self, bucket: str, prefix: str = "") -> None:
        self._requests = S3Requests(bucket, prefix)
        super().__init__(self._requests.uri)
        self.bucket, self.prefix = bucket, prefix

    def __reduce__(self) -> Any:
        return S3Store, (self.bucket, self.prefix)

    def child(self, key: str) -> "S3Store":
        return S3Store(self.bucket, self._requests.full_key(key))

    def survey(self, prefix: str = "", *, deep: bool = True) -> Listing:
        objects, folders, bad = [], [], []
        for page in self._requests.pages(self._folder(prefix), **({} if deep else _ONE_LEVEL)):
            for entry in page.get("Contents", ()):
                key = self._relative_key(entry["Key"])
                if not entry["Size"] and (not key or key.endswith("/")):
                    continue  # an empty object that stands for a folder
                if fault := find_fault(key):
                    bad.append(BadName(print_name(key), fault))
                else:
                    objects.append(object_of(key, entry["Size"], entry))
            for entry in page.get("CommonPrefixes", ()):
                key = self._relative_key(entry["Prefix"])
                if fault := find_fault(key.removesuffix("/")):
                    bad.append(BadName(print_name(key), fault))
                else:
                    folders.append(key.removesuffix("/").rpartition("/")[2])
        if deep and prefix and not objects and self.exists(prefix):
            objects = [self.stat(prefix)]
        return Listing(tuple(sorted(objects)), tuple(sorted(folders)), tuple(sorted(bad)))

    def stat(self, key: str) -> Object:
        answer = self._requests.call("head_object", key)
        return object_of(key, answer["ContentLength"], answer)

    def read(self, key: str, most: int = MOST_BYTES) -> bytes:
        return self._requests.run(self._requests.get(key, most=most))[0]

    def put(self, key: str, data: bytes) -> None:
        self._requests.call("put_object", key, Body=data)

    def create(self, key: str, data: bytes) -> bool:
        # The check costs one HEAD. It keeps create-once, for a single writer, on stores without
        # conditional PUT.
        return not self.exists(key) and self._create(key, data)

    def _create(self, key: str, data: bytes) -> bool:
        writer = uuid.uuid4().hex
        parameters = {"Body": data, "Metadata": {_WRITER: writer}}
        try:
            self._requests.call("put_object", key, **parameters, IfNoneMatch="*")
        except OSError as error:
            if error_code(error) == "NotImplemented":
                self._requests.call("put_object", key, **parameters)
                return True
            if error_code(error) not in PRECONDITION:
                raise
            # The object may be ours: the answer to an earlier try was lost on the way.
            return self._read_writer(key) == writer
        return True

    def _read_writer(self, key: str) -> str | None:
        try:
            metadata: dict[str, str] = self._requests.call("head_object", key)["Metadata"]
        except Refusal:
            return None
        return metadata.get(_WRITER)

    def delete(self, key: str) -> None:
        with contextlib.suppress(Missing):  # S3 ignores a missing key, rclone does not
            self._requests.call("delete_object", key)

    def open_parquet(self, key: str, version: str | None = None) -> RangedFile:
        return RangedFile(self._requests, key, version)

    @property
    def delta_options(self) -> dict[str, str]:
        endpoint, region = self._requests.endpoint()
        options = {"AWS_REGION": region} if region else {}
        if endpoint:
            options["AWS_ENDPOINT_URL"] = endpoint
            options["AWS_ALLOW_HTTP"] = str(endpoint.startswith("http://")).lower()
        return {**options, **read_credentials()}

    def refuse_links(self, prefix: str = "") -> None:
        pass  # S3 has none

    def arrow_filesystem(self) -> tuple[Any, str]:
        endpoint, region = self._requests.endpoint()
        options: dict[str, str] = {"region": region} if region else {}
        if endpoint:
            options["scheme"], _, options["endpoint_override"] = endpoint.partition("://")
        path = "/".join(filter(None, (self.bucket, self.prefix)))
        return pyarrow.fs.S3FileSystem(**options), path

    def _folder(self, prefix: str) -> str:
        return self._requests.full_key(prefix) if prefix else self.prefix

    def _relative_key(self, key: str) -> str:
        return key.removeprefix(f"{self.prefix}/") if self.prefix else key
