"""Jobs of a remote cluster: submit, follow, cancel.

Requests go to the head's dashboard (HTTP, port 8265), so no Ray runs on this machine. The token is
in a header. Everyone with the token can read a job's command and environment variables, so neither
holds secrets.
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
from cluster.runtime.session import LOADING
from models.refusal import Refusal

Environment = Literal["lock", "image"]

# Seconds of retries, as a head that has just started or is busy has no agent for a job yet.
_PATIENCE_S = 60.0
# Seconds without a head, after which following stops. A job outlives a head that is replaced, if
# the head's state is kept. One request may take `dashboard._TIMEOUT_S` longer.
GONE_S = 120.0
_LOOKED_EVERY_S = 1.0
# Seconds for a cancelled job to end; Ray kills its processes after 3 s.
_ENDED_S = 60.0
# Ray sets it to the folder of the shipped checkout while it makes an environment.
_WORKING_DIR = "RAY_RUNTIME_ENV_CREATE_WORKING_DIR"
# Seconds for `pip install` of the lock on a node that has none of it: torch alone is 2 GB.
_INSTALLED_S = 1800

_FINGERPRINT = "anomaray_fingerprint"
# Exit statuses of sysexits.h (try again) and of shells (ended by a signal).
_TEMPORARY, _SIGNAL, _TERMINATED = 75, 128, 143


@dataclass(frozen=True)
class Job:
    """A job, as the cluster reports it."""

    id: str
    status: str  # PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED
    message: str
    exit_code: int | None  # of its command; negative for a signal; None if it has none
    fingerprint: str  # of its code, spec and variables

    @property
    def ended(self) -> bool:
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")

    @property
    def exit_status(self) -> int:
        """The exit status of the command; 143 if it was cancelled, 75 if the cluster failed."""
        if self.status == "STOPPED":
            return _TERMINATED
        if self.exit_code is None:
            return 0 if self.status == "SUCCEEDED" else _TEMPORARY
        return self.exit_code if self.exit_code >= 0 else _SIGNAL - self.exit_code


@dataclass(frozen=True)
class Submission:
    """A command line to run in a copy of a folder."""

    name: str  # part of the id, such as the verb
    entrypoint: str
    folder: Path  # made by `shipping.stage`
    environment: Environment
    variables: Mapping[str, str]

    @property
    def id(self) -> str:
        """The same for the same command; each job of it adds a number."""
        return f"anomaray-{self.name}-{hashlib.sha256(self.entrypoint.encode()).hexdigest()[:12]}"

    @property
    def fingerprint(self) -> str:
        packed = json.dumps([self.environment, sorted(self.variables.items())])
        whole = f"{shipping.digest_files(self.folder)}{packed}"
        return hashlib.sha256(whole.encode()).hexdigest()[:16]

    def runtime_env(self) -> dict[str, Any]:
        """Ray's environment for the job: `lock` installs requirements.lock on every node, with
        `image` the node's image has it."""
        made: dict[str, Any] = {
            "working_dir": str(self.folder),
            "env_vars": {**LOADING, **self.variables},
            "config": {"setup_timeout_seconds": _INSTALLED_S},
        }
        if self.environment == "lock":
            # A lock with hashes: pip then refuses any package that the lock does not name.
            made["pip"] = {"packages": [f"-r ${{{_WORKING_DIR}}}/{shipping.LOCK}"]}
        return made


class JobClient:
    """A client for the jobs of one cluster."""

    def __init__(self, address: str) -> None:
        self._head = DashboardClient(address)

    def submit(self, work: Submission) -> tuple[Job, bool]:
        """Start a job, or find a running one with the command; the job, and whether it is new.

        Safe to repeat, also by two processes at once and after a lost answer, as an id is used only
        once. Raises Refusal if the running job has other code, another spec or other variables.
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
        with self._head.translate_errors():
            self._head.submit_job(
                entrypoint=work.entrypoint,
                submission_id=name,
                runtime_env=work.runtime_env(),
                metadata={_FINGERPRINT: work.fingerprint},
            )
        return self.job(name), True

    def _repetitions(self, name: str) -> dict[int, Job]:
        """The jobs with this command by their number, in order."""
        with self._head.translate_errors():
            listed = self._head.list_jobs()
        numbered = re.compile(rf"{re.escape(name)}-(\d+)")
        found = ((numbered.fullmatch(one.submission_id or ""), one) for one in listed)
        jobs = {int(number[1]): _job(one) for number, one in found if number}
        return dict(sorted(jobs.items()))

    def job(self, name: str) -> Job:
        """The job with this id. Raises Refusal if there is none."""
        if not re.fullmatch(r"[\w.-]+", name):
            raise Refusal(
                f"expected the id of a job, such as anomaray-score-0123456789ab-1, found {name!r}"
            )
        return self._look(name, Refusal(f"no job {name} at {self._head.address}"))

    def _look(self, name: str, missing: Exception) -> Job:
        with self._head.translate_errors(missing):
            return _job(self._head.get_job_info(name))

    def cancel(self, name: str) -> Job:
        """End a job and wait until it has ended."""
        if not (job := self.job(name)).ended:
            with self._head.translate_errors():
                self._head.stop_job(name)
        deadline = time.monotonic() + _ENDED_S
        while not (job := self.job(name)).ended:
            if time.monotonic() > deadline:
                raise ConnectionError(f"{name} does not end; its node may be gone")
            time.sleep(0.2)  # between two looks
        return job

    def follow(
        self,
        name: str,
        write: Callable[[str], None],
        warn: Callable[[str], None],
        gone_s: float = GONE_S,
    ) -> Job:
        """Pass the job's log to `write` from its beginning, piece by piece, until the job ends.

        Calls `warn` when the head stops answering and when it answers again. Raises ConnectionError
        after `gone_s` seconds without an answer.
        """
        self.job(name)
        return asyncio.run(self._follow(name, write, warn, gone_s))

    async def _follow(
        self,
        name: str,
        write: Callable[[str], None],
        warn: Callable[[str], None],
        gone_s: float,
    ) -> Job:
        log = _Log(write)
        stream: asyncio.Task[None] | None = None
        heard, lost = time.monotonic(), False
        forgotten = ConnectionError(
            f"{self._head.address} no longer knows {name}: the head was replaced without its state"
        )
        while True:
            if stream is None or stream.done():
                stream = asyncio.create_task(self._stream(name, log))
            await asyncio.wait({stream}, timeout=_LOOKED_EVERY_S)
            try:
                job = await asyncio.to_thread(self._look, name, forgotten)
            except ConnectionError as error:
                stream.cancel()  # it may never end, if the connection was cut silently
                if (silence := time.monotonic() - heard) > gone_s:
                    raise ConnectionError(
                        f"{error} (for {silence:.0f} s). {name} may still run"
                    ) from None
                if not lost:
                    warn(f"{error}; retrying for {gone_s:.0f} s")
                lost = True
                await asyncio.sleep(_LOOKED_EVERY_S)
                continue
            if lost:
                warn(f"{self._head.address} answers again")
            heard, lost = time.monotonic(), False
            if job.ended:
                stream.cancel()
                with suppress(ConnectionError):  # the node of its log is gone with it
                    await asyncio.to_thread(self._read_rest, name, log)
                return job

    def _read_rest(self, name: str, log: "_Log") -> None:
        """Read the rest of the log; the stream is one to three seconds behind when a job ends."""
        with self._head.translate_errors():
            text = self._head.get_job_logs(name)
        log.rewind()
        log.take(text)

    async def _stream(self, name: str, log: "_Log") -> None:
        """Read the log from its beginning until it or the connection ends."""
        log.rewind()
        with suppress(RuntimeError, OSError, aiohttp.ClientError):
            async for text in self._head.tail_job_logs(name):
                log.take(text)


class _Log:
    """Writes each part of a log once, though it is read from its beginning after each break."""

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
            f"wait for it (--attach {running.id}) or cancel it (--cancel {running.id})"
        )
