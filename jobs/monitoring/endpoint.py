"""The ways out for metrics: an HTTP endpoint, and a file for node_exporter's textfile collector."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from jobs.monitoring.live import Telemetry
from jobs.monitoring.metric_names import Measure, Sample
from jobs.monitoring.watch_status import Standing
from jobs.spec.spec import Spec
from jobs.terminal.console import say
from jobs.terminal.printable import said
from models.refusal import Refusal

# node_exporter is scraped every 15 s at most.
_WRITE_EVERY_S = 15.0

Source = Callable[[], Iterable[Sample]]


@dataclass(frozen=True)
class Places:
    """Where metrics go; nowhere by default."""

    port: int | None = None  # of an HTTP endpoint; 0 is a free one
    host: str = "127.0.0.1"  # the address that it listens on
    file: Path | None = None  # `….prom`, in the folder of node_exporter's textfile collector


@contextmanager
def told(spec: Spec, verb: str, places: Places) -> Iterator[Telemetry]:
    """The telemetry of the verb that the block runs, exposed at these places.

    Raises `Refusal`, before the block, for a place that cannot be had.
    """
    standing = Standing(spec)
    standing.look()
    telemetry = Telemetry(spec.name, verb, standing)
    with exposed([telemetry.samples], places):
        try:
            yield telemetry
        except BaseException:
            telemetry.failed = True
            raise
        finally:
            telemetry.end()


@contextmanager
def exposed(sources: Sequence[Source], places: Places) -> Iterator[None]:
    """While the block runs, whoever asks gets what the sources say then; the file has what they
    said last."""
    registry = exposition(sources)
    with ExitStack() as stack:
        if places.port is not None:
            stack.enter_context(_endpoint(registry, places.host, places.port))
        if places.file is not None:
            stack.enter_context(_file(registry, places.file))
        yield


def exposition(sources: Sequence[Source]) -> CollectorRegistry:
    """A registry of the sources and of nothing else, such as this process's memory."""
    registry = CollectorRegistry()
    registry.register(_Asked(sources))
    return registry


class _Asked(Collector):
    """Asks the sources at each scrape."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources

    def collect(self) -> Iterable[Metric]:
        families: dict[Measure, CounterMetricFamily | GaugeMetricFamily] = {}
        for source in self.sources:
            for measure, labels, value in source():
                if measure not in families:
                    kind = CounterMetricFamily if measure.kind == "counter" else GaugeMetricFamily
                    families[measure] = kind(measure.metric, measure.text, labels=measure.labels)
                families[measure].add_metric(labels, value)
        return families.values()

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked before the first scrape."""
        return ()


@contextmanager
def _endpoint(registry: CollectorRegistry, host: str, port: int) -> Iterator[None]:
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise Refusal(
            f"--metrics-port {port}: cannot listen on {host}:{port}: {error.strerror}; choose "
            "another port, or 0 for a free one"
        ) from None
    say(f"metrics: http://{host}:{server.server_port}/metrics")
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def _file(registry: CollectorRegistry, path: Path) -> Iterator[None]:
    """Written at the beginning, every few seconds, and at the end."""
    if path.suffix != ".prom":
        raise Refusal(f"--metrics-file {path}: expected NAME.prom: node_exporter reads no other")
    try:
        _write(registry, path)
    except OSError as error:
        raise Refusal(f"--metrics-file {path}: cannot be written: {error.strerror}") from None
    over = threading.Event()

    def keep() -> None:
        while not over.wait(_WRITE_EVERY_S):
            _write_or_say(registry, path)

    thread = threading.Thread(target=keep, name="anomaray-metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        _write_or_say(registry, path)


def _write_or_say(registry: CollectorRegistry, path: Path) -> None:
    """A run does not end because of its metrics."""
    try:
        _write(registry, path)
    except OSError as error:
        say(f"[yellow]the metrics were not written[/]: {said(str(error))}")


def _write(registry: CollectorRegistry, path: Path) -> None:
    """Whole or not at all; for node_exporter, which is another user, whatever the umask is."""
    beside = path.with_name(f".{path.name}-{os.getpid()}")
    beside.write_bytes(generate_latest(registry))
    beside.chmod(0o644)
    beside.replace(path)
