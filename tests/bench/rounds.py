"""Rounds of all contenders in turn on the same cores, and the check of what they wrote."""

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench import agreement, measure, stages
from tests.bench.agreement import Flags
from tests.bench.contenders import Contender, anomaray
from tests.bench.prepare import Case
from tests.bench.results import Line, Run

# Other flags are compared with those of the first of these that takes part.
REFERENCE = ("anomaray", "limit", "limit_torch")


class Failed(Exception):
    """A contender did not end well."""


class Rounds:
    """Runs contenders over one case; `lines` has what they cost."""

    def __init__(
        self,
        case: Case,
        contenders: Sequence[Contender],
        folder: Path,
        environment: Mapping[str, str],
        timeout: float,
        say: Callable[[str], None],
    ) -> None:
        self.case, self.folder, self.say = case, folder, say
        self.environment, self.timeout = environment, timeout
        rank = {name: i for i, name in enumerate(REFERENCE)}
        self.contenders = sorted(contenders, key=lambda c: rank.get(c.name, len(rank)))
        self.lines = {c.name: self._line(c) for c in self.contenders}
        self._reference: Flags | None = None

    def run(self, rounds: int) -> None:
        """A round to warm up, which also says whether the flags agree, then those that count."""
        for number in range(rounds + 1):
            turn = number % len(self.contenders)
            for contender in (*self.contenders[turn:], *self.contenders[:turn]):
                line = self.lines[contender.name]
                if line.refused:
                    continue
                try:
                    run = self._run(contender, number)
                except Failed as error:
                    line.refused = str(error)
                    self.say(f"{self.case.name} {contender.name}: {error}")
                    continue
                warm = "" if number else " (warm-up)"
                self.say(
                    f"{self.case.name} round {number}{warm} {contender.name}: "
                    f"{run.wall_seconds:.1f} s wall, {run.job_seconds:.1f} s job, "
                    f"{run.cpu_seconds:.1f} s CPU, {run.flagged:,} flags"
                )
                if number or not rounds:
                    line.runs.append(run)

    def _line(self, contender: Contender) -> Line:
        workload = self.case.workload
        lake = self.case.local_lake
        size = sum(path.stat().st_size for path in lake.rglob("*.parquet"))
        return Line(
            contender.name, workload.name, self.case.place, workload.rows, workload.files, size
        )

    def _run(self, contender: Contender, number: int) -> Run:
        out = self.folder / f"{self.case.workload.name}-{self.case.place}-{contender.name}"
        shutil.rmtree(out, ignore_errors=True)
        ended = measure.run(self._command(contender, out), self.environment, self.timeout)
        if ended.cost.status:
            reason = (ended.errors.strip() or ended.output.strip() or "no message").splitlines()[-1]
            raise Failed(f"ended with status {ended.cost.status}: {reason}")
        said = _document(ended.output)
        line = self.lines[contender.name]
        line.rows, line.note = said.get("rows") or line.rows, said.get("note")
        flags = agreement.read(out)
        self._check(contender, flags)
        profile = stages.profile(out)
        shutil.rmtree(out)
        cost = ended.cost
        return Run(
            wall_seconds=cost.wall_seconds,
            job_seconds=said["job_seconds" if "job_seconds" in said else "seconds"],
            cpu_seconds=cost.cpu_seconds,
            peak_private_bytes=cost.peak_private_bytes,
            flagged=len(flags.ids),
            digest=flags.digest,
            profile=profile,
        )

    def _command(self, contender: Contender, out: Path) -> list[str]:
        case = self.case
        if contender.name == "anomaray":
            return anomaray.fresh(case.spec, out)
        return [
            *(sys.executable, "-m", f"tests.bench.contenders.{contender.name}"),
            *("--lake", case.lake, "--bundle", str(case.bundle)),
            *("--threshold", repr(case.threshold), "--out", str(out)),
        ]

    def _check(self, contender: Contender, flags: Flags) -> None:
        if not contender.same_model:
            return
        if self._reference is None:
            self._reference = flags
        differs = agreement.difference(self._reference, flags, self.case.threshold)
        if differs:
            raise Failed(f"not reported: its flags are not those of the others: {differs}")


def _document(output: str) -> dict[str, Any]:
    """The JSON that a command printed: all of its output, or the last line."""
    for text in (output, output.strip().rsplit("\n", 1)[-1]):
        try:
            found: dict[str, Any] = json.loads(text)
        except ValueError:
            continue
        return found
    raise Failed(f"printed no JSON: {output[-200:]!r}")
