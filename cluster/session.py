"""Join a running Ray, or start one inside this process, safely."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

ROOT = Path(__file__).resolve().parents[1]

# What a worker needs of the checkout when it runs on another machine.
_SHIPPED = ("models", "cluster", "jobs", "pyproject.toml")


@contextmanager
def session(address: str | None = None, cpus: int | None = None) -> Iterator[str]:
    """Yield a line that says which Ray is in use; shut down only what was started here.

    An `address` (or `RAY_ADDRESS`) joins that cluster and ships the checkout to it. Otherwise an
    embedded Ray starts, without a dashboard. Both need a token (see `cluster/__init__.py`).
    """
    address = address or os.environ.get("RAY_ADDRESS")
    _quiet()
    if ray.is_initialized():
        yield "the Ray that this process already uses"
        return
    if address:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"working_dir": str(ROOT), "excludes": _excluded()},
        )
        line = f"joined Ray at {address}"
    else:
        # Workers import the checkout, wherever the command was started.
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        line = f"embedded Ray, {int(ray.cluster_resources().get('CPU', 0))} CPUs"
    try:
        yield line
    finally:
        ray.shutdown()


def _excluded() -> list[str]:
    return [f"/{p.name}" for p in ROOT.iterdir() if p.name not in _SHIPPED]


def _quiet() -> None:
    """Ray's own banners, usage pings and progress bars are noise beside ours."""
    quiet = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
        # Ray Train's controller takes an epoch's report when it polls; its 2 s were most of an
        # epoch on small data.
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
        "RAY_DEDUP_LOGS": "1",
        "RAY_BACKEND_LOG_LEVEL": "fatal",
        "PYTHONWARNINGS": "ignore",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    for noisy in ("ray.data", "ray.train"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
