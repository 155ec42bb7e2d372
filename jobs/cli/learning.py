"""The verbs from a lake to a champion: init, check, plan, train, tune, threshold."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli.options import (
    PROGRAM,
    Address,
    Day,
    Engine,
    Json,
    SignWith,
    SpecPath,
    command,
    days_option,
    parse_days,
    print_document,
    publishes_metrics,
)
from jobs.terminal.console import err, out, warn
from jobs.terminal.printable import escape_message
from models.refusal import Refusal

if TYPE_CHECKING:
    from jobs.monitoring.live import LiveMetrics
    from jobs.spec.spec import Spec

verbs = typer.Typer()
TrainingDays = Annotated[
    str | None,
    days_option("training.days of the spec, else all days but the newest"),
]


@command(verbs, "init s3://lake/flows --output specs/flows.yaml")
def init(
    uri: Annotated[str, typer.Argument(help="A folder or bucket prefix of Parquet files.")],
    output: Annotated[Path, typer.Option(help="The spec to write.")] = Path("watch.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    as_json: Json = False,
) -> None:
    """Write a first spec from a look at your data.

    Reads a sample of the newest day with rows and guesses the role of every column. The spec has a
    comment with the reason for each guess. Read it before you train.
    """
    import yaml

    from jobs import init as job

    if output.exists() and not force:
        raise Refusal(f"{output} exists: name another file with --output, or pass --force")
    text = job.init(uri, output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = error.strerror or "it cannot be written"
        raise Refusal(f"--output {output}: {reason}; name a file that can be written") from error
    if as_json:
        print_document({"spec": str(output), "document": yaml.safe_load(text)})
    err.print(f"wrote {output}; read it, then run: {PROGRAM} check {output}")


@command(verbs, "check specs/flows.yaml")
def check(spec: SpecPath, as_json: Json = False) -> None:
    """Compare a spec with the data.

    Checks every key, then the columns, types and filters against the newest day with rows. Reads no
    rows. Each problem is named with its line in the spec.
    """
    from jobs import check as job

    report = job.run(spec)
    if as_json:
        document = {"errors": report.errors, "warnings": report.warnings}
        print_document({**document, "seen": report.inputs})
    else:
        for line in report.inputs:
            out.print(escape_message(line), highlight=False)
        for line in report.warnings:
            warn("warning", line)
    report.refuse()
    if not as_json:
        out.print(f"{spec}: fits the data", highlight=False)


@command(verbs, "plan specs/flows.yaml --day 2026-11-22")
def plan(spec: SpecPath, day: Day, as_json: Json = False) -> None:
    """Show what scoring a day will do.

    Prints the files, splits and tasks of the day, with the predicted memory and time. Reads no rows
    and writes nothing.
    """
    from jobs import plan as job
    from jobs.spec.spec import load

    planned = job.plan(load(spec), day)
    if as_json:
        print_document(planned.to_document())
        return
    out.print(job.render_table(planned))
    for rejected in planned.snapshot.rejected:
        warn("quarantined", rejected.message)


@command(
    verbs,
    "train specs/flows.yaml --days 2026-11-01..2026-11-21 --workers 2",
    "train specs/flows.yaml --from champion",
)
@publishes_metrics
def train(
    watch: "Spec",
    metrics: "LiveMetrics",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Workers that train together. Default: training.workers."),
    ] = None,
    days: TrainingDays = None,
    promote: Annotated[
        bool, typer.Option(help="Make the new bundle the champion, or only store it.")
    ] = True,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Start from the weights of this bundle: its id, or its beginning, or champion.",
        ),
    ] = None,
    sign_with: SignWith = None,
    address: Address = None,
    engine: Engine = None,
    as_json: Json = False,
) -> None:
    """Train the detector and make it the champion.

    Fits the encoder, trains the detector and the baselines of the spec, chooses the threshold on
    held-back rows, and stores all of it as a bundle.
    """
    from dataclasses import asdict

    from jobs import train as job

    request = job.TrainRequest(
        parse_days(days), workers, address, engine, promote, start, sign_with
    )
    made = job.train(watch, request, metrics)
    if as_json:
        print_document(asdict(made))
        return
    loss = "" if made.validation_loss is None else f", held-back loss {made.validation_loss:.4g}"
    learned = ""  # a detector that learns from a sample has no epochs
    if made.epochs:
        learned = f": best epoch {made.best_epoch} of {made.epochs}{loss}"
        learned += f", {made.rows_per_second:,.0f} rows/s"
    out.print(
        f"bundle {made.bundle} from {made.rows:,} rows in {made.seconds:.0f} s{learned}; "
        + ("champion" if made.promoted else f"not promoted (promote {watch.path} {made.bundle})"),
        highlight=False,
    )


@command(verbs, "tune specs/flows.yaml --trials 20")
def tune(
    spec: SpecPath,
    trials: Annotated[
        int, typer.Option(min=1, help="Sets of options to try. The first is the spec's own.")
    ] = 20,
    days: TrainingDays = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Search for better options of the detector.

    Ranks the options by held-back labels, or without labels by planted anomalies. Prints the best
    as YAML for the spec; the champion does not change. Finished trials are kept: a later run with
    more trials continues from them.
    """
    from jobs import tune as job
    from jobs.spec.spec import load

    document = job.tune(load(spec), trials, days=parse_days(days), address=address)
    if as_json:
        print_document(document)
        return
    out.print(job.render_table(document))
    out.file.write(document["yaml"])


@command(verbs, "threshold specs/flows.yaml")
def threshold(
    spec: SpecPath,
    promote: Annotated[
        bool, typer.Option(help="Use the new threshold from now on, or only store it.")
    ] = True,
    sign_with: SignWith = None,
    as_json: Json = False,
) -> None:
    """Choose a new threshold for the champion.

    Applies the threshold section of the spec to the stored scores of the held-back rows. Needs no
    GPU and reads no data.
    """
    from jobs import threshold as job
    from jobs.spec.spec import load

    document = job.change_threshold(load(spec), promote, sign_with=sign_with)
    if as_json:
        print_document(document)
        return
    before, after = document["before"], document["after"]
    out.print(
        f"threshold {before['value']:.6g} -> {after['value']:.6g} by {after['policy']}: "
        f"{document['calibration_rows_above']:,} of {document['calibration_rows']:,} held-back "
        f"rows are above; " + ("in use" if document["promoted"] else "unchanged"),
        highlight=False,
    )
