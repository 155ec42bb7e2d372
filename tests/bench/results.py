"""What a benchmark found, as values and as JSON."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

MIB = 1024**2


@dataclass(frozen=True)
class Run:
    """One run of one contender."""

    wall_seconds: float
    job_seconds: float  # the contender's own count, without its start
    cpu_seconds: float
    peak_private_bytes: int
    flagged: int
    digest: str  # of the sorted ids of the flags
    profile: dict[str, Any] | None = (
        None  # Anomaray's own: seconds by stage (`jobs.report.profile`)
    )


@dataclass
class Line:
    """One contender on one workload: a row of the table."""

    contender: str
    workload: str
    place: str
    rows: int  # that were scored
    files: int
    bytes: int  # of the lake
    runs: list[Run] = field(default_factory=list)
    refused: str | None = None  # why there is no figure
    note: str | None = None

    def median(self, name: str) -> float:
        return float(median(getattr(run, name) for run in self.runs))

    @property
    def wall(self) -> float:
        return self.median("wall_seconds")

    @property
    def rate(self) -> float:
        """Rows per second of wall time."""
        return self.rows / self.wall


@dataclass
class Results:
    """All lines of one command, with the machine that they belong to."""

    machine: dict[str, Any]
    started: str  # UTC, ISO 8601
    command: str
    rounds: int
    lines: list[Line] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)  # contender: why
    ceiling: dict[str, float] | None = None  # of the S3 server, alone

    def find(self, contender: str, workload: str, place: str = "local") -> Line | None:
        """The line with figures, or None."""
        wanted = (contender, workload, place)
        return next(
            (x for x in self.lines if (x.contender, x.workload, x.place) == wanted and x.runs), None
        )

    @property
    def cases(self) -> list[tuple[str, str]]:
        """Workloads and places, in their order."""
        return list(dict.fromkeys((line.workload, line.place) for line in self.lines))

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(self), indent=1) + "\n")
        draft.replace(path)

    @classmethod
    def read(cls, path: Path) -> "Results":
        document = json.loads(path.read_text())
        lines = [
            Line(**{**line, "runs": [Run(**run) for run in line["runs"]]})
            for line in document.pop("lines")
        ]
        return cls(**document, lines=lines)


@dataclass(frozen=True)
class Growth:
    """Wall seconds as a line over rows, by least squares."""

    fixed_seconds: float  # the intercept
    rows_per_second: float  # one over the slope
    furthest: float  # the largest relative distance of a size's time from the line


def growth(lines: list[Line]) -> Growth | None:
    """The line through the medians of one contender's sizes; None for fewer than two sizes."""
    points = sorted((line.rows, line.wall) for line in lines if line.runs)
    if len({rows for rows, _ in points}) < 2:
        return None
    xs, ys = [float(x) for x, _ in points], [y for _, y in points]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    fixed = mean_y - slope * mean_x
    furthest = max(abs(y - fixed - slope * x) / y for x, y in zip(xs, ys, strict=True))
    return Growth(fixed, 1 / slope, furthest)
