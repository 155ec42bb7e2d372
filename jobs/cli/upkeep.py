"""The other verbs: exporter, registry, promote, rollback, keys, vacuum, demo, generate."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.options import (
    LOOPBACK,
    Json,
    MetricsHost,
    SignWith,
    SpecPath,
    command,
    print_document,
)
from jobs.terminal.console import err, out, warn
from jobs.terminal.printable import escape_message
from models.refusal import Refusal

verbs = typer.Typer()
# A reader that began to read a day finds its files for as long.
_SAFE_HOURS = 24
Scale = Annotated[
    float, typer.Option(min=0.01, help="Multiplies the rows: 1 is about 37,000 a day.")
]


@command(verbs, "exporter specs/flows.yaml specs/cards.yaml --metrics-port 9464")
def exporter(
    specs: Annotated[list[Path], typer.Argument(help="The specs of the watches.")],
    metrics_port: Annotated[
        int,
        typer.Option(min=0, max=65535, help="Port to serve the metrics on; 0 takes a free one."),
    ] = 9464,
    metrics_host: MetricsHost = LOOPBACK,
    every: Annotated[
        float, typer.Option(min=1, help="Seconds between two reads of the lake.")
    ] = 60.0,
    as_json: Json = False,
) -> None:
    """Serve Prometheus metrics of watches until stopped.

    Reads the records of the runs in the lake: last committed day, its flags, rows and age. Needs no
    Ray. With --json the address is printed once it answers.
    """
    from jobs.monitoring import exporter as job
    from jobs.monitoring.endpoint import Destinations
    from jobs.spec.spec import load

    job.run_exporter(
        [load(spec) for spec in specs],
        Destinations(metrics_port, metrics_host),
        every,
        print_document if as_json else None,
    )


@command(verbs, "registry specs/flows.yaml")
def registry(spec: SpecPath, as_json: Json = False) -> None:
    """List the bundles of a watch and its champions.

    Shows which bundle was champion from when, and with which threshold.
    """
    from jobs import registry as job
    from jobs.spec.spec import load

    document = job.list_bundles(load(spec))
    if as_json:
        print_document(document)
        return
    for table in job.render_tables(document):
        out.print(table)


@command(verbs, "promote specs/flows.yaml BUNDLE")
def promote(
    spec: SpecPath,
    bundle: Annotated[
        str, typer.Argument(help="Id of a bundle, or its beginning; the verb registry lists them.")
    ],
    sign_with: SignWith = None,
    as_json: Json = False,
) -> None:
    """Make a bundle the champion.

    The threshold is chosen by the spec. The change is atomic: runs use the old champion or the new
    one.
    """
    from jobs import registry as job
    from jobs.spec.spec import load

    made = job.promote(load(spec), bundle, sign_with=sign_with)
    if as_json:
        print_document(made)
        return
    before = f" (before: {made['before']})" if made["before"] else ""
    line = f"champion: {made['bundle']}, threshold {made['threshold']['value']:.6g}{before}"
    out.print(line, highlight=False)


@command(verbs, "rollback specs/flows.yaml")
def rollback(spec: SpecPath, sign_with: SignWith = None, as_json: Json = False) -> None:
    """Make the previous champion the champion again.

    The change is atomic: runs use the old champion or the new one.
    """
    from jobs import registry as job
    from jobs.spec.spec import load

    made = job.rollback(load(spec), sign_with=sign_with)
    if as_json:
        print_document(made)
        return
    line = f"champion: {made['bundle']}, threshold {made['threshold']} (rolled back)"
    out.print(line, highlight=False)


@command(verbs, "keys signing.key")
def keys(
    path: Annotated[Path, typer.Argument(help="The new file for the private key.")],
    as_json: Json = False,
) -> None:
    """Make a key that signs champions.

    Prints the public key, which goes into bundle.keys of specs; SECURITY.md explains it.
    """
    from cluster.lake.registry.signatures import make_key

    public = make_key(path).public
    if as_json:
        print_document({"public": public, "file": str(path)})
    else:
        out.print(public, highlight=False, soft_wrap=True)
    err.print(f"wrote {escape_message(str(path))}, which only you can read", highlight=False)


@command(verbs, "vacuum specs/flows.yaml", "vacuum specs/flows.yaml --no-dry-run")
def vacuum(
    spec: SpecPath,
    hours: Annotated[
        int, typer.Option(min=0, help="Keep files that are younger than these hours.")
    ] = 168,
    dry_run: Annotated[bool, typer.Option(help="Only list the files, or remove them.")] = True,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, for scripts.")] = False,
    as_json: Json = False,
) -> None:
    """Remove files that nothing uses.

    These are the shards of failed attempts and of replaced runs, journals of runs that were never
    finished, and derived rows that no verb has read for as long. The newest commit of each bundle
    is kept for a `rollback`, and whatever a run at work may need. Ages are by the clock of the
    store.
    """
    from jobs import vacuum as job
    from jobs.spec.spec import load

    if hours < _SAFE_HOURS and not dry_run and not yes:
        _confirm_few_hours(hours)
    removed = job.vacuum(load(spec), hours, dry_run)
    if as_json:
        print_document({"dry_run": dry_run, "files": removed})
    for key in removed if not as_json else ():
        out.print(escape_message(key), highlight=False, soft_wrap=True)
    verb = "would be removed (pass --no-dry-run)" if dry_run else "were removed"
    err.print(f"{len(removed):,} files {verb}", highlight=False)


def _confirm_few_hours(hours: int) -> None:
    text = (
        f"--hours {hours} also removes files that readers of the last day may have open: expected "
        f"{_SAFE_HOURS} at least"
    )
    if not sys.stdin.isatty():
        raise Refusal(f"{text}; pass --yes to do it nevertheless")
    warn("vacuum", text)
    typer.confirm("Remove them?", abort=True, err=True)


@command(verbs, "demo --folder demo")
def demo(
    folder: Annotated[Path, typer.Option(help="Folder for the data and the results.")] = Path(
        "demo"
    ),
    workers: Annotated[int, typer.Option(min=1, help="Workers that train together.")] = 2,
    scale: Scale = 1.0,
    as_json: Json = False,
) -> None:
    """Show a whole night on generated data.

    Generates two weeks of network flows and card transactions with planted incidents, trains a
    detector for each, scores the last day and shows the flags.
    """
    from jobs.demo import run as job

    shown = job.run(folder, workers, scale, show=not as_json)
    if as_json:
        print_document(shown.to_document())
    shown.refuse()


@command(verbs, "generate demo --days 30 --scale 10")
def generate(
    folder: Annotated[Path, typer.Argument(help="Folder for the data.")],
    days: Annotated[int, typer.Option(min=1, help="Number of days.")] = 14,
    scale: Scale = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same data.")] = 7,
    as_json: Json = False,
) -> None:
    """Write the data of the demo only.

    Labelled network flows and card transactions, in one folder each.
    """
    from jobs.demo import data as job
    from jobs.terminal.console import step

    with step("write", days * job.FILES_A_DAY * 2) as progress:
        summary = job.write(
            folder, days=days, scale=scale, seed=seed, progress=lambda *_: progress.advance()
        )
    if as_json:
        print_document(summary.to_document())
        return
    rows = " and ".join(f"{count:,} rows of {name}" for name, count in summary.rows.items())
    line = f"wrote {rows}, {summary.days[0]}..{summary.days[-1]}, to {folder}"
    out.print(escape_message(line), highlight=False, soft_wrap=True)
