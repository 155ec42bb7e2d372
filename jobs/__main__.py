"""The command line, `python -m jobs VERB`: it chooses a spec and a day; the spec configures.

Torch and Ray are imported by the verb that needs them: `--help` answers at once.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional, TextIO

import typer

from jobs.console import configure_logs, err, keep_stdout, out
from jobs.printable import said
from models.refusal import Refusal

if TYPE_CHECKING:
    from jobs.spec import Spec
    from jobs.telemetry import Telemetry

app = typer.Typer(
    name="python -m jobs",
    help="Anomaray finds anomalies in a data lake.\n\n"
    "A night is: [b]train[/] a detector, [b]score[/] a day, read its [b]flags[/]. "
    "Start with [b]init URI[/], which looks at your Parquet and writes a spec.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

_TRACE = "ANOMARAY_TRACE"
_LOOPBACK = "127.0.0.1"

SpecPath = Annotated[Path, typer.Argument(help="The spec: the YAML file of a watch.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Address = Annotated[
    Optional[str],  # noqa: UP045 - typer reads the annotation
    typer.Option(help="Address of a running Ray (also RAY_ADDRESS); without it Ray is embedded."),
]
SingleWriter = Annotated[
    bool,
    typer.Option(help="Allow a store without conditional PUT; nothing else may write there."),
]
SignWith = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        envvar="ANOMARAY_SIGNING_KEY_FILE",
        help="Sign the champion with the key in this file, made by `keys`.",
    ),
]
MetricsPort = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        min=0, max=65535, help="Serve metrics for Prometheus on this port; 0: a free one."
    ),
]
MetricsHost = Annotated[str, typer.Option(help="The address that --metrics-port is opened on.")]
MetricsFile = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Keep metrics in this file, NAME.prom, for node_exporter to collect."),
]
Days = Annotated[Optional[str], typer.Option(help="FIRST..LAST, both included, or one day.")]  # noqa: UP045


def _range(days: str | None) -> Any:
    from jobs.spec import DayRange

    try:
        return None if days is None else DayRange.parse(days)
    except ValueError as error:
        raise Refusal(f"--days: {error}, such as 2026-01-01..2026-01-13") from None


def _told(
    spec: "Spec", verb: str, port: int | None, host: str, file: Path | None
) -> AbstractContextManager["Telemetry"]:
    """The telemetry of a verb, exposed where the command line says; there, before any work."""
    if port is None and file is None:
        from jobs.telemetry import Telemetry

        return nullcontext(Telemetry(spec.name, verb))
    from jobs.exposition import Places, told

    return told(spec, verb, Places(port, host, file))


def _print(document: Any) -> None:
    _print_json(json.dumps(document, indent=1, default=str))


def _print_json(text: str) -> None:
    """JSON in ASCII, in which DEL alone is left of what a terminal may obey."""
    out.file.write(text.replace("\x7f", "\\u007f") + "\n")


@app.command()
def init(
    uri: Annotated[str, typer.Argument(help="Folder or bucket prefix with Parquet files.")],
    output: Annotated[Path, typer.Option(help="The spec to write.")] = Path("watch.yaml"),
    force: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
) -> None:
    """Look at the data and write a commented spec with roles inferred."""
    from jobs import init as job

    if output.exists() and not force:
        raise Refusal(f"{output} exists: name another file with --output, or pass --force")
    output.write_text(job.init(uri, output.stem))
    err.print(f"wrote {output}; look through it, then: python -m jobs check {output}")


@app.command()
def check(spec: SpecPath, as_json: Json = False) -> None:
    """Check a spec against the data."""
    from jobs import check as job

    report = job.run(spec)
    if as_json:
        _print({"errors": report.errors, "warnings": report.warnings, "seen": report.seen})
    else:
        for line in report.seen:
            out.print(said(line), highlight=False)
        for line in report.warnings:
            err.print(f"[yellow]warning[/] {said(line)}", highlight=False)
    report.refuse()
    if not as_json:
        out.print(f"{spec}: fits the data", highlight=False)


@app.command()
def plan(
    spec: SpecPath,
    day: Annotated[str, typer.Option(help="Partition value; `all` without partitions.")],
    as_json: Json = False,
) -> None:
    """Print the snapshot and splits of a day, with predicted rows, bytes, memory and time."""
    from jobs import plan as job
    from jobs.spec import load

    document = job.plan(load(spec), day)
    if as_json:
        _print(document)
        return
    out.print(job.table_of(document))
    for rejected in document["rejected"]:
        err.print(f"[yellow]to the quarantine[/] {said(rejected['message'])}", highlight=False)


@app.command()
def train(
    spec: SpecPath,
    workers: Annotated[Optional[int], typer.Option(min=1, help="DDP workers.")] = None,  # noqa: UP045
    days: Days = None,
    promote: Annotated[bool, typer.Option(help="Make the bundle the champion.")] = True,
    start: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--from", help="Go on from a bundle's weights: its id, or champion."),
    ] = None,
    sign_with: SignWith = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = _LOOPBACK,
    metrics_file: MetricsFile = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Train the detector and its baselines; the bundle becomes the champion."""
    from dataclasses import asdict

    from jobs import train as job
    from jobs.spec import load

    watch = load(spec)
    with _told(watch, "train", metrics_port, metrics_host, metrics_file) as telemetry:
        made = job.train(
            watch,
            days=_range(days),
            workers=workers,
            address=address,
            promote=promote,
            start=start,
            sign_with=sign_with,
            telemetry=telemetry,
        )
    if as_json:
        _print(asdict(made))
        return
    loss = "" if made.validation_loss is None else f", held-back loss {made.validation_loss:.4g}"
    out.print(
        f"bundle {made.bundle} from {made.rows:,} rows in {made.seconds:.0f} s: best epoch "
        f"{made.best_epoch} of {made.epochs}{loss}, {made.rows_per_second:,.0f} rows/s; "
        + ("champion" if made.promoted else f"not promoted (promote {spec} {made.bundle})"),
        highlight=False,
    )


@app.command()
def tune(
    spec: SpecPath,
    trials: Annotated[int, typer.Option(min=1, help="Options to try, the spec's own first.")] = 20,
    days: Days = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Look for better options of the detector, and print the best as YAML for the spec."""
    from jobs import tune as job
    from jobs.spec import load

    document = job.tune(load(spec), trials, days=_range(days), address=address)
    if as_json:
        _print(document)
        return
    out.print(job.table_of(document))
    out.file.write(document["yaml"])


@app.command()
def threshold(
    spec: SpecPath,
    promote: Annotated[bool, typer.Option(help="Put it into force.")] = True,
    sign_with: SignWith = None,
    as_json: Json = False,
) -> None:
    """Choose a new threshold by the spec's policy from stored score sketches: no GPU, no data."""
    from jobs import threshold as job
    from jobs.spec import load

    document = job.change(load(spec), promote, sign_with=sign_with)
    if as_json:
        _print(document)
        return
    before, after = document["before"], document["after"]
    out.print(
        f"threshold {before['value']:.6g} -> {after['value']:.6g} by {after['policy']}: "
        f"{document['calibration_rows_above']:,} of {document['calibration_rows']:,} held-back "
        f"rows are above; " + ("in force" if document["promoted"] else "unchanged"),
        highlight=False,
    )


@app.command()
def score(
    spec: SpecPath,
    day: Annotated[str, typer.Option(help="Partition value; `all` without partitions.")],
    single_writer: SingleWriter = False,
    profile: Annotated[bool, typer.Option("--profile", help="Say where the time went.")] = False,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = _LOOPBACK,
    metrics_file: MetricsFile = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Score a day and commit its flags. Exits with 0 only when they are committed."""
    from jobs.spec import load

    watch = load(spec)
    from cluster import session
    from jobs.profile import Clock

    clock = Clock()
    with _told(watch, "score", metrics_port, metrics_host, metrics_file) as telemetry:
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
            telemetry=telemetry,
        )
    if as_json:
        _print(receipt.to_document())
    else:
        _say_receipt(receipt)
    if receipt.status != "committed":
        raise typer.Exit(1)


def _say_receipt(receipt: Any) -> None:
    for warning in receipt.warnings:
        err.print(f"[yellow]warning[/] {said(warning)}", highlight=False)
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
        err.print(f"[red]gate[/] {said(gate)}", highlight=False)
    if receipt.status != "committed":
        err.print("[red]not committed[/]: the table is as it was before", highlight=False)
    out.print(f"run card: {receipt.card}", highlight=False, soft_wrap=True)


@app.command()
def evaluate(
    spec: SpecPath, days: Days = None, address: Address = None, as_json: Json = False
) -> None:
    """Measure the detector and its baselines, side by side, on labelled days."""
    from jobs import evaluate as job
    from jobs.spec import load

    document = job.evaluate(load(spec), _range(days), address=address)
    if as_json:
        _print(document)
        return
    for table in job.table_of(document):
        out.print(table)


@app.command()
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
    from jobs.spec import load

    document = job.leaderboard(load(spec), _range(days), rows=rows, detectors=detector or ())
    if as_json:
        _print(document)
    else:
        out.print(job.table_of(document))


@app.command()
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
    from jobs.spec import load

    watch = load(spec)
    table = f"{watch.output.uri.rstrip('/')}/flags"
    if export:
        written = job.export(table, export)
        out.print(f"wrote {written.rows:,} flags to {export}", highlight=False)
        return
    frame = job.query(sql, table, day) if sql else job.read(table, day)
    if as_json:
        _print_json(frame.to_json(orient="records", date_format="iso"))
        return
    job.show(frame, limit, out, None if sql else watch.roles)


@app.command()
def nightly(
    spec: SpecPath,
    single_writer: SingleWriter = False,
    sign_with: SignWith = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = _LOOPBACK,
    metrics_file: MetricsFile = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """What a scheduler calls: trains when due, scores every complete day not yet committed."""
    from jobs import nightly as job
    from jobs.spec import load

    watch = load(spec)
    with _told(watch, "nightly", metrics_port, metrics_host, metrics_file) as telemetry:
        night = job.nightly(
            watch,
            address=address,
            single_writer=single_writer,
            sign_with=sign_with,
            telemetry=telemetry,
        )
    _end_night(night, as_json)


@app.command()
def backfill(
    spec: SpecPath,
    days: Annotated[str, typer.Option(help="FIRST..LAST, both included, or one day.")],
    single_writer: SingleWriter = False,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = _LOOPBACK,
    metrics_file: MetricsFile = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Score the days of a range that are not committed."""
    from jobs import nightly as job
    from jobs.spec import load

    watch = load(spec)
    with _told(watch, "backfill", metrics_port, metrics_host, metrics_file) as telemetry:
        night = job.backfill(
            watch,
            _range(days),
            address=address,
            single_writer=single_writer,
            telemetry=telemetry,
        )
    _end_night(night, as_json)


def _end_night(night: Any, as_json: bool) -> None:
    if as_json:
        _print(night.to_document())
    if not night.ok:
        raise typer.Exit(1)


@app.command()
def exporter(
    specs: Annotated[list[Path], typer.Argument(help="The specs of the watches to tell of.")],
    metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port of the endpoint; 0: a free one.")
    ] = 9464,
    metrics_host: MetricsHost = _LOOPBACK,
    every: Annotated[
        float, typer.Option(min=1, help="Seconds between two looks at the lake.")
    ] = 60.0,
) -> None:
    """Serve metrics of watches for Prometheus, from their records in the lake, until stopped."""
    from jobs import exporter as job
    from jobs.exposition import Places
    from jobs.spec import load

    job.export([load(spec) for spec in specs], Places(metrics_port, metrics_host), every)


@app.command()
def registry(spec: SpecPath, as_json: Json = False) -> None:
    """List the bundles of a watch, and which was champion when."""
    from jobs import bundles as job
    from jobs.spec import load

    document = job.listing(load(spec))
    if as_json:
        _print(document)
    else:
        out.print(job.table_of(document))


@app.command()
def promote(
    spec: SpecPath,
    bundle: Annotated[str, typer.Argument(help="Id of a bundle in the registry.")],
    sign_with: SignWith = None,
) -> None:
    """Make a bundle the champion, in one atomic step."""
    from jobs import bundles as job
    from jobs.spec import load

    out.print(job.promote(load(spec), bundle, sign_with=sign_with), highlight=False)


@app.command()
def rollback(spec: SpecPath, sign_with: SignWith = None) -> None:
    """Go back to the champion before this one, in one atomic step."""
    from jobs import bundles as job
    from jobs.spec import load

    out.print(job.rollback(load(spec), sign_with=sign_with), highlight=False)


@app.command()
def keys(
    path: Annotated[Path, typer.Argument(help="The new file that will hold the private key.")],
) -> None:
    """Make a key that signs champions; prints the public key, for `bundle.keys` of specs."""
    from cluster.lake.signatures import make_key

    out.print(make_key(path).public, highlight=False, soft_wrap=True)
    err.print(f"wrote {said(str(path))}, which only you can read", highlight=False)


@app.command()
def vacuum(
    spec: SpecPath,
    hours: Annotated[int, typer.Option(min=0, help="Keep files younger than this.")] = 168,
    dry_run: Annotated[bool, typer.Option(help="Only list what would be removed.")] = True,
) -> None:
    """Remove shards that no commit names (dead attempts, replaced runs) and old derived rows."""
    from jobs import bundles as job
    from jobs.spec import load

    removed = job.vacuum(load(spec), hours, dry_run)
    for key in removed:
        out.print(said(key), highlight=False)
    verb = "would be removed (pass --no-dry-run)" if dry_run else "were removed"
    err.print(f"{len(removed):,} files {verb}", highlight=False)


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": True})
def submit(
    arguments: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            help="A verb and its arguments, as they would be run here.", metavar="VERB …"
        ),
    ] = None,
    address: Annotated[
        str, typer.Option(help="The cluster's dashboard.", metavar="http://HEAD:8265")
    ] = "http://127.0.0.1:8265",
    environment: Annotated[
        Literal["image", "lock"],
        typer.Option(
            help="`image`: every node has requirements.lock, as `infra/image` does; that is "
            "checked. `lock`: every node copies its own environment (2.5 GB and 20 s with nothing "
            "missing) and installs there, with pip, what it lacks of the lock; where that is torch,"
            " it is PyPI's build for CUDA. Later jobs find it there. Needs PyPI, pip, room in /tmp."
        ),
    ] = "image",
    env: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Name of a variable to send along; no secret: others can read it."),
    ] = None,
    attach: Annotated[Optional[str], typer.Option(help="Follow the job of this id.")] = None,  # noqa: UP045
    cancel: Annotated[Optional[str], typer.Option(help="End the job of this id.")] = None,  # noqa: UP045
) -> None:
    """Run a verb on a cluster and see it through; submitted again, attach to where it is.

    Its stdout is the verb's own, so `--json` can be read by machines; the rest
    of its log goes to stderr. The exit status is the verb's; 143 if the job was
    ended, 130 after Ctrl-C; 75 if the head was gone for two minutes, or the
    cluster failed the job: then the same command goes on.
    """
    if [bool(arguments), attach is not None, cancel is not None].count(True) != 1:
        raise Refusal("expected one of: a verb and its arguments, --attach ID, --cancel ID")
    from jobs import submit as job

    if attach is not None:
        raise typer.Exit(job.attach(address, attach))
    if cancel is not None:
        raise typer.Exit(job.cancel(address, cancel))
    verbs = [command.callback.__name__ for command in app.registered_commands if command.callback]
    raise typer.Exit(job.submit(address, arguments or [], verbs, environment, env or ()))


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where data and results go.")] = Path("demo"),
    workers: Annotated[int, typer.Option(min=1, help="DDP workers.")] = 2,
    scale: Annotated[float, typer.Option(min=0.01, help="Multiplies the rows.")] = 1.0,
) -> None:
    """Generate two weeks of flows and transactions, train, score the last day, show the flags."""
    from jobs import demo_run as job

    job.run(folder, workers, scale)


@app.command()
def generate(
    folder: Annotated[Path, typer.Argument(help="Where the demo's data goes.")],
    days: Annotated[int, typer.Option(min=1)] = 14,
    scale: Annotated[float, typer.Option(min=0.01, help="Multiplies the rows.")] = 1.0,
    seed: Annotated[int, typer.Option()] = 7,
) -> None:
    """Only write the demo's data: labelled flows and transactions, the same for a seed."""
    from jobs import demo as job
    from jobs.console import step

    with step("write", days * job.FILES_A_DAY * 2) as progress:
        summary = job.write(
            folder, days=days, scale=scale, seed=seed, progress=lambda *_: progress.advance()
        )
    _print(job.document(summary))


@contextmanager
def _refusals() -> Iterator[None]:
    """A refusal is one message and exit code 2, a store that fails one and 75 (EX_TEMPFAIL of
    sysexits.h); everything else is a fault and keeps its trace."""
    try:
        yield
    except Refusal as error:
        err.print(f"[bold red]refused[/] {said(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except OSError as error:
        if os.environ.get(_TRACE):
            raise
        err.print(
            f"[bold red]failed[/] {said(_cause(error))}. What is done is kept: the same command "
            f"goes on where this one was ({_TRACE}=1 shows the trace)",
            highlight=False,
            soft_wrap=True,
        )
        sys.exit(75)
    except KeyboardInterrupt:
        err.print("stopped; the same command goes on where this one was", highlight=False)
        sys.exit(130)


def _cause(error: OSError) -> str:
    """The error in one line; of an actor's, what was raised there."""
    from rich.text import Text

    raised = getattr(error, "cause", None) or error
    lines = Text.from_ansi(str(raised)).plain.splitlines()
    return f"{type(raised).__name__}: {': '.join(line.strip(' ↳') for line in lines if line)}"


def main(results: Callable[[TextIO], TextIO] | None = None) -> None:
    """Run the verb of the command line; `results` wraps the stream that its results go to."""
    configure_logs()
    if results or "--json" in sys.argv:  # before a verb starts Ray, and in this process alone
        keep_stdout(results)
    code = 0
    with _refusals():
        try:
            app()
        except SystemExit as end:  # typer ends every command with one
            if not _leaves():
                raise
            code = end.code if isinstance(end.code, int) else 1
    if _leaves():
        sys.modules["cluster.session"].leave(code)


def _leaves() -> bool:
    session = sys.modules.get("cluster.session")
    return session is not None and session.is_left_running()


if __name__ == "__main__":
    main()
