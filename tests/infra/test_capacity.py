"""What pods ask for, against what a node of their pool has and what a run plans with."""

from typing import Any

import pytest

from cluster.lake.input.splits import SPLIT_BYTES
from cluster.runtime.nodes import Node
from cluster.runtime.resources import Demand, plan_actors
from tests.infra.hcl import Module
from tests.infra.rendering import OVERLAYS, ROOT, Pod, of_kind, pods

_GIB = 1024**3
_MEMORY = {"Ki": 1024, "Mi": 1024**2, "Gi": _GIB}
# vCPUs and GiB of an instance of these families, by its size (EC2's documentation).
_SIZES = {"xlarge": (4, 16), "2xlarge": (8, 32)}
_FAMILIES = ("m6i", "m7i", "g5", "g6")
# What EKS keeps of such a node for itself (255 MiB and 11 for each of 58 pods, 100 MiB before it
# evicts, 0.09 of a CPU), and its DaemonSets: network, proxy, device plugin, logs.
_KEPT_CPUS, _KEPT_MEMORY = 0.5, 2 * _GIB


EVERY_WORKER = [
    pytest.param(pod, group, id=f"{overlay}: {pod.where}")
    for overlay in OVERLAYS
    for group in of_kind(overlay, "RayCluster")["anomaray"]["spec"]["workerGroupSpecs"]
    for pod in pods(overlay)
    if pod.where.endswith(group["groupName"])
]


def _cpus(quantity: str | int) -> float:
    text = str(quantity)
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def _bytes(quantity: str) -> int:
    return int(quantity[:-2]) * _MEMORY[quantity[-2:]]


@pytest.mark.parametrize(("pod", "group"), EVERY_WORKER)
def test_what_ray_hands_out_and_its_object_store_fit_into_the_pod_together(
    pod: Pod, group: dict[str, Any]
) -> None:
    """KubeRay would hand out the whole limit, and the store's pages count against it, too."""
    (container,) = pod.containers()
    limit = _bytes(container["resources"]["limits"]["memory"])
    (store,) = (v["emptyDir"] for v in pod.spec["volumes"] if v["name"] == "shared-mem")
    handed_out = int(group["rayStartParams"]["memory"])
    assert handed_out + _bytes(store["sizeLimit"]) <= limit - _GIB  # raylet, agent, page cache
    assert 0.3 * limit <= _bytes(store["sizeLimit"])  # what Ray takes for its store by default


@pytest.mark.parametrize(("pod", "group"), EVERY_WORKER)
def test_a_worker_holds_an_actor_for_each_cpu_or_enough_to_feed_its_gpu(
    pod: Pod, group: dict[str, Any]
) -> None:
    (container,) = pod.containers()
    limits = container["resources"]["limits"]
    gpus = int(limits.get("nvidia.com/gpu", 0))
    memory = int(group["rayStartParams"]["memory"])
    node = Node(_cpus(limits["cpu"]), gpus, memory, gpu_memory=22 * _GIB * gpus)
    # The largest splits that a run cuts; a detector and a batch of 100 MB, larger than ours are.
    demand = Demand(split=SPLIT_BYTES, weights=10**8, batch=10**8)
    plan = plan_actors([node], demand, remote=True)
    assert plan.actors == (4 if gpus else int(node.cpus))
    assert plan.threads == (3 if gpus else 2)


def test_every_pod_fits_on_a_node_of_its_pool() -> None:
    for overlay in OVERLAYS:
        for pod in pods(overlay):
            containers = [container["resources"]["requests"] for container in pod.containers()]
            if pod.is_autoscaled_head:
                cluster = of_kind(overlay, "RayCluster")["anomaray"]["spec"]
                containers.append(cluster["autoscalerOptions"]["resources"]["requests"])
            cpus = sum(_cpus(one["cpu"]) for one in containers)
            memory = sum(_bytes(one["memory"]) for one in containers)
            for kind in _types(pod.spec["nodeSelector"]["anomaray.io/pool"]):
                family, size = kind.split(".")
                assert family in _FAMILIES
                has_cpus, has_gib = _SIZES[size]
                assert cpus <= has_cpus - _KEPT_CPUS, f"{overlay}: {pod.where} on {kind}"
                assert memory <= has_gib * _GIB - _KEPT_MEMORY, f"{overlay}: {pod.where} on {kind}"


def _types(pool: str) -> list[str]:
    """Instance types of a pool, those of a variable by its default."""
    module = Module.read(ROOT / "infra/terraform")
    blocks = (block for one in module.documents for block in one.get("locals", ()))
    (pools,) = (block["pools"] for block in blocks if "pools" in block)
    types = pools[pool]["types"]
    if isinstance(types, str):
        types = module.blocks("variable")[types.removeprefix("${var.").rstrip("}")]["default"]
    return [one.strip('"') for one in types]
