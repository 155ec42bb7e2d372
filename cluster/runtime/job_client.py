"""The same job on a remote cluster: submitted to its head, followed, attached to, ended.

It goes through the head's dashboard (HTTP, port 8265), which passes the job on; nothing here needs
a Ray on this machine. The token travels in a header. What describes a job (its command, its
environment's variables) can be read by everyone who has the token, so it holds no secret.
"""

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp
from ray.job_submission import JobDetails
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from cluster.runtime import shipping
from cluster.runtime.dashboard import DashboardClient
from cluster.runtime.session import MALLOC
from models.refusal import Refusal

Environment = Literal["lock", "image"]

# A head that has just started, or is busy, has no agent for a job yet: asked again this long.
_PATIENCE_S = 60.0
# A head may be replaced while a job is followed; jobs outlive that where its state is kept. An
# answer that does not come is waited for up to `head._TIMEOUT_S` more.
GONE_S = 120.0
_LOOKED_EVERY_S = 1.0
# Ray ends a job's processes politely, and after 3 s by force.
_ENDED_S = 60.0
# Ray sets it to the folder of the shipped checkout while it makes an environment.
_WORKING_DIR = "RAY_RUNTIME_ENV_CREATE_WORKING_DIR"
# Seconds for `pip install` of the lock on a node that has none of it: torch alone is 2 GB.
_INSTALLED_S = 1800

_FINGERPRINT = "anomaray_fingerprint"
# Of sysexits.h, and of shells: run it again; ended by a signal.
_TEMPORARY, _SIGNAL, _TERMINATED = 75, 128, 143


@dataclass(frozen=True)
class Job:
    """A job as its cluster knows it."""

    id: str
    status: str  # PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED
    message: str
    exit_code: int | None  # of its command; negative for a signal; None where it never ran or ended
    fingerprint: str  # of code, spec and variables that it was submitted with

    @property
    def ended(self) -> bool:
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")

    @property
    def exit_status(self) -> int:
        """The command's own; 143 when it was ended, 75 when its cluster failed it."""
        if self.status == "STOPPED":
            return _TERMINATED
        if self.exit_code is None:
            return 0 if self.status == "SUCCEEDED" else _TEMPORARY
        return self.exit_code if self.exit_code >= 0 else _SIGNAL - self.exit_code


@dataclass(frozen=True)
class Submission:
    """What is asked for: a command line, run in a staged folder."""

    name: str  # a word of the id, such as the verb
    entrypoint: str
    folder: Path  # made by `shipping.stage`
    environment: Environment
    variables: Mapping[str, str]

    @property
    def id(self) -> str:
        """The same for the same command: a job and its repetitions have it and a number."""
        return f"anomaray-{self.name}-{hashlib.sha256(self.entrypoint.encode()).hexdigest()[:12]}"

    @property
    def fingerprint(self) -> str:
        packed = json.dumps([self.environment, sorted(self.variables.items())])
        whole = f"{shipping.digest_files(self.folder)}{packed}"
        return hashlib.sha256(whole.encode()).hexdigest()[:16]

    def runtime_env(self) -> dict[str, Any]:
        """What Ray makes of it on every node: `lock` installs requirements.lock, `image` states
        that the node's image has it."""
        made: dict[str, Any] = {
            "working_dir": str(self.folder),
            "env_vars": {**MALLOC, **self.variables},
            "config": {"setup_timeout_seconds": _INSTALLED_S},
        }
        if self.environment == "lock":
            # A lock with hashes: pip then refuses any package that the lock does not name.
            made["pip"] = {"packages": [f"-r ${{{_WORKING_DIR}}}/{shipping.LOCK}"]}
        return made


class JobClient:
    """The jobs of a cluster, asked of its head."""

    def __init__(self, address: str) -> None:
        self._head = DashboardClient(address)

    def submit(self, work: Submission) -> tuple[Job, bool]:
        """Start the work, or find the job that runs it; which, and whether it is new.

        Safe to repeat, also by two at once and when the answer is lost: an id is taken once, and
        a running job with the same command is attached to. Raises Refusal where that one runs with
        other code, another spec or other variables.
        """
        again = Retrying(
            retry=retry_if_exception_type(ConnectionError),
            stop=stop_after_delay(_PATIENCE_S),
            wait=wait_exponential(max=5),
            reraise=True,
        )
        return again(self._submit, work)

    def _submit(self, work: Submission) -> tuple[Job, bool]:
        repetitions = self._repetitions(work.id)
        running = [job for job in repetitions.values() if not job.ended]
        if running:
            _refuse_other(running[-1], work)
            return running[-1], False
        name = f"{work.id}-{max(repetitions, default=0) + 1}"
        with self._head.asking():
            self._head.submit_job(
                entrypoint=work.entrypoint,
                submission_id=name,
                runtime_env=work.runtime_env(),
                metadata={_FINGERPRINT: work.fingerprint},
            )
        return self.job(name), True

    def _repetitions(self, name: str) -> dict[int, Job]:
        """The jobs with this command, by their number, in order."""
        with self._head.asking():
            listed = self._head.list_jobs()
        numbered = re.compile(rf"{re.escape(name)}-(\d+)")
        found = ((numbered.fullmatch(one.submission_id or ""), one) for one in listed)
        jobs = {int(number[1]): _job(one) for number, one in found if number}
        return dict(sorted(jobs.items()))

    def job(self, name: str) -> Job:
        """What becomes of a job; Refusal where there is none of this id."""
        if not re.fullmatch(r"[\w.-]+", name):
            raise Refusal(
                f"expected a job's id, such as anomaray-score-0123456789ab-1, found {name!r}"
            )
        return self._look(name, Refusal(f"no job {name} at {self._head.address}"))

    def _look(self, name: str, missing: Exception) -> Job:
        with self._head.asking(missing):
            return _job(self._head.get_job_info(name))

    def cancel(self, name: str) -> Job:
        """End a job and see it ended; one that has ended is left as it is."""
        if not (job := self.job(name)).ended:
            with self._head.asking():
                self._head.stop_job(name)
        deadline = time.monotonic() + _ENDED_S
        while not (job := self.job(name)).ended:
            if time.monotonic() > deadline:
                raise ConnectionError(f"{name} does not end: its node may be gone")
            time.sleep(0.2)  # between two looks
        return job

    def follow(
        self,
        name: str,
        write: Callable[[str], None],
        tell: Callable[[str], None],
        gone_s: float = GONE_S,
    ) -> Job:
        """Hand the job's log to `write` from its beginning, piece by piece, until the job ends.

        A head that does not answer is waited for, which `tell` is told; ConnectionError after
        `gone_s` seconds of it.
        """
        self.job(name)
        return asyncio.run(self._follow(name, write, tell, gone_s))

    async def _follow(
        self,
        name: str,
        write: Callable[[str], None],
        tell: Callable[[str], None],
        gone_s: float,
    ) -> Job:
        log = _Log(write)
        stream: asyncio.Task[None] | None = None
        heard, lost = time.monotonic(), False
        forgotten = ConnectionError(
            f"{self._head.address} knows no {name} any more: it was replaced, and kept nothing"
        )
        while True:
            if stream is None or stream.done():
                stream = asyncio.create_task(self._stream(name, log))
            await asyncio.wait({stream}, timeout=_LOOKED_EVERY_S)
            try:
                job = await asyncio.to_thread(self._look, name, forgotten)
            except ConnectionError as error:
                stream.cancel()  # a connection that was cut off in silence would be read for ever
                if (silence := time.monotonic() - heard) > gone_s:
                    raise ConnectionError(
                        f"{error} (for {silence:.0f} s). {name} may go on without us"
                    ) from None
                if not lost:
                    tell(f"{error}; asked again for {gone_s:.0f} s")
                lost = True
                await asyncio.sleep(_LOOKED_EVERY_S)
                continue
            if lost:
                tell(f"{self._head.address} answers again")
            heard, lost = time.monotonic(), False
            if job.ended:
                stream.cancel()
                with suppress(ConnectionError):  # the node of its log is gone with it
                    await asyncio.to_thread(self._read_on, name, log)
                return job

    def _read_on(self, name: str, log: "_Log") -> None:
        """What the stream has not brought yet: it comes a second or three after the end."""
        with self._head.asking():
            text = self._head.get_job_logs(name)
        log.rewind()
        log.take(text)

    async def _stream(self, name: str, log: "_Log") -> None:
        """Read the log once from its beginning, until it ends or the connection does."""
        log.rewind()
        with suppress(RuntimeError, OSError, aiohttp.ClientError):
            async for text in self._head.tail_job_logs(name):
                log.take(text)


class _Log:
    """A log that is read from its beginning after each break, and written once."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write, self._written, self._at = write, 0, 0

    def rewind(self) -> None:
        self._at = 0

    def take(self, text: str) -> None:
        new = text[max(0, self._written - self._at) :]
        self._at += len(text)
        if new:
            self._written = self._at
            self._write(new)


def _job(details: JobDetails) -> Job:
    return Job(
        id=details.submission_id or "",
        status=str(details.status),
        message=details.message or "",
        exit_code=details.driver_exit_code,
        fingerprint=(details.metadata or {}).get(_FINGERPRINT, ""),
    )


def _refuse_other(running: Job, work: Submission) -> None:
    if running.fingerprint != work.fingerprint:
        raise Refusal(
            f"{running.id} runs this command with other code, another spec or other variables: "
            f"wait for it (--attach {running.id}) or end it (--cancel {running.id})"
        )
