"""Trials of a run under fire: `python -m tests.faults --trials 200 --seed N`.

Prints a line a trial and a table fault by fault; exits with 1 where a promise was broken. One trial
is repeated by `--seed N --trial T`, with the faults that were chosen then.
"""

import argparse
import json
import random
import secrets
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path

from tests.conftest import S3Server, moto
from tests.faults import report
from tests.faults.faults import FAULTS, Fault
from tests.faults.lake import Base, build, using
from tests.faults.trial import Outcome, run_trial


def chosen(
    names: Sequence[str], seed: int, slow: bool = True
) -> tuple[list[Fault], dict[str, str]]:
    """The faults in an order drawn from the seed, and why others cannot be played here."""
    unknown = sorted(set(names) - FAULTS.keys())
    if unknown:
        raise SystemExit(f"no fault {', '.join(unknown)}; there are: {', '.join(FAULTS)}")
    wanted = [f for f in FAULTS.values() if (f.name in names or not names) and (slow or not f.slow)]
    skipped = {f.name: reason for f in wanted if (reason := f.missing())}
    there = [f for f in wanted if f.name not in skipped]
    random.Random(seed).shuffle(there)
    return there, skipped


def play(base: Base, fault: Fault, seed: int, number: int, server: S3Server) -> Outcome:
    """One trial of the fault; all that it draws comes from the seed and the number."""
    outcome = Outcome(seed, number, fault.name, "s3" if fault.s3 else "local")
    return run_trial(base, fault.play, outcome, server if fault.s3 else None, fault.on_ray)


def main() -> None:
    given = _arguments()
    faults, skipped = chosen(given.fault, given.seed)
    for name, reason in skipped.items():
        print(f"not played: {name}: {reason}")
    if not faults:
        raise SystemExit("none of the faults can be played here")
    numbers = range(given.trials) if given.trial is None else [given.trial]
    outcomes: list[Outcome] = []
    print(f"seed {given.seed}, {len(numbers)} trials of {len(faults)} faults", flush=True)
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="chaos-base-", ignore_cleanup_errors=True)
        folder = given.base or Path(stack.enter_context(temporary))
        base = build(folder.absolute())
        server = stack.enter_context(moto())
        stack.enter_context(using(server))
        threads = ThreadPoolExecutor(given.jobs)
        stack.callback(threads.shutdown, cancel_futures=True)  # when it is stopped half way
        played = [
            threads.submit(play, base, faults[n % len(faults)], given.seed, n, server)
            for n in numbers
        ]
        for one in as_completed(played):
            outcomes.append(one.result())
            print(report.line(outcomes[-1]), flush=True)
            _write(given.results, outcomes, given.seed, skipped)
    print("\n" + report.markdown(outcomes, given.seed, skipped))
    if any(o.violations for o in outcomes):
        raise SystemExit(1)


def _write(folder: Path, outcomes: list[Outcome], seed: int, skipped: dict[str, str]) -> None:
    """After each trial: a run of hours that is stopped leaves what it found."""
    folder.mkdir(parents=True, exist_ok=True)
    found = json.dumps(report.document(outcomes, seed, skipped), indent=1)
    (folder / "chaos.json").write_text(found)
    (folder / "chaos.md").write_text(report.markdown(outcomes, seed, skipped))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    parser.add_argument("--trial", type=int, help="only this one")
    parser.add_argument("--fault", action="append", default=[], help="only this fault; repeatable")
    parser.add_argument("--jobs", type=int, default=1, help="trials at the same time")
    parser.add_argument("--base", type=Path, help="keep the trained lake here, or take it")
    parser.add_argument("--results", type=Path, default=Path("demo/chaos"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
