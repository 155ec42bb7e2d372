"""The operator's page: what its commands name is there."""

import re
import shlex

from tests.infra.commands import check_verb
from tests.infra.hcl import Module
from tests.infra.rendering import KUBERAY, ROOT, Manifest, of_kind, pods

_TEXT = (ROOT / "infra/README.md").read_text()


def test_the_verbs_of_the_page_are_parsed_by_the_command_line() -> None:
    lines = re.findall(r"^ *python -m jobs (.+)$", _TEXT, flags=re.M)
    assert lines
    for line in lines:
        check_verb(shlex.split(line))


def test_the_page_makes_every_secret_that_the_manifests_name_and_no_other() -> None:
    made = dict(re.findall(r"create secret generic (\S+) --from-\w+=(\S+?)=", _TEXT))
    cluster: Manifest = of_kind("gpu", "RayCluster")["anomaray"]["spec"]
    password = cluster["gcsFaultToleranceOptions"]["redisPassword"]["valueFrom"]["secretKeyRef"]
    assert made[cluster["authOptions"]["secretName"]] == "auth_token"
    assert made[password["name"]] == password["key"]
    mounted = {
        volume["secret"]["secretName"]
        for pod in pods("gpu")
        for volume in pod.spec.get("volumes", ())
        if "secret" in volume
    }
    assert made.keys() == mounted | {cluster["authOptions"]["secretName"], password["name"]}


def test_what_the_page_starts_exists() -> None:
    from_cronjobs = set(re.findall(r"--from=cronjob/(\w+)", _TEXT))
    assert from_cronjobs == of_kind("gpu", "CronJob").keys() - {"report"}
    patched = set(re.findall(r"patch rayjob (\w+)", _TEXT))
    assert patched <= of_kind("gpu-raycronjob", "RayJob").keys()
    made = {f"run-{name}" for name in re.findall(r"create job (\S+) --from", _TEXT)}
    assert made == set(re.findall(r"(?:rayjob|job)/(run-[\w-]+)", _TEXT))


def test_every_place_that_the_page_names_is_there() -> None:
    for name in re.findall(r"\bcomponents/([\w-]+)", _TEXT):
        assert (KUBERAY / "components" / name).is_dir(), name
    for name in re.findall(r"(?<!/)\binfra/[\w./-]*\w", _TEXT):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"^\| `([\w-]+)` \|", _TEXT, flags=re.M):
        assert (KUBERAY / "overlays" / name).is_dir(), name


def test_terraform_is_given_the_variables_that_have_no_default_and_asked_for_its_outputs() -> None:
    module = Module.read(ROOT / "infra/terraform")
    needed = {n for n, block in module.blocks("variable").items() if "default" not in block}
    (line,) = re.findall(r"^ *terraform apply (.+)$", _TEXT, flags=re.M)
    given = {word.partition("=")[0] for word in shlex.split(line) if word != "-var"}
    assert given == needed
    outputs = set(re.findall(r"terraform output (?:-raw )?(\w+)", _TEXT))
    assert outputs
    assert outputs <= module.blocks("output").keys()
