"""Terraform: its text by its own tools, and its policies by what they let each role do."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import hcl2
import pytest

from tests.infra.hcl import Module
from tests.infra.iam import Request, allows
from tests.infra.provider import SCHEMA, find_resources, misfits
from tests.infra.rendering import OVERLAYS, ROOT, of_kind, pods

FOLDER = ROOT / "infra/terraform"
MODULES = (Module.read(FOLDER), Module.read(FOLDER / "policies"))
_LAKE = "arn:aws:s3:::lake"
_FLOWS = f"{_LAKE}/anomaray/flows"
_GIVEN = {
    "bucket": "lake",
    "input_prefixes": '["input"]',
    "output_prefix": "anomaray",
    "export_prefix": "published",
    "key_arn": "arn:aws:kms:eu-central-1:111122223333:key/1",
}


@pytest.fixture(scope="session")
def terraform() -> str:
    found = shutil.which("terraform")
    if found is None:
        pytest.skip("terraform is not installed, and no registry of packages has it")
    return found


@pytest.fixture(scope="session")
def policies(
    terraform: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[str, Any]]]:
    """The statements by role, and the bucket's, as Terraform evaluates them: no provider."""
    folder = tmp_path_factory.mktemp("policies")
    shutil.copy(FOLDER / "policies/main.tf", folder)
    given = [word for name, value in _GIVEN.items() for word in ("-var", f"{name}={value}")]
    _run([terraform, "init", "-input=false"], folder)
    _run([terraform, "validate"], folder)
    _run([terraform, "apply", "-auto-approve", "-input=false", *given], folder)
    values = json.loads(_run([terraform, "output", "-json"], folder))
    documents = {**values["roles"]["value"], "bucket": values["bucket"]["value"]}
    return {name: json.loads(text)["Statement"] for name, text in documents.items()}


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_file_is_formatted(terraform: str) -> None:
    _run([terraform, "fmt", "-check", "-recursive", "-diff", str(FOLDER)], FOLDER)


def test_every_file_parses_and_is_laid_out_by_two_spaces_without_tabs() -> None:
    """The part of `terraform fmt` that is told without Terraform."""
    for path in FOLDER.rglob("*.tf"):
        text = path.read_text()
        assert hcl2.loads(text), path.name
        assert text.endswith("}\n")
        for number, line in enumerate(text.splitlines(), 1):
            where = f"{path.name}:{number}"
            assert line == line.rstrip(), where
            assert "\t" not in line, where
            assert (len(line) - len(line.lstrip())) % 2 == 0, where


@pytest.mark.parametrize("module", MODULES)
def test_every_reference_resolves_and_nothing_is_declared_in_vain(module: Module) -> None:
    declared, referred = module.declared(), module.referred()
    assert not referred - declared
    named = {name for name in declared if name.startswith(("var.", "local.", "data."))}
    assert not named - referred


@pytest.mark.parametrize("module", MODULES)
def test_every_variable_and_output_says_what_it_is(module: Module) -> None:
    for name, block in (module.blocks("variable") | module.blocks("output")).items():
        assert block.get("description"), name
    assert all("type" in block for block in module.blocks("variable").values())


def test_every_argument_of_a_resource_is_one_of_the_provider() -> None:
    kinds = json.loads(SCHEMA.read_text())
    found = [
        misfit
        for kind, name, body in find_resources(FOLDER)
        for misfit in misfits(body, kinds[kind], f"{kind}.{name}")
    ]
    assert found == []


@pytest.mark.parametrize(
    ("old", "new", "misfit"),
    [
        ("node_role_arn ", "node_role ", "no argument 'node_role'"),
        ("node_role_arn ", "node_role ", "the argument 'node_role_arn' is missing"),
        ("    max_size ", "    maximum ", "pool.scaling_config: no argument 'maximum'"),
        ('      effect = "NO_SCHEDULE"\n', "", "pool.taint: the argument 'effect' is missing"),
        ("  scaling_config {", "  scaling_config = {", "scaling_config: expected a block"),
        ("http_put_response_hop_limit = 1", 'http_put_response_hop_limit = "one"', "a number"),
        ("enable_key_rotation     = true", 'enable_key_rotation = "yes"', "expected a bool"),
        ("  subnet_ids      = var.subnet_ids", '  subnet_ids = "a"', "expected a list"),
    ],
)
def test_an_argument_that_the_provider_does_not_take_is_found(
    old: str, new: str, misfit: str, tmp_path: Path
) -> None:
    text = (FOLDER / "nodes.tf").read_text()
    assert text.count(old) == 1
    (tmp_path / "nodes.tf").write_text(text.replace(old, new))
    kinds = json.loads(SCHEMA.read_text())
    found = [one for k, n, body in find_resources(tmp_path) for one in misfits(body, kinds[k], n)]
    assert any(misfit in one for one in found), found


def test_the_policies_get_every_variable_and_give_every_output_that_is_asked_for() -> None:
    root, policies = MODULES
    ((name, call),) = root.blocks("module").items()
    given = {argument for argument in call if argument[:2] != "__"} - {"source"}
    variables = policies.blocks("variable")
    needed = {name for name, block in variables.items() if "default" not in block}
    assert needed <= given <= variables.keys()
    assert root.outputs_asked(name) == policies.blocks("output").keys()


def test_a_name_that_is_nowhere_declared_is_found(tmp_path: Path) -> None:
    text = 'locals {\n  a = "${var.b}-${data.aws_x.c.id}"\n}\n\nvariable "b" {}\n'
    (tmp_path / "main.tf").write_text(text)
    module = Module.read(tmp_path)
    assert module.referred() - module.declared() == {"data.aws_x.c"}
    assert module.declared() == {"local.a", "var.b"}


def test_workers_come_from_zero_and_every_pod_finds_a_pool_of_its_kind() -> None:
    (values,) = hcl2.loads((FOLDER / "nodes.tf").read_text())["locals"]
    pools = values["pools"]
    assert {name: pool["least"] for name, pool in pools.items()} == {"head": 1, "cpu": 0, "gpu": 0}
    spot = {name for name, pool in pools.items() if pool["capacity"] == '"SPOT"'}
    assert spot == {"gpu"}
    for overlay in OVERLAYS:
        asked = {pod.spec["nodeSelector"]["anomaray.io/pool"] for pod in pods(overlay)}
        assert asked == {"head", "cpu" if overlay == "cpu" else "gpu"}


@pytest.mark.parametrize("overlay", ["gpu", "gpu-raycronjob"])
def test_no_pod_needs_a_node_with_a_gpu_while_nothing_runs(overlay: str) -> None:
    (standing,) = of_kind(overlay, "RayCluster").values()
    for group in standing["spec"]["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == 0 < group["maxReplicas"]
    assert standing["spec"]["enableInTreeAutoscaling"] is True
    jobs = [one["spec"] for one in of_kind(overlay, "RayJob").values()]
    assert all(job["suspend"] for job in jobs)
    jobs += [one["spec"]["jobTemplate"] for one in of_kind(overlay, "RayCronJob").values()]
    for job in jobs:  # a cluster of its own, for one run, with the workers that its plan counts
        assert job["shutdownAfterJobFinishes"] is True
        assert job["ttlSecondsAfterFinished"] <= 600
        for group in job["rayClusterSpec"]["workerGroupSpecs"]:
            assert group["replicas"] == group["minReplicas"] == 2
    others = [pod for pod in pods(overlay) if "workers" not in pod.where]
    asked = [c["resources"]["requests"] for pod in others for c in pod.containers()]
    assert not any("nvidia.com/gpu" in requests for requests in asked)


def test_the_roles_are_those_of_the_accounts_that_the_site_annotates() -> None:
    accounts = of_kind("gpu", "ServiceAccount")
    annotated = {
        name: account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].rpartition("-")[2]
        for name, account in accounts.items()
        if "annotations" in account["metadata"]
    }
    assert annotated == {name: name for name in ("trainer", "scorer", "reporter")}
    made = (FOLDER / "roles.tf").read_text()
    assert 'toset(["trainer", "scorer", "reporter"])' in made


def _put(key: str, **context: str) -> Request:
    once = {"s3:ObjectCreationOperation": "true", "aws:SecureTransport": "true"}
    return Request("s3:PutObject", key, once | context)


_ALLOWED = [
    ("trainer", "s3:GetObject", f"{_LAKE}/input/flows/day=2026-01-01/a.parquet"),
    ("trainer", "s3:PutObject", f"{_FLOWS}/registry/bundles/1/bundle.json"),
    ("trainer", "s3:PutObject", f"{_FLOWS}/_derived/1/_derived.json"),
    ("trainer", "s3:DeleteObject", f"{_FLOWS}/_trainings/1/checkpoint"),
    ("scorer", "s3:GetObject", f"{_FLOWS}/registry/bundles/1/bundle.json"),
    ("scorer", "s3:PutObject", f"{_FLOWS}/flags/day=2026-01-01/part-1.parquet"),
    ("scorer", "s3:PutObject", f"{_FLOWS}/_runs/1/tasks/1/1.json"),
    ("scorer", "s3:PutObject", f"{_FLOWS}/reports/index.html"),
    ("scorer", "s3:DeleteObject", f"{_FLOWS}/_probe-1"),
    ("reporter", "s3:GetObject", f"{_FLOWS}/flags/_delta_log/00000000000000000000.json"),
    ("reporter", "s3:PutObject", f"{_LAKE}/published/flows/day=2026-01-01/part-1.parquet"),
    ("reporter", "s3:DeleteObject", f"{_LAKE}/published/flows/day=2026-01-01/part-0.parquet"),
]
_DENIED = [
    ("trainer", "s3:PutObject", f"{_LAKE}/input/flows/day=2026-01-01/a.parquet"),
    ("trainer", "s3:PutObject", f"{_FLOWS}/flags/day=2026-01-01/part-1.parquet"),
    ("trainer", "s3:DeleteObject", f"{_FLOWS}/registry/champions/00001.json"),
    ("scorer", "s3:PutObject", f"{_LAKE}/input/flows/day=2026-01-01/a.parquet"),
    ("scorer", "s3:PutObject", f"{_FLOWS}/registry/champions/00002.json"),
    ("scorer", "s3:DeleteObject", f"{_FLOWS}/flags/day=2026-01-01/part-1.parquet"),
    ("scorer", "s3:DeleteObject", f"{_FLOWS}/_runs/1/tasks/1/1.json"),
    ("reporter", "s3:GetObject", f"{_LAKE}/input/flows/day=2026-01-01/a.parquet"),
    ("reporter", "s3:GetObject", f"{_FLOWS}/registry/bundles/1/bundle.json"),
    ("reporter", "s3:PutObject", f"{_FLOWS}/flags/day=2026-01-01/part-1.parquet"),
]


@pytest.mark.parametrize(("role", "action", "key"), _ALLOWED)
def test_a_role_may_do_what_its_verbs_do(
    policies: dict[str, Any], role: str, action: str, key: str
) -> None:
    assert allows(policies[role], Request(action, key))


@pytest.mark.parametrize(("role", "action", "key"), _DENIED)
def test_a_role_may_do_nothing_else(
    policies: dict[str, Any], role: str, action: str, key: str
) -> None:
    assert not allows(policies[role], Request(action, key))


@pytest.mark.parametrize("role", ["trainer", "scorer", "reporter"])
def test_a_role_lists_only_where_it_reads(policies: dict[str, Any], role: str) -> None:
    def lists(prefix: str) -> bool:
        return allows(policies[role], Request("s3:ListBucket", _LAKE, {"s3:prefix": prefix}))

    assert lists("anomaray/flows/flags/")
    assert lists("input/flows/") == (role != "reporter")
    assert not lists("")
    assert not lists("others/")


@pytest.mark.parametrize(
    "key",
    [
        f"{_FLOWS}/flags/_delta_log/00000000000000000001.json",
        f"{_FLOWS}/registry/champions/00001.json",
    ],
)
def test_what_is_created_once_is_put_on_that_condition_or_not_at_all(
    policies: dict[str, Any], key: str
) -> None:
    anybody = [*policies["bucket"], {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["*"]}]
    assert not allows(anybody, _put(key))
    assert allows(anybody, _put(key, **{"s3:if-none-match": "*"}))
    part = {"s3:ObjectCreationOperation": "false"}  # of a multipart upload: it carries no condition
    assert allows(anybody, _put(key, **part))


def test_what_delta_replaces_is_put_without_a_condition(policies: dict[str, Any]) -> None:
    anybody = [*policies["bucket"], {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["*"]}]
    for name in ("_last_checkpoint", "00000000000000000100.checkpoint.parquet"):
        assert allows(anybody, _put(f"{_FLOWS}/flags/_delta_log/{name}"))


def test_nothing_is_read_without_tls(policies: dict[str, Any]) -> None:
    anybody = [*policies["bucket"], {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["*"]}]
    plain = Request(
        "s3:GetObject", f"{_FLOWS}/reports/index.html", {"aws:SecureTransport": "false"}
    )
    assert not allows(anybody, plain)
