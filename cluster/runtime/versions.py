"""What is installed on every node of a cluster, compared before any work starts.

Two versions of torch give scores that differ in the last bit; two of our code give anything.
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
from models.refusal import Refusal

# Seconds for all nodes to answer. Most take 1–2 s, for a fresh worker; what takes minutes is an
# environment that is being installed, and Ray itself gives up on that after 600 s.
_ANSWERED_S = 660.0

# Nodes named in a message for each difference.
_NAMED = 5


@dataclass(frozen=True)
class Installed:
    """What must be the same everywhere."""

    ray: str
    python: str
    torch: str
    pyarrow: str
    code: str  # digest of our packages
    authentication: str  # what the node asks of those who call it: "token", always


def read_installed() -> Installed:
    """What this process runs on; reads what is installed and imports nothing of it."""
    return Installed(
        ray=ray.__version__,
        python=platform.python_version(),
        torch=_version("torch"),
        pyarrow=_version("pyarrow"),
        code=shipping.digest_code(),
        authentication="token" if requires_token() else "off",
    )


def refuse_skew() -> int:
    """Ask every living node what it runs on; how many answered.

    One task a node, without a CPU, so that a busy cluster answers too. Nodes that come later are
    held to Ray's and Python's versions by Ray. Raises Refusal with every difference, and for a
    node that does not answer.
    """
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in _living()}
    found, silent = _ask(nodes)
    still = {node["NodeID"] for node in _living()}
    if problems := [text for node, text in silent.items() if node in still]:
        raise Refusal(
            "expected every node to say what it runs on, found "
            + "; ".join(problems[:_NAMED])
            + ": see the node's own log, or take it out of the cluster"
        )
    if skew := list_differences(
        read_installed(), {nodes[node]: its for node, its in found.items()}
    ):
        raise Refusal(
            "expected the same versions on every node as here, found "
            + "; ".join(skew)
            + ": give all nodes one image, made from this checkout's requirements.lock"
        )
    return len(found)


def list_differences(here: Installed, nodes: Mapping[str, Installed]) -> list[str]:
    """A line for each thing that a node has otherwise, with the nodes that have it so."""
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for node, its in sorted(nodes.items()):
        for name, value in asdict(its).items():
            if value != getattr(here, name):
                places[name, value].append(node)
    return [
        f"{name} {value} instead of {getattr(here, name)} on {_listed(where)}"
        for (name, value), where in places.items()
    ]


def _listed(nodes: list[str]) -> str:
    more = len(nodes) - _NAMED
    return ", ".join(nodes[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _living() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _ask(nodes: Mapping[str, str]) -> tuple[dict[str, Installed], dict[str, str]]:
    """Answers by node, and by node what came instead of one."""
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
            silent[node] = f"no answer of {nodes[node]} in {_ANSWERED_S:.0f} s"
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
