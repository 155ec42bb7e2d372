"""A command line that is sent: its spec travels, no secret does."""

import re
from pathlib import Path

import pytest

from jobs.remote.command import prepare_command, read_variables, refuse_secrets
from models.refusal import Refusal

VERBS = ("score", "nightly", "demo", "submit")
SPEC = """
name: flows
input: {uri: URI, partition: day}
columns: {uid: {role: id}, amount: {role: numeric}}
detector: {name: autoencoder}
threshold: {policy: quantile, contamination: 0.01}
output: {uri: OUTPUT}
"""


def _spec(folder: Path, uri: str, output: str = "s3://lake/out") -> str:
    folder.mkdir(exist_ok=True)
    file = folder / "mine.yaml"
    file.write_text(SPEC.replace("URI", uri).replace("OUTPUT", output))
    return str(file)


def test_a_spec_from_elsewhere_travels_under_another_path(tmp_path: Path) -> None:
    spec = _spec(tmp_path, "s3://lake/flows")
    command, sent = prepare_command(["score", spec, "--day", "2026-01-01"], VERBS)
    assert [command[0], *command[2:]] == ["score", "--day", "2026-01-01"]
    assert re.fullmatch(r"submitted/[0-9a-f]{8}/mine\.yaml", command[1])
    assert sent == {command[1]: Path(spec)}


def test_specs_of_one_file_name_are_one_command_where_they_write_to_one_place(
    tmp_path: Path,
) -> None:
    one, copy, other = (
        prepare_command(["score", _spec(tmp_path / name, "s3://lake/flows", output)], VERBS)[0]
        for name, output in (("a", "s3://lake/a"), ("copy", "s3://lake/a"), ("b", "s3://lake/b"))
    )
    assert one == copy != other


def test_a_spec_that_names_a_folder_of_this_machine_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"input\.uri: expected s3:// or an absolute path"):
        prepare_command(["score", _spec(tmp_path, "demo/flows")], VERBS)
    prepare_command(["score", _spec(tmp_path, "/shared/flows")], VERBS)


@pytest.mark.parametrize("verb", ["demo", "submit", "no-verb"])
def test_a_verb_that_runs_here_only_is_refused(verb: str) -> None:
    with pytest.raises(Refusal, match="expected one of nightly, score to submit"):
        prepare_command([verb], VERBS)


@pytest.mark.parametrize(
    "argument",
    [
        "s3://user:pass-word@host/lake",
        "AKIAIOSFODNN7EXAMPLE",
        "--token=abc",
        "https://store/lake?X-Amz-Signature=0123",
        "ghp_0123456789abcdefghij0123",
        "-----BEGIN RSA PRIVATE KEY-----",
        "of-the-environment",
    ],
)
def test_an_argument_that_looks_like_a_secret_is_refused_and_not_repeated(
    argument: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-environment")
    with pytest.raises(Refusal, match="argument 2 holds") as refused:
        refuse_secrets(["score", argument], {})
    assert argument not in str(refused.value)


def test_a_variable_is_sent_by_name_unless_it_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-environment")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    refuse_secrets(
        ["score", "specs/mine.yaml", "--day", "2026-01-01"], read_variables(["AWS_REGION"])
    )
    with pytest.raises(Refusal, match="--env AWS_SECRET_ACCESS_KEY looks like a secret"):
        refuse_secrets([], read_variables(["AWS_SECRET_ACCESS_KEY"]))
    with pytest.raises(Refusal, match="--env ABSENT: expected a variable"):
        read_variables(["ABSENT"])
