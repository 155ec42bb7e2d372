"""The manifests of every overlay: what they are made of, and what a pod of ours may be."""

import shutil
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from infra.install import pins
from tests.infra import crds
from tests.infra.rendering import (
    KUBERAY,
    OVERLAYS,
    ROOT,
    Manifest,
    Pod,
    kustomize,
    of_kind,
    pod_of,
    pods,
    pods_of,
    render,
)

RAY_KINDS = ("RayCluster", "RayJob", "RayCronJob")
_API = "/var/run/secrets/kubernetes.io/serviceaccount"

EVERY_POD = [
    pytest.param(pod, id=f"{overlay}: {pod.where}") for overlay in OVERLAYS for pod in pods(overlay)
]


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_every_manifest_of_kuberay_fits_the_schema_of_its_kind(overlay: str) -> None:
    manifests = [one for one in render(overlay) if one["kind"] in RAY_KINDS]
    assert {one["kind"] for one in manifests} >= {"RayCluster", "RayJob"}
    wrong = {one["metadata"]["name"]: crds.errors(one) for one in manifests}
    assert not any(wrong.values()), wrong


@pytest.mark.parametrize(
    ("field", "value"),
    [("rayVersions", "2.60.0"), ("rayVersion", 2), ("authOptions", {"mode": "tokens"})],
)
def test_an_unknown_field_or_a_wrong_value_does_not_fit_the_schema(field: str, value: Any) -> None:
    cluster = of_kind("cpu", "RayCluster")["anomaray"]
    assert crds.errors({**cluster, "spec": {**cluster["spec"], field: value}})


def test_every_manifest_of_kuberay_keeps_the_rules_of_its_kind(overlay: str) -> None:
    for manifest in render(overlay):
        if manifest["kind"] in RAY_KINDS:
            _, broken = crds.broken_rules(manifest)
            assert broken == [], manifest["metadata"]["name"]


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({"managedBy": "ray.io/kuberay-operator"}, 0),
        ({"managedBy": "me"}, 1),
        ({"deletionStrategy": {"onSuccess": {"policy": "DeleteCluster"}}}, 1),
        ({"deletionStrategy": {"deletionRules": [{"policy": "DeleteSelf", "condition": {}}]}}, 1),
        ({"deletionStrategy": {"onSuccess": {}, "onFailure": {}, "deletionRules": []}}, 1),
    ],
)
def test_a_broken_rule_of_a_kind_is_found(changes: Manifest, broken: int) -> None:
    job = of_kind("cpu", "RayJob")["train"]
    asked, found = crds.broken_rules({**job, "spec": {**job["spec"], **changes}})
    assert asked > 0
    assert len(found) == broken, found


def test_every_manifest_of_kubernetes_fits_the_schema_of_its_kind(overlay: str) -> None:
    for manifest in render(overlay):
        if manifest["kind"] not in RAY_KINDS:
            kubernetes_validate.validate(manifest, "1.37", strict=True)


@pytest.mark.parametrize("pod", EVERY_POD)
def test_every_pod_inside_another_kind_is_a_pod_to_kubernetes(pod: Pod) -> None:
    kubernetes_validate.validate(pod.manifest("anomaray"), "1.37", strict=True)


@pytest.mark.parametrize("pod", EVERY_POD)
def test_every_pod_is_restricted(pod: Pod) -> None:
    about = pod.spec["securityContext"]
    assert about["runAsNonRoot"] is True
    assert about["runAsUser"] >= 10_000  # no user of a node has it
    assert about["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys()
    assert not any("hostPath" in volume for volume in pod.spec.get("volumes", ()))
    for container in pod.containers():
        _check_restricted(container["securityContext"])
        assert container["resources"]["limits"].keys() >= {"cpu", "memory"}
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}


def _check_restricted(context: Manifest) -> None:
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["runAsNonRoot"] is True
    assert not context.get("privileged", False)


def test_the_container_that_kuberay_adds_to_a_head_is_restricted_too(overlay: str) -> None:
    clusters = [one["spec"] for one in of_kind(overlay, "RayCluster").values()]
    clusters += [job["spec"]["rayClusterSpec"] for job in of_kind(overlay, "RayJob").values()]
    for cluster in clusters:
        _check_restricted(cluster["autoscalerOptions"]["securityContext"])


@pytest.mark.parametrize("pod", EVERY_POD)
def test_a_pod_of_ray_can_write_where_ray_writes_and_nowhere_else(pod: Pod) -> None:
    (container,) = pod.containers()
    volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
    writable = {
        mount["mountPath"]: volumes[mount["name"]]
        for mount in container["volumeMounts"]
        if not mount.get("readOnly", False)
    }
    assert all("emptyDir" in volume for volume in writable.values())
    assert all("sizeLimit" in volume["emptyDir"] for volume in writable.values())
    if container["name"] in ("ray-head", "ray-worker"):
        assert writable.keys() == {"/tmp", "/tmp/ray", "/dev/shm"}


@pytest.mark.parametrize("pod", EVERY_POD)
def test_only_what_must_ask_kubernetes_has_a_token_and_for_an_hour_at_most(pod: Pod) -> None:
    assert pod.spec["automountServiceAccountToken"] is False
    mounted = [m["mountPath"] for c in pod.containers() for m in c.get("volumeMounts", ())]
    assert (_API in mounted) == (pod.spec["serviceAccountName"] == "launcher")
    for volume in pod.spec.get("volumes", ()):
        for source in volume.get("projected", {}).get("sources", ()):
            if "serviceAccountToken" in source:
                assert pod.is_autoscaled_head or pod.spec["serviceAccountName"] == "launcher"
                assert source["serviceAccountToken"]["expirationSeconds"] <= 3600


@pytest.mark.parametrize("pod", EVERY_POD)
def test_no_pod_has_a_secret_in_its_text(pod: Pod) -> None:
    for container in pod.containers():
        words = ("token", "password", "secret", "key")
        named = [e for e in container.get("env", ()) if any(w in e["name"].lower() for w in words)]
        assert all("valueFrom" in entry for entry in named)
    assert "kind: Secret" not in "".join(p.read_text() for p in KUBERAY.rglob("*.yaml"))


def test_every_cluster_asks_for_the_token_of_one_secret(overlay: str) -> None:
    asked = {"mode": "token", "secretName": "anomaray-ray-token"}
    assert of_kind(overlay, "RayCluster")["anomaray"]["spec"]["authOptions"] == asked
    for job in of_kind(overlay, "RayJob").values():
        assert job["spec"]["rayClusterSpec"]["authOptions"] == asked


def test_each_job_runs_as_the_account_of_its_role(overlay: str) -> None:
    roles = {"RayJob train": "trainer", "RayJob score": "scorer", "RayJob nightly": "scorer"}
    roles |= {"RayCluster anomaray": "scorer", "CronJob report": "reporter"}
    roles |= {"Deployment exporter": "reporter"}
    roles |= {"RayCronJob train": "trainer", "RayCronJob nightly": "scorer"}
    for pod in pods(overlay):
        owner = " ".join(pod.where.split()[:2])
        if pod.spec["serviceAccountName"] == "submitter":
            assert pod.labels["anomaray.io/role"] == roles[owner]
        elif owner in roles:
            assert pod.spec["serviceAccountName"] == pod.labels["anomaray.io/role"] == roles[owner]
        else:
            assert pod.spec["serviceAccountName"] == "launcher"


@pytest.mark.parametrize("pod", EVERY_POD)
def test_a_pod_is_given_the_keys_of_its_own_role_and_no_others(pod: Pod) -> None:
    for volume in pod.spec.get("volumes", ()):
        if "secret" in volume:
            assert volume["secret"]["secretName"] == pod.spec["serviceAccountName"]
            assert volume["secret"]["defaultMode"] == 0o440


def test_no_account_of_a_run_has_a_right_in_kubernetes(overlay: str) -> None:
    bound = {
        subject["name"]
        for binding in of_kind(overlay, "RoleBinding").values()
        for subject in binding["subjects"]
    }
    assert bound <= {"launcher"}
    assert not of_kind(overlay, "ClusterRole")
    assert not of_kind(overlay, "ClusterRoleBinding")
    for role in of_kind(overlay, "Role").values():
        assert not any("*" in words for rule in role["rules"] for words in rule.values())


def test_what_no_policy_names_is_denied_to_every_pod(overlay: str) -> None:
    policies = of_kind(overlay, "NetworkPolicy")
    assert policies["deny-all"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy in policies.values():
        for rule in policy["spec"].get("ingress", ()):
            assert rule.get("from"), f"{policy['metadata']['name']} lets all in"
        for rule in policy["spec"].get("egress", ()):
            assert rule.get("to"), f"{policy['metadata']['name']} lets all out"


def test_a_trainer_and_a_scorer_do_not_reach_each_other(overlay: str) -> None:
    for policy in of_kind(overlay, "NetworkPolicy").values():
        own = policy["spec"]["podSelector"].get("matchLabels", {}).get("anomaray.io/role")
        for rule in policy["spec"].get("ingress", ()):
            for peer in rule["from"]:
                labels = peer.get("podSelector", {}).get("matchLabels", {})
                assert labels.get("anomaray.io/role", own) == own


def test_no_policy_reaches_the_metadata_service(overlay: str) -> None:
    for policy in of_kind(overlay, "NetworkPolicy").values():
        for rule in policy["spec"].get("egress", ()):
            for block in (peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer):
                whole = block["cidr"] == "0.0.0.0/0"
                assert not whole or "169.254.0.0/16" in block["except"]


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    expressions = selector.get("matchExpressions", ())
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        (labels.get(one["key"]) in one["values"]) == (one["operator"] == "In")
        for one in expressions
    )


def holds(block: Manifest, address: str) -> bool:
    excepted = any(ip_address(address) in ip_network(one) for one in block.get("except", ()))
    return ip_address(address) in ip_network(block["cidr"]) and not excepted


def may_reach(overlay: str, labels: dict[str, str], address: str, port: int) -> bool:
    """Whether a policy that selects a pod with these labels lets it reach an address."""
    return any(
        holds(peer["ipBlock"], address)
        for policy in of_kind(overlay, "NetworkPolicy").values()
        if selects(policy["spec"]["podSelector"], labels)
        for rule in policy["spec"].get("egress", ())
        if port in [one["port"] for one in rule.get("ports", ())]
        for peer in rule["to"]
        if "ipBlock" in peer
    )


@pytest.mark.parametrize("address", ["172.20.0.1", "10.20.3.4"], ids=["before DNAT", "after DNAT"])
def test_who_asks_kubernetes_reaches_it_at_both_of_its_addresses(
    overlay: str, address: str
) -> None:
    for role in ("trainer", "scorer"):
        head = {"ray.io/node-type": "head", "anomaray.io/role": role}
        worker = {"ray.io/node-type": "worker", "anomaray.io/role": role}
        assert may_reach(overlay, head, address, 443)
        assert not may_reach(overlay, worker, address, 443)
    launchers = [pod for pod in pods(overlay) if pod.labels.get("anomaray.io/role") == "launcher"]
    for pod in launchers:
        assert may_reach(overlay, pod.labels, address, 443)


@pytest.mark.parametrize("pod", EVERY_POD)
def test_what_spills_goes_to_the_large_volume(pod: Pod) -> None:
    for container in pod.containers():
        if container["name"] in ("ray-head", "ray-worker"):
            assert {"name": "TMPDIR", "value": "/tmp/ray"} in container["env"]
            mounted = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
            sizes = {v["name"]: v.get("emptyDir", {}).get("sizeLimit") for v in pod.spec["volumes"]}
            assert int(sizes[mounted["/tmp/ray"]].removesuffix("Gi")) >= 20


def test_heads_are_on_demand_and_gpu_workers_on_spot() -> None:
    for pod in pods("gpu"):
        chosen = pod.spec["nodeSelector"]
        if pod.where.endswith("gpu-workers"):
            assert chosen["eks.amazonaws.com/capacityType"] == "SPOT"
            assert pod.containers()[0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
            assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in (
                pod.spec["tolerations"]
            )
        else:
            assert chosen == {"anomaray.io/pool": "head"}


def test_the_standing_cluster_outlives_its_head_and_heads_are_not_drained(overlay: str) -> None:
    cluster = of_kind(overlay, "RayCluster")["anomaray"]["spec"]
    fault_tolerance = cluster["gcsFaultToleranceOptions"]
    assert fault_tolerance["redisAddress"].startswith("rediss://")
    assert "secretKeyRef" in fault_tolerance["redisPassword"]["valueFrom"]
    for job in of_kind(overlay, "RayJob").values():
        assert "gcsFaultToleranceOptions" not in job["spec"]["rayClusterSpec"]
    budgets = of_kind(overlay, "PodDisruptionBudget")
    heads = budgets["heads"]["spec"]
    assert heads["minAvailable"] > len([pod for pod in pods(overlay) if pod.is_autoscaled_head])
    assert heads["selector"]["matchLabels"] == {"ray.io/node-type": "head"}
    # Of pods whose owner has no scale subresource Kubernetes counts nothing else.
    assert all(isinstance(one["spec"]["minAvailable"], int) for one in budgets.values())


def test_what_empties_the_redis_of_a_deleted_cluster_reaches_it_as_its_head_does(
    overlay: str,
) -> None:
    selector = of_kind(overlay, "NetworkPolicy")["head-to-redis"]["spec"]["podSelector"]
    assert selector["matchLabels"] == {"ray.io/cluster": "anomaray"}
    (kinds,) = selector["matchExpressions"]
    assert kinds["key"] == "ray.io/node-type"
    assert {*kinds["values"]} == {"head", "redis-cleanup"}


def test_where_tls_is_on_it_is_on_in_every_cluster(overlay: str) -> None:
    clusters = [of_kind(overlay, "RayCluster")["anomaray"]["spec"]]
    clusters += [job["spec"]["rayClusterSpec"] for job in of_kind(overlay, "RayJob").values()]
    wanted = {"enabled": True} if overlay == "gpu-raycronjob" else None
    assert all(cluster.get("tlsOptions") == wanted for cluster in clusters)


def test_from_outside_a_cluster_only_its_dashboard_and_its_metrics_are_reached(
    overlay: str,
) -> None:
    """Not Ray's client (10001), which runs what it is sent, nor the GCS (6379)."""
    for policy in of_kind(overlay, "NetworkPolicy").values():
        own = policy["spec"]["podSelector"].get("matchLabels", {})
        for rule in policy["spec"].get("ingress", ()):
            if rule["from"] == [{"podSelector": {"matchLabels": own}}]:
                continue  # nodes of one role among each other
            ports = {(port["protocol"], port["port"]) for port in rule["ports"]}
            assert ports <= {("TCP", n) for n in (8265, 8080, "run-metrics", "lake-metrics")}
            assert len(ports) == len(rule["ports"])


def test_jobs_are_tried_again_end_in_time_and_leave_no_cluster(overlay: str) -> None:
    for job in (one["spec"] for one in of_kind(overlay, "RayJob").values()):
        assert job["suspend"] is True  # a pattern: nothing runs when it is applied
        assert job["backoffLimit"] >= 2
        assert job["activeDeadlineSeconds"] < 24 * 3600
        assert job["shutdownAfterJobFinishes"] is True
        assert job["ttlSecondsAfterFinished"] <= 3600


def test_a_schedule_runs_what_its_job_says(overlay: str) -> None:
    jobs, schedules = of_kind(overlay, "RayJob"), of_kind(overlay, "RayCronJob")
    if overlay.endswith("raycronjob"):
        assert schedules.keys() == {"nightly", "train"}
        for name, schedule in schedules.items():
            expected = {**jobs[name]["spec"], "suspend": False}
            assert schedule["spec"]["jobTemplate"] == expected
            assert schedule["spec"]["timeZone"] == "Etc/UTC"
        return
    assert not schedules
    for name in ("nightly", "train"):
        (container,) = pod_of(overlay, f"CronJob {name}").containers()
        assert container["args"] == [name]
    allowed = {
        n for r in of_kind(overlay, "Role")["launcher"]["rules"][:1] for n in r["resourceNames"]
    }
    assert allowed == {"nightly", "train"}


def test_ray_is_of_the_version_that_the_lock_has(overlay: str) -> None:
    version = of_kind(overlay, "RayCluster")["anomaray"]["spec"]["rayVersion"]
    assert version == pins(ROOT / "requirements.lock")["ray"]


def test_a_digest_in_an_overlay_pins_the_image_of_every_pod(tmp_path: Path) -> None:
    """What a release fills in, by the line that README.md gives."""
    shutil.copytree(KUBERAY, tmp_path / "kuberay")
    overlay = tmp_path / "kuberay/overlays/gpu"
    digest = "sha256:" + "0123456789abcdef" * 4
    text = (overlay / "kustomization.yaml").read_text()
    assert text.count("newTag: 0.1.0-gpu") == 1
    text = text.replace("newTag: 0.1.0-gpu", f"digest: {digest}")
    (overlay / "kustomization.yaml").write_text(text)
    found = [pod for manifest in kustomize(overlay) for pod in pods_of(manifest)]
    assert len(found) == len(pods("gpu"))
    images = {container["image"] for pod in found for container in pod.containers()}
    assert images == {f"registry.example/anomaray@{digest}"}
