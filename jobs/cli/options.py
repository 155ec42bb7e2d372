"""What the verbs of the command line have in common: their options, and how they give results."""

import json
from collections.abc import Callable
from functools import update_wrapper
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from jobs.terminal.console import out
from models.refusal import Refusal

LOOPBACK = "127.0.0.1"

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


def day_range(days: str | None) -> Any:
    """The days of `--days`; None without it, `Refusal` of what is no range."""
    from jobs.spec.spec import DayRange

    try:
        return None if days is None else DayRange.parse(days)
    except ValueError as error:
        raise Refusal(f"--days: {error}, such as 2026-01-01..2026-01-13") from None


def publishes_metrics(verb: Callable[..., None]) -> Callable[..., None]:
    """Turn `verb(watch, metrics, …)` into a command that takes a spec and the metrics options.

    `watch` is the loaded spec and `metrics` the run's `LiveMetrics`, which are published while the
    verb runs where the options say.
    """

    def command(
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
        # Not imported before: it takes a second, in which Ray could start.
        from jobs.monitoring.endpoint import Destinations, publish_run

        destinations = Destinations(metrics_port, metrics_host, metrics_file)
        with publish_run(watch, name, destinations) as metrics:
            verb(watch, metrics, **options)

    spec, *metrics_options, _ = signature(command).parameters.values()
    _, _, *options = signature(verb).parameters.values()
    parameters = [
        parameter.replace(kind=Parameter.KEYWORD_ONLY)
        for parameter in (spec, *options, *metrics_options)
    ]
    update_wrapper(command, verb)
    command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def print_document(document: Any) -> None:
    """The result of a verb, as JSON."""
    print_json(json.dumps(document, indent=1, default=str))


def print_json(text: str) -> None:
    """JSON in ASCII, in which DEL alone is left of what a terminal may obey."""
    out.file.write(text.replace("\x7f", "\\u007f") + "\n")
