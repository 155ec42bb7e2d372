"""The verbs of a night: score, measure, read, and all that is due."""

from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from jobs.cli.options import (
    Address,
    Days,
    Json,
    SignWith,
    SingleWriter,
    SpecPath,
    day_range,
    print_document,
    print_json,
    publishes_metrics,
)
from jobs.terminal.console import out, warn

if TYPE_CHECKING:
    from jobs.monitoring.live import LiveMetrics
    from jobs.spec.spec import Spec

verbs = typer.Typer()


@verbs.command()
@publishes_metrics
def score(
    watch: "Spec",
    metrics: "LiveMetrics",
    day: Annotated[str, typer.Option(help="Partition value; `all` without partitions.")],
    single_writer: SingleWriter = False,
    profile: Annotated[bool, typer.Option("--profile", help="Say where the time went.")] = False,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Score a day and commit its flags. Exits with 0 only when they are committed."""
    from cluster.runtime import session
    from jobs.report.profile import Clock

    clock = Clock()
    with clock("start"):
        session.start(address, beside="jobs.score")
    from jobs import score as job

    receipt = job.score(
        watch,
        day,
        address=address,
        single_writer=single_writer,
        clock=clock,
        show_profile=profile,
        metrics=metrics,
    )
    if as_json:
        print_document(receipt.to_document())
    else:
        _say_receipt(receipt)
    if receipt.status != "committed":
        raise typer.Exit(1)


def _say_receipt(receipt: Any) -> None:
    for warning in receipt.warnings:
        warn("warning", warning)
    if receipt.already:
        out.print(f"{receipt.day} was committed before by this very run: nothing to do")
        return
    line = (
        f"{receipt.day}: {receipt.rows:,} rows = {receipt.scored:,} scored + "
        f"{receipt.quarantined:,} quarantined + {receipt.filtered:,} filtered; "
        f"{receipt.flagged:,} flags; {receipt.rows_per_second:,.0f} rows/s; run {receipt.run_id}"
    )
    out.print(line, highlight=False)
    for gate in receipt.failed_gates:
        warn("gate", gate, "red")
    if receipt.status != "committed":
        warn("not committed", "the table of flags is unchanged", "red")
    out.print(f"run card: {receipt.card}", highlight=False, soft_wrap=True)


@verbs.command()
def evaluate(
    spec: SpecPath, days: Days = None, address: Address = None, as_json: Json = False
) -> None:
    """Measure the detector and its baselines, side by side, on labelled days."""
    from jobs import evaluate as job
    from jobs.spec.spec import load

    document = job.evaluate(load(spec), day_range(days), address=address)
    if as_json:
        print_document(document)
        return
    for table in job.render_table(document):
        out.print(table)


@verbs.command()
def leaderboard(
    spec: SpecPath,
    days: Days = None,
    rows: Annotated[
        int, typer.Option(min=100, help="About so many are learned from, and as many judged.")
    ] = 50_000,
    detector: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="A detector to try; repeatable. Without it, the whole catalogue."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Rank the catalogue on a sample of this watch's labelled days. Nothing is written."""
    from jobs import leaderboard as job
    from jobs.spec.spec import load

    document = job.leaderboard(load(spec), day_range(days), rows=rows, detectors=detector or ())
    if as_json:
        print_document(document)
    else:
        out.print(job.render_table(document))


@verbs.command()
def flags(
    spec: SpecPath,
    day: Annotated[Optional[str], typer.Option(help="One day; without it, all.")] = None,  # noqa: UP045
    sql: Annotated[Optional[str], typer.Option(help="A query over the view `flags`.")] = None,  # noqa: UP045
    export: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Write them as plain hive-partitioned Parquet to this URI."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows to print; --json has all.")] = 20,
    as_json: Json = False,
) -> None:
    """Read the committed flags: on the terminal, by SQL, or exported as plain Parquet."""
    from jobs import flags as job
    from jobs.spec.spec import load

    watch = load(spec)
    table = f"{watch.output.uri.rstrip('/')}/flags"
    if export:
        written = job.export(table, export)
        out.print(f"wrote {written.rows:,} flags to {export}", highlight=False)
        return
    frame = job.query(sql, table, day) if sql else job.read(table, day)
    if as_json:
        print_json(frame.to_json(orient="records", date_format="iso"))
        return
    job.show(frame, limit, out, None if sql else watch.roles)


@verbs.command()
@publishes_metrics
def nightly(
    watch: "Spec",
    metrics: "LiveMetrics",
    single_writer: SingleWriter = False,
    sign_with: SignWith = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """What a scheduler calls: trains when due, scores every complete day not yet committed."""
    from jobs import nightly as job

    night = job.nightly(
        watch,
        address=address,
        single_writer=single_writer,
        sign_with=sign_with,
        metrics=metrics,
    )
    _end_night(night, as_json)


@verbs.command()
@publishes_metrics
def backfill(
    watch: "Spec",
    metrics: "LiveMetrics",
    days: Annotated[str, typer.Option(help="FIRST..LAST, both included, or one day.")],
    single_writer: SingleWriter = False,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Score the days of a range that are not committed."""
    from jobs import nightly as job

    night = job.backfill(
        watch,
        day_range(days),
        address=address,
        single_writer=single_writer,
        metrics=metrics,
    )
    _end_night(night, as_json)


def _end_night(night: Any, as_json: bool) -> None:
    if as_json:
        print_document(night.to_document())
    if not night.ok:
        raise typer.Exit(1)
