"""What the pods run: verbs that exist, on a spec that is one, in an environment that is read."""

import re
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta

import pytest
from typer import TyperException

from jobs.spec.spec import load
from tests.infra.commands import check_verb
from tests.infra.hcl import Module
from tests.infra.rendering import KUBERAY, OVERLAYS, ROOT, of_kind, pod_of

# Of a site's environment, what is read by others than our code.
_READ_BY_AWS = ("AWS_REGION", "AWS_STS_REGIONAL_ENDPOINTS")


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def _commands(overlay: str) -> list[list[str]]:
    """The words after `python -m jobs` of everything that runs a verb."""
    lines = [_words(job["spec"]["entrypoint"]) for job in of_kind(overlay, "RayJob").values()]
    for where in ("CronJob report", "Deployment exporter"):
        (container,) = pod_of(overlay, where).containers()
        lines.append([*container["command"], *container["args"]])
    assert all(line[:3] == ["python", "-m", "jobs"] for line in lines)
    return [line[3:] for line in lines]


def _words(entrypoint: str) -> list[str]:
    """As a shell reads them: Ray gives an entry point to one."""
    command = ["bash", "-c", f"printf '%s\\n' {entrypoint}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_day_that_is_scored_by_itself_is_yesterday() -> None:
    words = next(words for words in _commands("cpu") if words[0] == "score")
    day = date.fromisoformat(words[words.index("--day") + 1])
    assert datetime.now(UTC).date() - day in (timedelta(days=1), timedelta(days=2))  # at midnight


def test_every_command_is_parsed_by_the_command_line_itself(overlay: str) -> None:
    commands = _commands(overlay)
    verbs = {"train", "score", "nightly", "flags", "exporter"}
    assert {command[0] for command in commands} == verbs
    for words in commands:
        check_verb(words)
        assert words[1] == "/etc/anomaray/watch.yaml"


@pytest.mark.parametrize("words", [["nighty", "a.yaml"], ["nightly", "a.yaml", "--dry"], ["score"]])
def test_a_command_that_does_not_exist_is_not_parsed(words: list[str]) -> None:
    with pytest.raises(TyperException):
        check_verb(words)


def test_the_verbs_answer_help() -> None:
    for verb in ("train", "score", "nightly", "flags", "exporter"):
        command = [sys.executable, "-m", "jobs", verb, "--help"]
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        assert b"Usage" in answer.stdout


def test_the_site_and_terraform_name_the_same_places() -> None:
    """Roles may read and write below prefixes: the watch and the export lie there."""
    spec = load(KUBERAY / "components/site/watch.yaml")
    variables = Module.read(ROOT / "infra/terraform").blocks("variable")

    def default(name: str) -> str:
        found: str = variables[name]["default"].strip('"')
        return found

    bucket = spec.input.uri.split("/")[2]
    inputs = [prefix.strip('"') for prefix in variables["input_prefixes"]["default"]]
    watches = [name.strip('"') for name in variables["watches"]["default"]]
    export = of_kind("cpu", "ConfigMap")["anomaray-environment"]["data"]["ANOMARAY_EXPORT"]
    assert any(spec.input.uri.startswith(f"s3://{bucket}/{prefix}/") for prefix in inputs)
    assert spec.output.uri in [f"s3://{bucket}/{default('output_prefix')}/{w}" for w in watches]
    assert export.startswith(f"s3://{bucket}/{default('export_prefix')}/")
    assert of_kind("cpu", "Namespace").keys() == {default("namespace")}


def test_every_variable_of_the_environment_is_read_by_somebody(overlay: str) -> None:
    given = of_kind(overlay, "ConfigMap")["anomaray-environment"]["data"].keys()
    (report,) = pod_of(overlay, "CronJob report").containers()
    used = {word[2:-1] for word in report["args"] if word.startswith("$(")}
    assert used <= given
    assert given <= used | {*_READ_BY_AWS} | _variables_of_our_code()


def test_every_variable_that_infra_speaks_of_exists() -> None:
    paths = (path for path in (ROOT / "infra").rglob("*") if path.is_file())
    texts = (path.read_text() for path in paths if path.suffix != ".pyc")
    spoken = {name for text in texts for name in re.findall(r"\bANOMARAY_[A-Z_]+\b", text)}
    assert spoken - {"ANOMARAY_EXPORT"} <= _variables_of_our_code()


def _variables_of_our_code() -> set[str]:
    paths = (path for package in ("jobs", "cluster") for path in (ROOT / package).rglob("*.py"))
    return {name for path in paths for name in re.findall(r'"(ANOMARAY_\w+)"', path.read_text())}
