"""The verbs from a lake to a champion: look, check, plan, train, tune."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from jobs.cli.options import (
    Address,
    Days,
    Json,
    SignWith,
    SpecPath,
    day_range,
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


@verbs.command()
def init(
    uri: Annotated[str, typer.Argument(help="Folder or bucket prefix with Parquet files.")],
    output: Annotated[Path, typer.Option(help="The spec to write.")] = Path("watch.yaml"),
    force: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
) -> None:
    """Look at the data and write a commented spec with roles inferred."""
    from jobs import init as job

    if output.exists() and not force:
        raise Refusal(f"{output} exists: name another file with --output, or pass --force")
    output.write_text(job.init(uri, output))
    err.print(f"wrote {output}; look through it, then: python -m jobs check {output}")


@verbs.command()
def check(spec: SpecPath, as_json: Json = False) -> None:
    """Check a spec against the data."""
    from jobs import check as job

    report = job.run(spec)
    if as_json:
        print_document({"errors": report.errors, "warnings": report.warnings, "seen": report.seen})
    else:
        for line in report.seen:
            out.print(escape_message(line), highlight=False)
        for line in report.warnings:
            warn("warning", line)
    report.refuse()
    if not as_json:
        out.print(f"{spec}: fits the data", highlight=False)


@verbs.command()
def plan(
    spec: SpecPath,
    day: Annotated[str, typer.Option(help="Partition value; `all` without partitions.")],
    as_json: Json = False,
) -> None:
    """Print the snapshot and splits of a day, with predicted rows, bytes, memory and time."""
    from jobs import plan as job
    from jobs.spec.spec import load

    document = job.plan(load(spec), day)
    if as_json:
        print_document(document)
        return
    out.print(job.render_table(document))
    for rejected in document["rejected"]:
        warn("quarantined", rejected["message"])


@verbs.command()
@publishes_metrics
def train(
    watch: "Spec",
    metrics: "LiveMetrics",
    workers: Annotated[Optional[int], typer.Option(min=1, help="DDP workers.")] = None,  # noqa: UP045
    days: Days = None,
    promote: Annotated[bool, typer.Option(help="Make the bundle the champion.")] = True,
    start: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--from", help="Go on from a bundle's weights: its id, or champion."),
    ] = None,
    sign_with: SignWith = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Train the detector and its baselines; the bundle becomes the champion."""
    from dataclasses import asdict

    from jobs import train as job

    made = job.train(
        watch,
        days=day_range(days),
        workers=workers,
        address=address,
        promote=promote,
        start=start,
        sign_with=sign_with,
        metrics=metrics,
    )
    if as_json:
        print_document(asdict(made))
        return
    loss = "" if made.validation_loss is None else f", held-back loss {made.validation_loss:.4g}"
    out.print(
        f"bundle {made.bundle} from {made.rows:,} rows in {made.seconds:.0f} s: best epoch "
        f"{made.best_epoch} of {made.epochs}{loss}, {made.rows_per_second:,.0f} rows/s; "
        + ("champion" if made.promoted else f"not promoted (promote {watch.path} {made.bundle})"),
        highlight=False,
    )


@verbs.command()
def tune(
    spec: SpecPath,
    trials: Annotated[int, typer.Option(min=1, help="Options to try, the spec's own first.")] = 20,
    days: Days = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Look for better options of the detector, and print the best as YAML for the spec."""
    from jobs import tune as job
    from jobs.spec.spec import load

    document = job.tune(load(spec), trials, days=day_range(days), address=address)
    if as_json:
        print_document(document)
        return
    out.print(job.render_table(document))
    out.file.write(document["yaml"])


@verbs.command()
def threshold(
    spec: SpecPath,
    promote: Annotated[bool, typer.Option(help="Put it into force.")] = True,
    sign_with: SignWith = None,
    as_json: Json = False,
) -> None:
    """Choose a new threshold by the spec's policy from stored score sketches: no GPU, no data."""
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
        f"rows are above; " + ("in force" if document["promoted"] else "unchanged"),
        highlight=False,
    )
