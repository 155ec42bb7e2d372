"""Requests to S3, with the only retries that there are.

s3fs sends them one by one. Its caches are off, because a listing must be true, and so are its own
retries, because two layers of retries multiply the waits.
"""

import os
from collections.abc import Awaitable, Iterator
from datetime import UTC
from functools import lru_cache
from typing import Any, TypeVar

import botocore.exceptions as boto  # type: ignore[import-untyped]
import botocore.session  # type: ignore[import-untyped]
import fsspec.asyn
import s3fs
from s3fs.core import S3_RETRYABLE_ERRORS
from tenacity import retry, retry_if_exception, stop_after_attempt

from cluster.lake.storage import retries
from cluster.lake.storage.store import (
    MOST_BYTES,
    Object,
    StoreFailed,
    changed_error,
    check_key,
    missing_error,
    oversized_error,
)
from models.refusal import Refusal

T = TypeVar("T")
Answer = dict[str, Any]  # as botocore parses it; "Body" holds the bytes

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
# The last: botocore compares each body with the checksum that the store has of it.
_BROKEN_ON_THE_WAY = (
    *S3_RETRYABLE_ERRORS,
    boto.ConnectionError,
    boto.HTTPClientError,
    boto.FlexibleChecksumError,
)
_GONE = {"NoSuchKey", "404", "NotFound"}
PRECONDITION = {"PreconditionFailed", "412"}


class _Oversized(Exception):
    """An answer is larger than its reader allows."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class S3Requests:
    """Requests about the objects below a prefix of a bucket, by keys relative to it."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket, self.prefix = bucket, prefix
        self.uri = "s3://" + "/".join(filter(None, (bucket, prefix)))

    def full_key(self, key: str) -> str:
        return "/".join(filter(None, (self.prefix, check_key(key))))

    def call(self, method: str, key: str | None = None, **parameters: Any) -> Answer:
        """Call a method of botocore's S3 client. Raises `Missing` where there is no such key."""
        return self.run(self._request(method, key, **parameters))

    def pages(self, folder: str, **parameters: Any) -> Iterator[Answer]:
        """The pages of a listing below a folder, which is a full key."""
        parameters |= {"Prefix": f"{folder}/" if folder else ""}
        while True:
            page = self.call("list_objects_v2", **parameters)
            yield page
            if not page.get("IsTruncated"):
                return
            parameters["ContinuationToken"] = page["NextContinuationToken"]

    def run(self, work: Awaitable[T]) -> T:
        """Wait for a request, or for several; count what is sent again for this thread."""
        count = retries.thread_retries()

        async def run() -> T:
            with retries.count_retries(count):
                return await work

        try:
            answer: T = fsspec.asyn.sync(self._client.loop, run)
        except (PermissionError, boto.NoCredentialsError, boto.PartialCredentialsError) as error:
            raise Refusal(
                f"{self.uri}: access denied ({error}); credentials come from the AWS environment "
                "variables or profile: check them, and the policy of the bucket"
            ) from error
        except FileNotFoundError as error:
            raise Refusal(
                f"{self.uri}: there is no bucket {self.bucket!r}; expected an existing bucket"
            ) from error
        except (boto.BotoCoreError, *S3_RETRYABLE_ERRORS) as error:
            text = f"{self.uri}: {error or type(error).__name__} (tried {retries.TRIES} times)"
            raise StoreFailed(text) from error
        return answer

    async def get(
        self, key: str, version: str = "", span: str = "", most: int = MOST_BYTES
    ) -> tuple[bytes, Answer]:
        """The object, or its bytes `span` (`first-last`, or `-count` from the end), and the answer.

        Raises `Missing`; `ChangedSinceSnapshot` where the object has another version; `Refusal`,
        before they are read, for more than `most` bytes.
        """
        parameters = {"Range": f"bytes={span}"} if span else {}
        if version:
            parameters["IfMatch"] = f'"{version}"'
        try:
            answer = await self._request("get_object", key, most=most, **parameters)
        except OSError as error:
            if error_code(error) in PRECONDITION:
                raise changed_error(self.uri, key, version, "another") from None
            raise
        # Some stores ignore If-Match (rclone), but their answer has the version.
        if version and version_of(answer) != version:
            raise changed_error(self.uri, key, version, version_of(answer))
        return answer["Body"], answer

    def endpoint(self) -> tuple[str | None, str | None]:
        """The endpoint, unless it is Amazon's own, and the region; by environment and profile."""
        client = fsspec.asyn.sync(self._client.loop, self._client.set_session)
        url: str = client.meta.endpoint_url
        return None if ".amazonaws.com" in url else url, client.meta.region_name

    def is_encrypted(self) -> bool:
        """Whether the connection is by TLS, which finds each bit that is flipped on the way."""
        client = fsspec.asyn.sync(self._client.loop, self._client.set_session)
        return str(client.meta.endpoint_url).startswith("https:")

    @property
    def _client(self) -> s3fs.S3FileSystem:
        environment = (item for item in os.environ.items() if item[0].startswith("AWS_"))
        return _connect(os.getpid(), tuple(sorted(environment)))

    async def _request(
        self, method: str, key: str | None, most: int = MOST_BYTES, **parameters: Any
    ) -> Answer:
        if key is not None:
            parameters["Key"] = self.full_key(key)
        try:
            return await _send(self._client, method, most, Bucket=self.bucket, **parameters)
        except _Oversized as found:
            raise oversized_error(self.uri, key or "", most, found.size) from None
        except FileNotFoundError as error:
            if key is not None and error_code(error) in _GONE:
                raise missing_error(self.uri, key) from None
            raise


def error_code(error: BaseException) -> str:
    """S3's own name for the error; s3fs hides it in the cause."""
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def version_of(answer: Answer) -> str:
    return str(answer["ETag"]).strip('"')


def object_of(key: str, size: int, answer: Answer) -> Object:
    return Object(key, size, version_of(answer), answer["LastModified"].astimezone(UTC))


def read_credentials() -> dict[str, str]:
    """Credentials for delta-rs, which reads no profiles. They expire, so they are never kept."""
    credentials = botocore.session.get_session().get_credentials()
    if credentials is None:
        return {}
    frozen = credentials.get_frozen_credentials()
    values = {
        "AWS_ACCESS_KEY_ID": frozen.access_key,
        "AWS_SECRET_ACCESS_KEY": frozen.secret_key,
        "AWS_SESSION_TOKEN": frozen.token,
    }
    return {name: value for name, value in values.items() if value}


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, _BROKEN_ON_THE_WAY):
        return True
    return error_code(error) in _TRANSIENT


@retry(
    retry=retry_if_exception(_is_transient),
    wait=retries.WAIT,
    stop=stop_after_attempt(retries.TRIES),
    before_sleep=retries.add_retry,
    reraise=True,
)
async def _send(client: s3fs.S3FileSystem, method: str, most: int, **parameters: Any) -> Answer:
    answer: Answer = await client._call_s3(method, **parameters)
    if "Body" in answer:  # read here, so that a connection that breaks half way is retried
        async with answer["Body"] as body:
            if answer["ContentLength"] > most:
                raise _Oversized(answer["ContentLength"])
            answer["Body"] = await body.read()
    return answer


@lru_cache(maxsize=8)
def _connect(process: int, environment: tuple[tuple[str, str], ...]) -> s3fs.S3FileSystem:
    """One client a process and environment: it costs 50 ms, and must not cross a fork."""
    client = s3fs.S3FileSystem(
        skip_instance_cache=True,
        use_listings_cache=False,
        config_kwargs={"retries": {"total_max_attempts": 1}, "max_pool_connections": 32},
    )
    client.retries = 1
    return client
