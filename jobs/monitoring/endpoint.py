"""The ways out for metrics: an HTTP endpoint, and a file for node_exporter's textfile collector."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as MetricFamily
from prometheus_client.registry import Collector

from jobs.monitoring.live import LiveMetrics
from jobs.monitoring.metric_names import Metric, Sample
from jobs.monitoring.watch_status import WatchStatus
from jobs.spec.spec import Spec
from jobs.terminal.console import say, warn
from models.refusal import Refusal

# node_exporter is scraped every 15 s at most.
_WRITE_EVERY_S = 15.0

Source = Callable[[], Iterable[Sample]]


@dataclass(frozen=True)
class Destinations:
    """Where metrics go; nowhere by default."""

    port: int | None = None  # of an HTTP endpoint; 0 is a free one
    host: str = "127.0.0.1"  # the address that it listens on
    file: Path | None = None  # `….prom`, in the folder of node_exporter's textfile collector


@contextmanager
def publish_run(spec: Spec, verb: str, destinations: Destinations) -> Iterator[LiveMetrics]:
    """The metrics of the verb that the block runs, exposed at these destinations.

    Raises `Refusal`, before the block, for a place that cannot be had.
    """
    status = WatchStatus(spec)
    status.refresh()
    metrics = LiveMetrics(spec.name, verb, status)
    with publish([metrics.collect], destinations):
        try:
            yield metrics
        except BaseException:
            metrics.failed = True
            raise
        finally:
            metrics.end_run()


@contextmanager
def publish(sources: Sequence[Source], destinations: Destinations) -> Iterator[None]:
    """While the block runs, whoever asks gets what the sources say then; the file has what they
    said last."""
    registry = collector_registry(sources)
    with ExitStack() as stack:
        if destinations.port is not None:
            stack.enter_context(_endpoint(registry, destinations.host, destinations.port))
        if destinations.file is not None:
            stack.enter_context(_file(registry, destinations.file))
        yield


def collector_registry(sources: Sequence[Source]) -> CollectorRegistry:
    """A registry of the sources and of nothing else, such as this process's memory."""
    registry = CollectorRegistry()
    registry.register(_Asked(sources))
    return registry


class _Asked(Collector):
    """Asks the sources at each scrape."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources

    def collect(self) -> Iterable[MetricFamily]:
        families: dict[Metric, CounterMetricFamily | GaugeMetricFamily] = {}
        for source in self.sources:
            for metric, labels, value in source():
                if metric not in families:
                    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
                    families[metric] = kind(
                        metric.full_name, metric.description, labels=metric.labels
                    )
                families[metric].add_metric(labels, value)
        return families.values()

    def describe(self) -> Iterable[MetricFamily]:
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
        warn("the metrics were not written", error)


def _write(registry: CollectorRegistry, path: Path) -> None:
    """Whole or not at all; for node_exporter, which is another user, whatever the umask is."""
    beside = path.with_name(f".{path.name}-{os.getpid()}")
    beside.write_bytes(generate_latest(registry))
    beside.chmod(0o644)
    beside.replace(path)
