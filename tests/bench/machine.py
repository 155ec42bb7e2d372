"""The machine and the programs that a figure belongs to."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tests.bench.measure import ROOT

_PACKAGES = (
    *("ray", "torch", "pyarrow", "numpy", "pandas", "deltalake"),
    *("onnxruntime", "daft", "pyspark", "pyod"),
)


def describe() -> dict[str, Any]:
    """CPU, cores, memory and versions, as JSON."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 1024**3, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "commit": _commit(),
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    family, model = named.get("cpu family", "?"), named.get("model", "?")
    return f"{named.get('model name', platform.processor())} (family {family}, model {model})"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    """The commit of the checkout, with a plus where it was changed; empty without git."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True
    )
    return done.stdout.strip()
