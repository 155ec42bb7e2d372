"""A store on S3, or on anything that speaks its language.

Requests go through s3fs's client one by one, with neither its caches (a listing must be true) nor
its retries: those of tenacity are the only ones, so that waits do not multiply.
"""

import asyncio
import contextlib
import os
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC
from functools import lru_cache
from typing import Any

import botocore.exceptions as boto  # type: ignore[import-untyped]
import botocore.session  # type: ignore[import-untyped]
import fsspec.asyn
import pyarrow.fs
import s3fs
from s3fs.core import S3_RETRYABLE_ERRORS
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential

from cluster.lake.storage.retries import add_retry, count_retries, thread_retries
from cluster.lake.storage.store import (
    Missing,
    Object,
    ReadOnlyFile,
    Store,
    changed,
    check_key,
    missing,
)
from models.refusal import Refusal

# 6 tries with waits of 0.2 s, doubled, with jitter: about 6 s, longer than S3 takes to scale a
# prefix after SlowDown or a store to restart its front end; a longer outage should be seen.
_TRIES = 6
_TRANSIENT = {
    "InternalError",
    "ServiceUnavailable",
    "SlowDown",
    "RequestTimeout",
    "OperationAborted",
    "ConditionalRequestConflict",  # 409: two conditional PUTs at the same moment
    "500",
    "502",
    "503",
    "504",
}
_GONE = {"NoSuchKey", "404", "NotFound"}
_PRECONDITION = {"PreconditionFailed", "412"}
_WRITER = "anomaray-writer"  # metadata that tells our own object from another's

# The footer of a file with 100 columns and 50 row groups takes less; one request brings it all.
_TAIL = 64 * 1024
# Two ranges closer than this are one request: at the 85 MB/s a connection of Amazon's performance
# guide, 1 MiB is passed over in 12 ms, less than another request waits for its first byte.
_HOLE = 1024**2
# Larger ranges are fetched in parts of this size side by side, as the same guide advises (8 to 16).
_PART = 16 * 1024**2


class S3Store(Store):
    """Objects below `s3://bucket/prefix`."""

    remote = True

    def __init__(self, bucket: str, prefix: str = "") -> None:
        super().__init__("s3://" + "/".join(filter(None, (bucket, prefix))))
        self.bucket, self.prefix = bucket, prefix

    def __reduce__(self) -> Any:
        return S3Store, (self.bucket, self.prefix)

    def child(self, key: str) -> "S3Store":
        return S3Store(self.bucket, self._key(key))

    def list(self, prefix: str = "") -> tuple[Object, ...]:
        folder = self._key(prefix) if prefix else self.prefix
        found = [
            _object(self._relative(entry["Key"]), entry["Size"], entry)
            for page in self._pages(folder)
            for entry in page.get("Contents", ())
            if not entry["Key"].endswith("/")  # an empty object that stands for a folder
        ]
        if not found and prefix and self.exists(prefix):
            found = [self.stat(prefix)]
        return tuple(sorted(found))

    def folders(self, prefix: str = "") -> tuple[str, ...]:
        folder = self._key(prefix) if prefix else self.prefix
        names = [
            entry["Prefix"].rstrip("/").rsplit("/", 1)[-1]
            for page in self._pages(folder, Delimiter="/")
            for entry in page.get("CommonPrefixes", ())
        ]
        return tuple(sorted(names))

    def stat(self, key: str) -> Object:
        answer = self._call("head_object", key)
        return _object(key, answer["ContentLength"], answer)

    def read(self, key: str) -> bytes:
        data: bytes = self._run(self._get(key))[0]
        return data

    def put(self, key: str, data: bytes) -> None:
        self._call("put_object", key, Body=data)

    def create(self, key: str, data: bytes) -> bool:
        # The look beforehand costs one HEAD, and keeps create-once for a single writer on stores
        # without conditional PUT.
        return not self.exists(key) and self._create(key, data)

    def _create(self, key: str, data: bytes) -> bool:
        writer = uuid.uuid4().hex
        given = {"Body": data, "Metadata": {_WRITER: writer}}
        try:
            self._call("put_object", key, **given, IfNoneMatch="*")
        except OSError as error:
            if _code(error) == "NotImplemented":
                self._call("put_object", key, **given)
                return True
            if _code(error) not in _PRECONDITION:
                raise
            # It may be ours: the reply to an earlier try was lost on the way.
            return self._written_by(key) == writer
        return True

    def _written_by(self, key: str) -> str | None:
        try:
            metadata: dict[str, str] = self._call("head_object", key)["Metadata"]
        except Refusal:
            return None
        return metadata.get(_WRITER)

    def delete(self, key: str) -> None:
        with contextlib.suppress(
            Missing
        ):  # S3 says nothing of a key that is not there; rclone does
            self._call("delete_object", key)

    def open_parquet(self, key: str, version: str | None = None) -> "RangedFile":
        return RangedFile(self, key, version)

    @property
    def delta_options(self) -> dict[str, str]:
        endpoint, region = self._endpoint()
        options = {"AWS_REGION": region} if region else {}
        if endpoint:
            options["AWS_ENDPOINT_URL"] = endpoint
            options["AWS_ALLOW_HTTP"] = str(endpoint.startswith("http://")).lower()
        return {**options, **_credentials()}

    def arrow(self) -> tuple[Any, str]:
        endpoint, region = self._endpoint()
        options: dict[str, str] = {"region": region} if region else {}
        if endpoint:
            options["scheme"], _, options["endpoint_override"] = endpoint.partition("://")
        path = "/".join(filter(None, (self.bucket, self.prefix)))
        return pyarrow.fs.S3FileSystem(**options), path

    def _endpoint(self) -> tuple[str | None, str | None]:
        """The endpoint if it is not Amazon's own, and the region, by environment and profile."""
        client = fsspec.asyn.sync(self._files.loop, self._files.set_session)
        url: str = client.meta.endpoint_url
        return None if ".amazonaws.com" in url else url, client.meta.region_name

    @property
    def _files(self) -> s3fs.S3FileSystem:
        environment = (item for item in os.environ.items() if item[0].startswith("AWS_"))
        return _connect(os.getpid(), tuple(sorted(environment)))

    def _key(self, key: str) -> str:
        return "/".join(filter(None, (self.prefix, check_key(key))))

    def _relative(self, key: str) -> str:
        return key.removeprefix(self.prefix).lstrip("/") if self.prefix else key

    def _pages(self, folder: str, **given: Any) -> Iterator[dict[str, Any]]:
        given |= {"Prefix": f"{folder}/" if folder else ""}
        while True:
            page = self._call("list_objects_v2", None, **given)
            yield page
            if not page.get("IsTruncated"):
                return
            given["ContinuationToken"] = page["NextContinuationToken"]

    def _call(self, method: str, key: str | None, **given: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._run(self._request(method, key, **given))
        return answer

    def _run(self, work: Any) -> Any:
        count = thread_retries()

        async def run() -> Any:
            with count_retries(count):
                return await work

        try:
            return fsspec.asyn.sync(self._files.loop, run)
        except (PermissionError, boto.NoCredentialsError, boto.PartialCredentialsError) as error:
            raise Refusal(
                f"{self.uri}: access denied ({error}); credentials come from the AWS environment "
                "variables or profile: check them, and the policy of the bucket"
            ) from error
        except FileNotFoundError as error:
            raise Refusal(
                f"{self.uri}: there is no bucket {self.bucket!r}; expected an existing bucket"
            ) from error
        except boto.BotoCoreError as error:
            raise OSError(f"{self.uri}: {error} (tried {_TRIES} times)") from error

    async def _request(self, method: str, key: str | None, **given: Any) -> dict[str, Any]:
        if key is not None:
            given["Key"] = self._key(key)
        try:
            answer: dict[str, Any] = await self._send(method, **given)
        except FileNotFoundError as error:
            if key is not None and _code(error) in _GONE:
                raise missing(self.uri, key) from None
            raise
        return answer

    async def _get(self, key: str, version: str = "", span: str = "") -> tuple[bytes, Any]:
        """The bytes of the object, or of a `Range`, and the answer's head."""
        given = {"Range": f"bytes={span}"} if span else {}
        if version:
            given["IfMatch"] = f'"{version}"'
        try:
            answer = await self._request("get_object", key, **given)
        except OSError as error:
            if _code(error) in _PRECONDITION:
                raise changed(self.uri, key, version, "another") from None
            raise
        # Some stores take If-Match for granted (rclone): the answer says what it is.
        if version and _version(answer) != version:
            raise changed(self.uri, key, version, _version(answer))
        return answer["Body"], answer

    async def _send(self, method: str, **given: Any) -> dict[str, Any]:
        return await _send(self._files, method, Bucket=self.bucket, **given)


def _credentials() -> dict[str, str]:
    """For delta-rs, which reads no profiles: found anew each time, as they expire."""
    found = botocore.session.get_session().get_credentials()
    if found is None:
        return {}
    now = found.get_frozen_credentials()
    given = {
        "AWS_ACCESS_KEY_ID": now.access_key,
        "AWS_SECRET_ACCESS_KEY": now.secret_key,
        "AWS_SESSION_TOKEN": now.token,
    }
    return {name: value for name, value in given.items() if value}


def _transient(error: BaseException) -> bool:
    if isinstance(error, (*S3_RETRYABLE_ERRORS, boto.ConnectionError, boto.HTTPClientError)):
        return True
    return _code(error) in _TRANSIENT


@retry(
    retry=retry_if_exception(_transient),
    wait=wait_random_exponential(multiplier=0.2, max=5),
    stop=stop_after_attempt(_TRIES),
    before_sleep=add_retry,
    reraise=True,
)
async def _send(files: s3fs.S3FileSystem, method: str, **given: Any) -> dict[str, Any]:
    answer: dict[str, Any] = await files._call_s3(method, **given)
    if "Body" in answer:  # read here, inside the retries: a connection can break half way
        async with answer["Body"] as body:
            answer["Body"] = await body.read()
    return answer


class RangedFile(ReadOnlyFile):
    """An object read by ranges, each of them of the one version.

    The first request brings the end of the object, where Parquet has its footer; `prefetch` brings
    the column chunks that will be read in few, large requests. Four row groups, 10 of 20 columns,
    on moto: 326 ms, against 697 ms with s3fs's read-ahead and 2,828 ms with pyarrow.fs, which makes
    40 requests of it; on rclone 832, 1,500 and 5,754 ms.
    """

    def __init__(self, store: S3Store, key: str, version: str | None) -> None:
        self._store, self._key = store, key
        size, tail, self._version = self._open(version or "")
        super().__init__(size)
        self._parts = [(size - len(tail), memoryview(tail))]

    def _open(self, version: str) -> tuple[int, bytes, str]:
        try:
            tail, answer = self._store._run(self._store._get(self._key, version, f"-{_TAIL}"))
        except OSError as error:
            if _code(error) not in ("InvalidRange", "416"):
                raise
            found = self._store.stat(self._key)  # no byte to give: an empty object
            if version and found.version != version:
                raise changed(self._store.uri, self._key, version, found.version) from None
            return found.size, b"", found.version
        total = answer.get("ContentRange", "").rpartition("/")[2]
        return int(total) if total else len(tail), tail, _version(answer)

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        wanted = _joined(r for r in ranges if self._held(*r) is None)
        fetched = self._store._run(_all([self._fetch(*span) for span in wanted]))
        for (start, _), data in zip(wanted, fetched, strict=True):
            self._parts.append((start, memoryview(data)))

    def _at(self, start: int, stop: int) -> memoryview:
        held = self._held(start, stop)
        if held is None:
            held = memoryview(self._store._run(self._fetch(start, stop)))
        return held

    def _held(self, start: int, stop: int) -> memoryview | None:
        for begin, data in self._parts:
            if begin <= start and stop <= begin + len(data):
                return data[start - begin : stop - begin]
        return None

    async def _fetch(self, start: int, stop: int) -> bytes:
        spans = [f"{at}-{min(at + _PART, stop) - 1}" for at in range(start, stop, _PART)]
        answers = await asyncio.gather(
            *(self._store._get(self._key, self._version, span) for span in spans)
        )
        parts = [body for body, _ in answers]
        return parts[0] if len(parts) == 1 else b"".join(parts)


async def _all(work: Sequence[Any]) -> list[Any]:
    return list(await asyncio.gather(*work))


def _joined(ranges: Iterator[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges in order, with those that are close to each other made one."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if joined and start - joined[-1][1] <= _HOLE:
            joined[-1] = joined[-1][0], max(stop, joined[-1][1])
        else:
            joined.append((start, stop))
    return joined


@lru_cache(maxsize=8)
def _connect(process: int, environment: tuple[tuple[str, str], ...]) -> s3fs.S3FileSystem:
    """One client a process and environment: it costs 50 ms, and must not cross a fork."""
    files = s3fs.S3FileSystem(
        skip_instance_cache=True,
        use_listings_cache=False,
        config_kwargs={"retries": {"total_max_attempts": 1}, "max_pool_connections": 32},
    )
    files.retries = 1
    return files


def _code(error: BaseException) -> str:
    """S3's own name of the error; s3fs hides it in the cause."""
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def _version(answer: dict[str, Any]) -> str:
    return str(answer["ETag"]).strip('"')


def _object(key: str, size: int, answer: dict[str, Any]) -> Object:
    return Object(key, size, _version(answer), answer["LastModified"].astimezone(UTC))
