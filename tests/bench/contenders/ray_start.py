"""An embedded Ray for contenders: as a user starts it, without dashboard and noise."""

import logging
import os

import ray
import ray.data

from tests.bench.measure import ROOT


def start(processes: int) -> None:
    """Start Ray with that many CPUs; its workers import the checkout."""
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.init(
        address="local",  # never another Ray that this machine happens to run
        num_cpus=processes,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
