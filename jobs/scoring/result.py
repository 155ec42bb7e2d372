"""How a run ended, for its run card, its journal and whoever gave the command."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Self

from cluster.splits.counts import Counts
from jobs.scoring.books import RunBooks
from jobs.scoring.gates import Gate
from jobs.scoring.run import Run


@dataclass(frozen=True)
class Ending:
    """What happened after the last task. The journal has it before the commit, so that a run card
    can be written later."""

    gates: Sequence[Gate]
    version: int | None  # of the table of flags after the commit; None before it, or without one
    started: datetime
    finished: datetime
    seconds: float  # of scoring
    actors: int  # planned
    most_actors: int  # at once
    warnings: tuple[str, ...]  # of the engine
    profile: dict[str, Any]  # as `jobs.report.profile` makes it; up to the commit, or the card

    def to_document(self) -> dict[str, Any]:
        gates = [asdict(gate) for gate in self.gates]
        times = {name: getattr(self, name).isoformat() for name in ("started", "finished")}
        return {**asdict(self), "gates": gates, **times}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self:
        facts = dict(document)
        facts["gates"] = tuple(Gate(**gate) for gate in facts["gates"])
        facts["warnings"] = tuple(facts["warnings"])
        for name in ("started", "finished"):
            facts[name] = datetime.fromisoformat(facts[name])
        return cls(**facts)


@dataclass(frozen=True)
class RunResult:
    """The result of a run; in JSON its counts stand beside the other facts."""

    watch: str
    day: str
    run_id: str
    status: str  # "committed", or "refused" by a gate
    already: bool  # the same run was committed before, and nothing was done
    counts: Counts
    rejected_files: int
    seconds: float
    rows_per_second: float
    table_version: int | None
    card: str | None
    bundle: str
    threshold: str
    failed_gates: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    input_version: int | None = None  # of the Delta table that was read

    @classmethod
    def of(cls, run: Run, books: RunBooks, ending: Ending, card: str) -> Self:
        """The result of a run that has just ended; `card` is the URI of its run card."""
        return cls(
            watch=run.spec.name,
            day=run.day,
            run_id=run.run_id,
            status="refused" if ending.version is None else "committed",
            already=False,
            counts=books.counts,
            rejected_files=len(run.snapshot.rejected),
            seconds=round(ending.seconds, 3),
            rows_per_second=round(books.counts.rows / max(ending.seconds, 1e-9)),
            table_version=ending.version,
            card=card,
            bundle=run.bundle.id,
            threshold=run.threshold.id,
            failed_gates=tuple(f"{g.name}: {g.message}" for g in ending.gates if not g.passed),
            warnings=(*books.warnings(), *ending.warnings),
            input_version=run.snapshot.version,
        )

    @classmethod
    def without_journal(cls, run: Run, facts: Mapping[str, str], version: int | None) -> Self:
        """The result of a committed run whose journal is gone, with the facts of its commit."""
        counts = {name: int(facts.get(name, 0)) for name in Counts().to_document()}
        return cls(
            watch=run.spec.name,
            day=run.day,
            run_id=run.run_id,
            status="committed",
            already=True,
            counts=Counts(**counts),
            rejected_files=len(run.snapshot.rejected),
            seconds=0.0,
            rows_per_second=0.0,
            table_version=version,
            card=None,
            bundle=run.bundle.id,
            threshold=run.threshold.id,
            input_version=run.snapshot.version,
        )

    def to_document(self) -> dict[str, Any]:
        facts = asdict(self)
        return {**facts, **facts.pop("counts")}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self:
        facts = dict(document)
        facts["counts"] = Counts(**{name: facts.pop(name) for name in Counts().to_document()})
        for name in ("failed_gates", "warnings"):
            facts[name] = tuple(facts[name])
        return cls(**facts)
