"""The verbs of a night: score, evaluate, leaderboard, flags, nightly, backfill."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.cli.options import (
    Address,
    Day,
    Engine,
    Json,
    SignWith,
    SingleWriter,
    SpecPath,
    command,
    days_option,
    parse_days,
    print_document,
    print_json,
    publishes_metrics,
)
from jobs.terminal.console import out, warn

if TYPE_CHECKING:
    from jobs.monitoring.live import LiveMetrics
    from jobs.spec.spec import Spec

verbs = typer.Typer()


@command(
    verbs, "score specs/flows.yaml --day 2026-11-22", statuses={1: "a gate stopped the commit"}
)
@publishes_metrics
def score(
    watch: "Spec",
    metrics: "LiveMetrics",
    day: Day,
    single_writer: SingleWriter = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show how long each stage of the run took.")
    ] = False,
    address: Address = None,
    engine: Engine = None,
    as_json: Json = False,
) -> None:
    """Score a day with the champion and commit its flags.

    Every row is scored, or goes to the quarantine with a reason. If a gate fails, nothing is
    committed. A run that was stopped resumes where it was; a committed run changes nothing.
    """
    from cluster.splits import opening as engines
    from jobs.report.profile import Clock

    clock = Clock()
    with clock("start"):
        engines.start(address, engine, beside="jobs.score")
    from jobs import score as job

    result = job.score(
        watch,
        day,
        address=address,
        engine=engine,
        single_writer=single_writer,
        clock=clock,
        show_profile=profile,
        metrics=metrics,
    )
    if as_json:
        print_document(result.to_document())
    else:
        _print_result(result)
    if result.status != "committed":
        raise typer.Exit(1)


def _print_result(result: Any) -> None:
    for warning in result.warnings:
        warn("warning", warning)
    if result.already:
        out.print(f"{result.day} is committed already by the same run: nothing to do")
        return
    counts = result.counts
    line = (
        f"{result.day}: {counts.rows:,} rows = {counts.scored:,} scored + "
        f"{counts.quarantined:,} quarantined + {counts.filtered:,} filtered; "
        f"{counts.flagged:,} flags; {result.rows_per_second:,.0f} rows/s; run {result.run_id}"
    )
    out.print(line, highlight=False)
    for gate in result.failed_gates:
        warn("gate", gate, "red")
    if result.status != "committed":
        warn("not committed", "the table of flags is unchanged", "red")
    out.print(f"run card: {result.card}", highlight=False, soft_wrap=True)


@command(verbs, "evaluate specs/flows.yaml --days 2026-11-22")
def evaluate(
    spec: SpecPath,
    days: Annotated[str | None, days_option("all days")] = None,
    address: Address = None,
    engine: Engine = None,
    as_json: Json = False,
) -> None:
    """Compare the champion with its baselines on labelled rows.

    Prints AUROC, precision, recall and more for each of them. Needs a column with the role label.
    Writes nothing but derived rows.
    """
    from jobs import evaluate as job
    from jobs.spec.spec import load

    document = job.evaluate(load(spec), parse_days(days), address=address, engine=engine)
    if as_json:
        print_document(document)
        return
    for table in job.render_table(document):
        out.print(table)


@command(verbs, "leaderboard specs/flows.yaml --detector knn --detector autoencoder")
def leaderboard(
    spec: SpecPath,
    days: Annotated[str | None, days_option("all days that are not training days")] = None,
    rows: Annotated[
        int,
        typer.Option(min=100, help="Approximate number of rows to train on and to evaluate on."),
    ] = 50_000,
    detector: Annotated[
        list[str] | None,
        typer.Option(
            help="A detector to try, also of another package. Can be given several times. "
            "Default: all that `python -m models list` shows."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Rank all detectors on a sample of your data.

    Trains each of them on the training days and evaluates it on labelled days. Needs a column with
    the role label. Writes nothing but derived rows.
    """
    from jobs import leaderboard as job
    from jobs.spec.spec import load

    document = job.leaderboard(load(spec), parse_days(days), rows=rows, detectors=detector or ())
    if as_json:
        print_document(document)
    else:
        out.print(job.render_table(document))


@command(
    verbs,
    "flags specs/flows.yaml --day 2026-11-22",
    "flags specs/flows.yaml --sql 'SELECT src_ip, count(*) FROM flags GROUP BY ALL'",
)
def flags(
    spec: SpecPath,
    day: Annotated[str | None, typer.Option(help="One day. Default: all days.")] = None,
    sql: Annotated[
        str | None,
        typer.Option(help="An SQL query (DuckDB) over the views flags, quarantine and scores."),
    ] = None,
    export: Annotated[
        str | None,
        typer.Option(help="Write the flags to this URI as Parquet, in folders day=…"),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most flags to print. --json prints all.")] = 20,
    as_json: Json = False,
) -> None:
    """Show the committed flags with their reasons.

    The most severe come first. With --sql the answer of a query is shown instead.
    """
    from dataclasses import asdict

    from jobs import flags as job
    from jobs.output import open_output
    from jobs.spec.spec import load

    watch = load(spec)
    open_output(watch)
    table = f"{watch.output.uri.rstrip('/')}/flags"
    if export:
        written = job.export(table, export)
        if as_json:
            print_document({"target": export, **asdict(written)})
            return
        out.print(f"wrote {written.rows:,} flags to {export}", highlight=False, soft_wrap=True)
        return
    frame = job.query(sql, table, day) if sql else job.read(table, day)
    if as_json:
        print_json(job.to_json(frame))
        return
    if frame.empty and not sql:
        scored = f"{day} was scored, and" if day else "of all scored days"
        line = f"{scored} no row has a score above the threshold"
        out.print(line, markup=False, highlight=False)
        return
    job.show(frame, limit, out, None if sql else watch.roles)


@command(
    verbs,
    "nightly specs/flows.yaml",
    statuses={1: "a day or the training failed, or a day waits that no night will score"},
)
@publishes_metrics
def nightly(
    watch: "Spec",
    metrics: "LiveMetrics",
    single_writer: SingleWriter = False,
    sign_with: SignWith = None,
    address: Address = None,
    engine: Engine = None,
    as_json: Json = False,
) -> None:
    """Do all the work that is due; for a scheduler.

    Trains if there is no champion or it is too old, then scores every complete day that is not
    committed, the oldest first. Says which days it leaves out and why. Alerts go to the webhooks of
    the spec.
    """
    from jobs import nightly as job

    night = job.nightly(
        watch,
        address=address,
        engine=engine,
        single_writer=single_writer,
        sign_with=sign_with,
        metrics=metrics,
    )
    _end_night(night, as_json)


@command(
    verbs,
    "backfill specs/flows.yaml --days 2026-11-01..2026-11-21",
    statuses={1: "a day is not committed"},
)
@publishes_metrics
def backfill(
    watch: "Spec",
    metrics: "LiveMetrics",
    days: Annotated[str, typer.Option(help="FIRST..LAST, both included, or one day.")],
    single_writer: SingleWriter = False,
    address: Address = None,
    engine: Engine = None,
    as_json: Json = False,
) -> None:
    """Score all days of a range that are not committed.

    Uses the champion as it is, and never trains.
    """
    from jobs import nightly as job

    night = job.backfill(
        watch,
        parse_days(days),
        address=address,
        engine=engine,
        single_writer=single_writer,
        metrics=metrics,
    )
    _end_night(night, as_json)


def _end_night(night: Any, as_json: bool) -> None:
    if as_json:
        print_document(night.to_document())
    if not night.ok:
        raise typer.Exit(75 if night.may_pass else 1)
