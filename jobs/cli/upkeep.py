"""The verbs beside the nights: bundles, keys, tidying, metrics, the demo."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.options import LOOPBACK, Json, MetricsHost, SignWith, SpecPath, print_document
from jobs.terminal.console import err, out
from jobs.terminal.printable import escape_message

verbs = typer.Typer()


@verbs.command()
def exporter(
    specs: Annotated[list[Path], typer.Argument(help="The specs of the watches to tell of.")],
    metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port of the endpoint; 0: a free one.")
    ] = 9464,
    metrics_host: MetricsHost = LOOPBACK,
    every: Annotated[
        float, typer.Option(min=1, help="Seconds between two looks at the lake.")
    ] = 60.0,
) -> None:
    """Serve metrics of watches for Prometheus, from their records in the lake, until stopped."""
    from jobs.monitoring import exporter as job
    from jobs.monitoring.endpoint import Destinations
    from jobs.spec.spec import load

    job.run_exporter(
        [load(spec) for spec in specs], Destinations(metrics_port, metrics_host), every
    )


@verbs.command()
def registry(spec: SpecPath, as_json: Json = False) -> None:
    """List the bundles of a watch, and which was champion when."""
    from jobs import registry as job
    from jobs.spec.spec import load

    document = job.list_bundles(load(spec))
    if as_json:
        print_document(document)
    else:
        out.print(job.render_table(document))


@verbs.command()
def promote(
    spec: SpecPath,
    bundle: Annotated[str, typer.Argument(help="Id of a bundle in the registry.")],
    sign_with: SignWith = None,
) -> None:
    """Make a bundle the champion, in one atomic step."""
    from jobs import registry as job
    from jobs.spec.spec import load

    out.print(job.promote(load(spec), bundle, sign_with=sign_with), highlight=False)


@verbs.command()
def rollback(spec: SpecPath, sign_with: SignWith = None) -> None:
    """Go back to the champion before this one, in one atomic step."""
    from jobs import registry as job
    from jobs.spec.spec import load

    out.print(job.rollback(load(spec), sign_with=sign_with), highlight=False)


@verbs.command()
def keys(
    path: Annotated[Path, typer.Argument(help="The new file that will hold the private key.")],
) -> None:
    """Make a key that signs champions; prints the public key, for `bundle.keys` of specs."""
    from cluster.lake.registry.signatures import make_key

    out.print(make_key(path).public, highlight=False, soft_wrap=True)
    err.print(f"wrote {escape_message(str(path))}, which only you can read", highlight=False)


@verbs.command()
def vacuum(
    spec: SpecPath,
    hours: Annotated[int, typer.Option(min=0, help="Keep files younger than this.")] = 168,
    dry_run: Annotated[bool, typer.Option(help="Only list what would be removed.")] = True,
) -> None:
    """Remove shards that no commit names (dead attempts, replaced runs) and old derived rows."""
    from jobs import registry as job
    from jobs.spec.spec import load

    removed = job.vacuum(load(spec), hours, dry_run)
    for key in removed:
        out.print(escape_message(key), highlight=False)
    verb = "would be removed (pass --no-dry-run)" if dry_run else "were removed"
    err.print(f"{len(removed):,} files {verb}", highlight=False)


@verbs.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where data and results go.")] = Path("demo"),
    workers: Annotated[int, typer.Option(min=1, help="DDP workers.")] = 2,
    scale: Annotated[float, typer.Option(min=0.01, help="Multiplies the rows.")] = 1.0,
) -> None:
    """Generate two weeks of flows and transactions, train, score the last day, show the flags."""
    from jobs.demo import run as job

    job.run(folder, workers, scale)


@verbs.command()
def generate(
    folder: Annotated[Path, typer.Argument(help="Where the demo's data goes.")],
    days: Annotated[int, typer.Option(min=1)] = 14,
    scale: Annotated[float, typer.Option(min=0.01, help="Multiplies the rows.")] = 1.0,
    seed: Annotated[int, typer.Option()] = 7,
) -> None:
    """Only write the demo's data: labelled flows and transactions, the same for a seed."""
    from jobs.demo import data as job
    from jobs.terminal.console import step

    with step("write", days * job.FILES_A_DAY * 2) as progress:
        summary = job.write(
            folder, days=days, scale=scale, seed=seed, progress=lambda *_: progress.advance()
        )
    print_document(job.document(summary))
