"""Comparing the versions on all nodes of a cluster before any work starts.

Two versions of torch give scores that differ in the last bit.
"""

import platform
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.runtime import shipping
from cluster.runtime.private_ray import requires_token
from models.detectors.plugins import list_packages
from models.refusal import Refusal

# Seconds for all nodes to answer. Most need 1 to 2 s; a node that still installs its environment
# needs minutes, and Ray gives up on it after 600 s.
_ANSWERED_S = 660.0

# Nodes that a message names for each difference.
_NAMED = 5


@dataclass(frozen=True)
class Installed:
    """The versions that must be the same on all nodes."""

    ray: str
    python: str
    torch: str
    pyarrow: str
    code: str  # digest of models, cluster and jobs
    detector_packages: str  # those that bring detectors
    authentication: str  # "token", or "off" if the node lets anyone in


def read_installed() -> Installed:
    """The versions of this process, without importing the packages."""
    return Installed(
        ray=ray.__version__,
        python=platform.python_version(),
        torch=_version("torch"),
        pyarrow=_version("pyarrow"),
        code=shipping.digest_code(),
        detector_packages=", ".join(map(str, list_packages())) or "none",
        authentication="token" if requires_token() else "off",
    )


def refuse_skew() -> int:
    """Ask each living node for its versions; the number of nodes.

    The question needs no CPU, so a busy cluster answers too. Of nodes that come later Ray itself
    checks the versions of Ray and Python. Raises Refusal with all differences, and for a node that
    does not answer.
    """
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in _living()}
    found, silent = _ask(nodes)
    still = {node["NodeID"] for node in _living()}
    if problems := [text for node, text in silent.items() if node in still]:
        raise Refusal(
            "expected the versions of every node, found "
            + "; ".join(problems[:_NAMED])
            + ": see the log of the node, or remove it from the cluster"
        )
    if skew := list_differences(
        read_installed(), {nodes[node]: its for node, its in found.items()}
    ):
        raise Refusal(
            "expected the same versions on every node as here, found "
            + "; ".join(skew)
            + ": use one image for all nodes, with this checkout's requirements.lock and the same "
            "packages of detectors"
        )
    return len(found)


def list_differences(here: Installed, nodes: Mapping[str, Installed]) -> list[str]:
    """A line for each version that differs from `here`, with the nodes that have it."""
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for node, its in sorted(nodes.items()):
        for name, value in asdict(its).items():
            if value != getattr(here, name):
                places[name, value].append(node)
    return [
        f"{name.replace('_', ' ')} {value} instead of {getattr(here, name)} on {_join_names(where)}"
        for (name, value), where in places.items()
    ]


def _join_names(nodes: list[str]) -> str:
    more = len(nodes) - _NAMED
    return ", ".join(nodes[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _living() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _ask(nodes: Mapping[str, str]) -> tuple[dict[str, Installed], dict[str, str]]:
    """The versions of each node that answers, and the problem of each node that does not."""
    ask = ray.remote(num_cpus=0, max_retries=1)(read_installed)
    asked = {
        node: ask.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote()
        for node in nodes
    }
    ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=_ANSWERED_S)
    answered = set(ready)
    found: dict[str, Installed] = {}
    silent: dict[str, str] = {}
    for node, reference in asked.items():
        if reference not in answered:
            silent[node] = f"no answer from {nodes[node]} in {_ANSWERED_S:.0f} s"
            continue
        try:
            found[node] = ray.get(reference)
        except RayError as error:
            silent[node] = f"{nodes[node]}: {str(error).strip().splitlines()[-1]}"
    return found, silent


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"
