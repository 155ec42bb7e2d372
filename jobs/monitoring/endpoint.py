"""Publishes metrics: over HTTP, and in a file for node_exporter's textfile collector."""

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

# Prometheus scrapes node_exporter every 15 s at most.
_WRITE_EVERY_S = 15.0

Source = Callable[[], Iterable[Sample]]


@dataclass(frozen=True)
class Destinations:
    """Where metrics are published; nowhere by default."""

    port: int | None = None  # of the HTTP endpoint; 0 takes a free one
    host: str = "127.0.0.1"  # address on which the endpoint listens
    file: Path | None = None  # NAME.prom, in the folder of node_exporter's textfile collector


@contextmanager
def publish_run(spec: Spec, verb: str, destinations: Destinations) -> Iterator[LiveMetrics]:
    """Publish the metrics of a verb while the block runs it.

    Raises `Refusal`, before the block, for a port in use or a file that cannot be written.
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
def publish(sources: Sequence[Source], destinations: Destinations) -> Iterator[str | None]:
    """Publish the samples of the sources while the block runs; the file keeps the last ones.

    Yields the address where they are served; None without a port.

    Raises `Refusal`, before the block, for a port in use or a file that cannot be written.
    """
    registry = make_collector_registry(sources)
    with ExitStack() as stack:
        address = None
        if destinations.port is not None:
            address = stack.enter_context(_serve(registry, destinations.host, destinations.port))
        if destinations.file is not None:
            stack.enter_context(_keep_file(registry, destinations.file))
        yield address


def make_collector_registry(sources: Sequence[Source]) -> CollectorRegistry:
    """Make a registry of these sources alone, without the process metrics of prometheus_client."""
    registry = CollectorRegistry()
    registry.register(_SourceCollector(sources))
    return registry


class _SourceCollector(Collector):
    """Collects from the sources at each scrape."""

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
        """Describes nothing: the sources are first read at the first scrape."""
        return ()


@contextmanager
def _serve(registry: CollectorRegistry, host: str, port: int) -> Iterator[str]:
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise Refusal(
            f"--metrics-port {port}: cannot listen on {host}:{port}: {error.strerror}; choose "
            "another port, or 0 for a free one"
        ) from None
    address = f"http://{host}:{server.server_port}/metrics"
    say(f"metrics: {address}")
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def _keep_file(registry: CollectorRegistry, path: Path) -> Iterator[None]:
    """Write the file at the start, every 15 s, and at the end."""
    if path.suffix != ".prom":
        raise Refusal(
            f"--metrics-file {path}: expected NAME.prom: node_exporter reads no other name"
        )
    try:
        _write(registry, path)
    except OSError as error:
        raise Refusal(f"--metrics-file {path}: cannot be written: {error.strerror}") from None
    over = threading.Event()

    def rewrite() -> None:
        while not over.wait(_WRITE_EVERY_S):
            _write_or_warn(registry, path)

    thread = threading.Thread(target=rewrite, name="anomaray-metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        _write_or_warn(registry, path)


def _write_or_warn(registry: CollectorRegistry, path: Path) -> None:
    """Write the file; a failure does not end the run."""
    try:
        _write(registry, path)
    except OSError as error:
        warn("the metrics were not written", error)


def _write(registry: CollectorRegistry, path: Path) -> None:
    """Replace the file whole, readable by node_exporter's user whatever the umask is."""
    beside = path.with_name(f".{path.name}-{os.getpid()}")
    beside.write_bytes(generate_latest(registry))
    beside.chmod(0o644)
    beside.replace(path)
