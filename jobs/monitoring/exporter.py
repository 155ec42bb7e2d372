"""A process that serves the status of watches to Prometheus, from their records in the lake."""

import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

from cluster.runtime import garbage
from jobs.monitoring.endpoint import Destinations, publish
from jobs.monitoring.watch_status import WatchStatus
from jobs.spec.spec import Spec
from jobs.terminal.console import say
from models.refusal import Refusal


def run_exporter(
    specs: Sequence[Spec],
    destinations: Destinations,
    every: float,
    tell: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Serve the status of the watches until SIGTERM or SIGINT; read it anew every `every` seconds.

    `tell` gets the verb's JSON document when the address answers.
    Needs no Ray. Raises `Refusal` for two specs of one name and for a port in use.
    """
    names = [spec.name for spec in specs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise Refusal(f"two specs have the name {twice[0]}: rename one to tell their metrics apart")
    watches = [WatchStatus(spec) for spec in specs]
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    for watch in watches:
        watch.refresh()
    garbage.resume()
    with publish([watch.collect for watch in watches], destinations) as address:
        if tell:
            tell({"watches": names, "address": address, "every_seconds": every})
        say(f"reading the records of {', '.join(names)} every {every:g} s")
        while not over.wait(every):
            for watch in watches:
                watch.refresh()
