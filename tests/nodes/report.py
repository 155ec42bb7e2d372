"""What the trials of nodes found: lines of JSON for machines, a page for people."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ray._raylet import Config  # type: ignore[attr-defined]  # compiled, and so without types

from tests.nodes.faults import CUT_SCORER, CUT_WORKER, QUIET_APART, QUIET_SCORE, QUIET_TRAIN
from tests.nodes.machines import HEALTH

# Ends the name of a fault that was played with Ray's own health checks.
OWN_CHECKS = ", Ray's own health checks"

_PAGE = """# Many nodes

What happens to a run when a node of its cluster is killed, cut off or added. Each trial is one
command (`python -m jobs train … --workers 2` or `score`) on a Ray cluster of three nodes with one
CPU each. The fault strikes in the middle of the command. The committed flags are compared with
those of an undisturbed run on one node, column by column and bit by bit.

{faults}

- recovered: the same command ended with exit status 0, without being given again.
- rows lost, rows doubled: flags of the undisturbed run that are missing or there twice. A training
  commits no flags; its rows lost are epochs that were never finished.
- seconds lost: the median time beyond that of the same command undisturbed. The two cores had other
  work, more at one time than at another, so differences below twenty seconds say nothing.
  Undisturbed: {quiet}.

`make nodes` plays the trials. It plays the faults of the network where the machine allows network
namespaces.

{overhead}## For production

Ray's head checks the health of each node and declares a node dead after several failed checks. All
that waits for the node waits that long. A check of a node whose network is cut fails after the
timeout: with Ray's own settings, such a node counts as alive for another 65 s. The trials set these
variables in the environment of `ray start --head`:

| variable | Ray's own | trials |
|---|--:|--:|
{health}
{own_checks}
Short settings find a lost node sooner, but they also take a busy node for a lost one. Its work is
then done again, which costs time but never a row.

When a training loses a worker, it restarts from its last checkpoint as soon as Ray has declared the
node dead. It then has as many workers as the remaining nodes hold, between `training.min_workers`
and `--workers`. If the node lives and only its workers do not reach each other, Ray does not
notice; the workers give up a collective operation after 120 s (`ANOMARAY_COLLECTIVE_SECONDS`). If
there is room for fewer workers than `training.min_workers`, the training waits for nodes without
limit, and says so after 30 s. After the fourth loss the training ends with one message; started
again, it resumes from its checkpoint.

Workers find each other by the name of their machine. If that name resolves to a loopback address
(Debian writes 127.0.1.1 into `/etc/hosts`), set `GLOO_SOCKET_IFNAME`, and on GPUs
`NCCL_SOCKET_IFNAME`, to the network interface of the node before Ray is started there.
"""


_OVERHEAD = """## What a second and a third node cost

The same day of {rows:,} rows, scored by the same number of actors on one node and on several nodes
of one CPU each, in turn. Figures are seconds of scoring and the ratio of the medians.

{table}

All nodes share the two cores of one machine. So this is the cost of Ray's own traffic, and of a
raylet and an object store for each node, without a network between them.

"""


@dataclass(frozen=True)
class Played:
    """One trial of a fault."""

    fault: str
    struck: bool
    recovered: bool
    lost: int
    doubled: int
    same: bool
    seconds: float  # of the command


@dataclass(frozen=True)
class Timed:
    """One scoring of the large day."""

    nodes: int
    cpus: int  # of all nodes together
    rows: int
    seconds: float


def append(path: Path, found: Played | Timed) -> None:
    """Keep it, as it comes: a run that is stopped leaves what it found."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lines:
        lines.write(json.dumps({type(found).__name__: asdict(found)}) + "\n")


def page(path: Path) -> str:
    """Markdown of all that was kept."""
    played, timed = _read(path)
    undisturbed = (QUIET_SCORE, QUIET_TRAIN, *QUIET_APART)
    quiet = {one.name: _median(played, one.name) for one in undisturbed}
    return _PAGE.format(
        faults=_faults(played, quiet),
        quiet="; ".join(f"{name.replace(': nothing', '')} {s:.0f} s" for name, s in quiet.items()),
        overhead=_overhead(timed) if timed else "",
        health=_health(),
        own_checks=_own_checks(played, quiet),
    )


def _health() -> str:
    """Lines of the settings in milliseconds, and what they are where nobody sets them."""
    own = {name: getattr(Config, name.removeprefix("RAY_"))() for name in HEALTH}
    return "\n".join(f"| `{name}` | {own[name]} | {HEALTH[name]} |" for name in HEALTH)


def _own_checks(played: Sequence[Played], quiet: dict[str, float]) -> str:
    """What the cut of a network costs with these settings, and with Ray's own."""
    lines = []
    for fault in (CUT_SCORER, CUT_WORKER):
        calm = quiet[_quiet_of(fault.name)]
        short, own = (_median(played, fault.name + end) - calm for end in ("", OWN_CHECKS))
        if any(one.fault == fault.name + OWN_CHECKS for one in played):
            lines.append([fault.name, f"{short:.0f}", f"{own:.0f}"])
    table = _table(("seconds lost", "trials' settings", "Ray's own"), lines)
    return f"\n{table}\n" if lines else ""


def _read(path: Path) -> tuple[list[Played], list[Timed]]:
    documents: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    return (
        [Played(**d["Played"]) for d in documents if "Played" in d],
        [Timed(**d["Timed"]) for d in documents if "Timed" in d],
    )


def _faults(played: Sequence[Played], quiet: dict[str, float]) -> str:
    lines = []
    for name in dict.fromkeys(one.fault for one in played if one.fault not in quiet):
        some = [one for one in played if one.fault == name and one.struck]
        calm = quiet[_quiet_of(name)]
        lines.append(
            [
                name,
                len(some),
                sum(one.recovered for one in some),
                sum(one.lost for one in some),
                sum(one.doubled for one in some),
                "yes" if all(one.same for one in some) else "NO",
                f"{_median(some, name) - calm:.0f}",
            ]
        )
    columns = ("fault", "runs", "recovered", "rows lost", "rows doubled", "same bits")
    return _table((*columns, "seconds lost"), lines)


def _quiet_of(name: str) -> str:
    """The undisturbed trial that a fault is compared with: the same verb, on the same machines."""
    score, train = QUIET_APART if "network" in name else (QUIET_SCORE, QUIET_TRAIN)
    return train.name if name.startswith("train") else score.name


def _median(played: Iterable[Played], name: str) -> float:
    return median([one.seconds for one in played if one.fault == name] or [0.0])


def _overhead(timed: Sequence[Timed]) -> str:
    lines = []
    for cpus in sorted({one.cpus for one in timed}):
        alone = median(one.seconds for one in timed if (one.nodes, one.cpus) == (1, cpus))
        for nodes in sorted({one.nodes for one in timed if one.cpus == cpus}):
            some = [one.seconds for one in timed if (one.nodes, one.cpus) == (nodes, cpus)]
            shape = f"{nodes} × {cpus // nodes} CPU"
            each = ", ".join(f"{s:.1f}" for s in some)
            lines.append([shape, len(some), each, f"{median(some) / alone:.2f}"])
    table = _table(("nodes", "runs", "seconds", "ratio"), lines)
    return _OVERHEAD.format(rows=max(one.rows for one in timed), table=table)


def _table(columns: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    head = ["| " + " | ".join(columns) + " |", "|---" + "|--:" * (len(columns) - 1) + "|"]
    return "\n".join([*head, *("| " + " | ".join(map(str, line)) + " |" for line in lines)])
