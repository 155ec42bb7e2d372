"""What the trials of nodes found: lines of JSON for machines, a page for people."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.nodes.faults import QUIET_SCORE, QUIET_TRAIN

_PAGE = """# Many nodes

What a run does when a node of its cluster is killed, cut off or added. Every trial is one command
(`python -m jobs train … --workers 2` or `score`) on a Ray of three nodes of one CPU, which is
struck in its middle. The committed flags are compared, column by column and bit by bit, with those
of a quiet run on one node.

{faults}

- recovered: the same command ended with 0; nobody gave it again.
- rows lost, rows doubled: flags of the quiet run that are missing, or there twice. A training
  commits no flags; lost are its epochs that did not happen in the end.
- seconds lost: the median beyond that of the same command undisturbed ({quiet}), on two busy cores.

`make nodes` plays the trials, and the faults of the network where the machine allows namespaces.

## What a second and a third node cost

The same day of {rows:,} rows, scored by as many actors on one node and on several of one CPU each,
in turns. Figures are seconds of scoring, and the ratio of the medians.

{overhead}

All nodes share the two cores of one machine: this is the cost of Ray's own traffic and of a raylet
and an object store a node, without a network between them.

## For production

Ray asks each node for a sign of life every 3 s and waits 10 s for it, five times: a node that is
silent counts as alive for about a minute, and the tasks on it wait as long. The trials set, where
the head is started:

| variable | Ray's own | trials | advice |
|---|--:|--:|--:|
| `RAY_health_check_period_ms` | 3000 | 500 | 2000 |
| `RAY_health_check_timeout_ms` | 10000 | 4000 | 5000 |
| `RAY_health_check_failure_threshold` | 5 | 3 | 3 |

A node that is only slow must not be declared dead: its work would be done twice, which costs time
and never a row. A training notices a lost peer by its own collective, after 120 s at most, or by
Ray, whichever is first; workers are started anew from the last checkpoint, as many as the nodes
hold, between `training.min_workers` and `--workers`.
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
    quiet = {one.name: _median(played, one.name) for one in (QUIET_SCORE, QUIET_TRAIN)}
    return _PAGE.format(
        faults=_faults(played, quiet),
        quiet=", ".join(f"{name.partition(':')[0]} {s:.0f} s" for name, s in quiet.items()),
        overhead=_overhead(timed),
        rows=max((one.rows for one in timed), default=0),
    )


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
        calm = quiet[QUIET_TRAIN.name if name.startswith("train") else QUIET_SCORE.name]
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
    return _table(("nodes", "runs", "seconds", "ratio"), lines)


def _table(columns: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    head = ["| " + " | ".join(columns) + " |", "|---" + "|--:" * (len(columns) - 1) + "|"]
    return "\n".join([*head, *("| " + " | ".join(map(str, line)) + " |" for line in lines)])
