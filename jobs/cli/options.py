"""The shared parts of the verbs: options, help, metrics and the printing of results."""

import json
import re
import sys
from collections.abc import Callable, Mapping
from functools import update_wrapper
from inspect import Parameter, Signature, getdoc, signature
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from jobs.terminal.console import out
from models.refusal import Refusal

# The name of the installed command, or how a checkout is run.
PROGRAM = "anomaray" if Path(sys.argv[0]).name == "anomaray" else "python -m jobs"
LOOPBACK = "127.0.0.1"
METRICS = "Metrics"  # the panel of their options in the help
STATUSES = {
    0: "success",
    2: "refused: the message says what to change",
    75: "a store or a node failed: run the same command to resume",
    130: "interrupted by Ctrl-C: run the same command to resume",
    143: "the same, by SIGTERM",
}

SpecPath = Annotated[Path, typer.Argument(help="The YAML file of the watch; see docs/spec.md.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster to work on, such as HOST:6379. Default: RAY_ADDRESS, or none."),
]
Engine = Annotated[
    Literal["local", "ray"] | None,
    typer.Option(
        help="local: threads of this process. ray: a Ray cluster, or one that this process starts. "
        "Default: ray for a cluster, several workers or several GPUs; otherwise local."
    ),
]
SingleWriter = Annotated[
    bool,
    typer.Option(
        "--single-writer",
        help="Allow a store without conditional PUT. Safe only while nothing else writes there.",
    ),
]
SignWith = Annotated[
    Path | None,
    typer.Option(
        envvar="ANOMARAY_SIGNING_KEY_FILE",
        help="Sign the champion with the private key in this file. The verb keys makes one.",
    ),
]
MetricsPort = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65535,
        help="Serve Prometheus metrics of the run on this port; 0 takes a free one.",
        rich_help_panel=METRICS,
    ),
]
MetricsHost = Annotated[
    str, typer.Option(help="Address to serve the metrics on.", rich_help_panel=METRICS)
]
MetricsFile = Annotated[
    Path | None,
    typer.Option(
        help="Write the metrics to this file, NAME.prom, for node_exporter.",
        rich_help_panel=METRICS,
    ),
]
Day = Annotated[
    str,
    typer.Option(
        help="The day: a date such as 2026-11-22 or 20261122, another value of the key, or all."
    ),
]


def days_option(default: str) -> Any:
    """The option `--days`; `default` says which days are taken without it."""
    return typer.Option(help=f"FIRST..LAST, both included, or one day. Default: {default}.")


def command(
    verbs: typer.Typer, *examples: str, statuses: Mapping[int, str] | None = None, **settings: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a verb. Its help ends with the examples and the exit statuses.

    `statuses` adds to, or replaces, the statuses that all verbs have.
    """
    lines = [f"[bold]Example:[/] {PROGRAM} {example}" for example in examples]
    known = sorted((STATUSES | dict(statuses or {})).items())
    lines.append(f"[bold]Exit status:[/] {'; '.join(f'{code} {text}' for code, text in known)}.")

    def register(verb: Callable[..., None]) -> Callable[..., None]:
        text = re.sub(r"(?<!\n)\n(?!\n)", " ", getdoc(verb) or "")  # typer keeps line breaks
        return verbs.command(help=text, epilog="\n\n".join(lines), **settings)(verb)

    return register


def parse_days(days: str | None) -> Any:
    """The range of `--days`; None without the option. Raises `Refusal` for other text."""
    from cluster.lake.days import DayRange

    try:
        return None if days is None else DayRange.parse(days)
    except Refusal as refusal:
        raise Refusal(f"--days: {refusal}") from None
    except ValueError as error:
        raise Refusal(f"--days: {error}, such as 2026-01-01..2026-01-13") from None


def publishes_metrics(verb: Callable[..., None]) -> Callable[..., None]:
    """Turn `verb(watch, metrics, …)` into a function that takes a spec and the metrics options.

    `watch` is the loaded spec and `metrics` the `LiveMetrics` of the run. While the verb runs, they
    are published where the options say.
    """

    def with_metrics(
        spec: SpecPath,
        metrics_port: MetricsPort = None,
        metrics_host: MetricsHost = LOOPBACK,
        metrics_file: MetricsFile = None,
        **options: Any,
    ) -> None:
        from jobs.monitoring.live import LiveMetrics
        from jobs.spec.spec import load

        watch, name = load(spec), verb.__name__
        if metrics_port is None and metrics_file is None:
            return verb(watch, LiveMetrics(watch.name, name), **options)
        # The import takes a second, in which Ray could start.
        from jobs.monitoring.endpoint import Destinations, publish_run

        destinations = Destinations(metrics_port, metrics_host, metrics_file)
        with publish_run(watch, name, destinations) as metrics:
            verb(watch, metrics, **options)

    spec, *metrics_options, _ = signature(with_metrics).parameters.values()
    _, _, *options = signature(verb).parameters.values()
    parameters = [
        parameter.replace(kind=Parameter.KEYWORD_ONLY)
        for parameter in (spec, *options, *metrics_options)
    ]
    update_wrapper(with_metrics, verb)
    with_metrics.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    with_metrics.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_metrics


def print_document(document: Any) -> None:
    """The result of a verb, as JSON."""
    print_json(json.dumps(document, indent=1, default=str))


def print_json(text: str) -> None:
    """Print JSON in ASCII. DEL is the only control character that it leaves to escape."""
    out.file.write(text.replace("\x7f", "\\u007f") + "\n")
