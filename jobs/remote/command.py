"""Preparing a command line for a remote cluster: its spec is sent along, secrets are refused.

Everyone with access to the dashboard reads the commands and variables of jobs. So secrets belong on
the nodes: in their environment, in the role of their instance, in a mounted file.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cluster.runtime.shipping import ROOT
from jobs.spec.spec import Spec, load
from models.refusal import Refusal
from models.suggestion import join_names, suggest

# Verbs that write to this machine, start a Ray of their own, or never end.
_LOCAL = frozenset({"submit", "init", "demo", "exporter"})

_SECRET_NAME = re.compile(
    r"secret|token|passw|credential|api_?key|access_?key|private_?key|signature|webhook|auth", re.I
)
_SECRET_VALUE = re.compile(
    r"://[^/\s@]*:[^/\s@]+@"  # user:password@host
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"  # keys of AWS, GitHub, Slack
    r"|\bgh[pousr]_\w{20,}|\bxox[abprs]-[\w-]{10,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|\beyJ[\w-]+\.eyJ[\w-]+\."  # a JSON web token
    r"|[?&](?:X-Amz-Signature|sig|token|key|password)=",  # a signed URL
    re.I,
)
# Shorter values of variables occur in words by chance.
_SHORTEST_SECRET = 8


def prepare_command(
    arguments: Sequence[str], verbs: Iterable[str]
) -> tuple[list[str], dict[str, Path]]:
    """The command for the cluster, and the files to send along, by their path there.

    A spec of this checkout keeps its path. A spec from elsewhere goes to `submitted/HASH/`, with a
    hash of its output, so that files of the same name stay apart. Raises Refusal for a verb that
    runs only here, and for a spec with paths that only this machine has.
    """
    verb, *rest = arguments
    if verb not in (possible := sorted(set(verbs) - _LOCAL)):
        near = suggest(verb, possible)
        raise Refusal(f"expected one of {join_names(possible)} to submit, found {verb!r}{near}")
    sent: dict[str, Path] = {}
    for position, argument in enumerate(rest):
        if Path(argument).suffix in (".yaml", ".yml"):
            file = Path(argument)
            spec = load(file)
            _refuse_relative_paths(spec, argument)
            rest[position] = _choose_path(file.resolve(), spec.output.uri)
            sent[rest[position]] = file
    return [verb, *rest], sent


def refuse_secrets(arguments: Sequence[str], variables: Mapping[str, str]) -> None:
    """Raise Refusal if an argument or a variable looks like a secret; it names no value."""
    held = {
        value: name
        for name, value in os.environ.items()
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET and "/" not in value[:1]
    }
    for argument in arguments:
        named = argument.startswith("--") and _SECRET_NAME.search(argument.partition("=")[0])
        kept = next((name for value, name in held.items() if value in argument), None)
        if named or kept or _SECRET_VALUE.search(argument):
            what = f"the value of {kept}" if kept else "a text that looks like a secret"
            raise Refusal(f"argument {arguments.index(argument) + 1} holds {what}: {_ADVICE}")
    for name, value in variables.items():
        if _SECRET_NAME.search(name) or _SECRET_VALUE.search(value) or value in held:
            raise Refusal(f"--env {name} looks like a secret: {_ADVICE}")


_ADVICE = (
    "everyone with access to the cluster's dashboard can read it. Give it to the nodes instead (a "
    "Kubernetes secret by reference, the role of an instance): the job has it in its environment"
)


def read_variables(names: Iterable[str]) -> dict[str, str]:
    """The variables of these names in this environment. Raises Refusal for an absent one."""
    wanted = list(names)
    if absent := [name for name in wanted if name not in os.environ]:
        raise Refusal(f"--env {absent[0]}: expected a variable of this environment, found none")
    return {name: os.environ[name] for name in wanted}


def _choose_path(file: Path, output: str) -> str:
    """The path of a spec in the job's folder."""
    if file.is_relative_to(ROOT):
        return file.relative_to(ROOT).as_posix()
    return f"submitted/{hashlib.sha256(output.encode()).hexdigest()[:8]}/{file.name}"


def _refuse_relative_paths(spec: Spec, argument: str) -> None:
    """Raise Refusal for a relative path, which would be in the job's temporary folder."""
    places = {
        "input.uri": spec.input.uri,
        "training.uri": spec.training_uri,
        "output.uri": spec.output.uri,
    }
    for key, uri in places.items():
        if "://" not in uri and not Path(uri).is_absolute():
            raise Refusal(
                f"{argument}: {key}: expected s3:// or an absolute path of a folder that all "
                f"nodes share, found {uri!r}, which each node would look for in its own folder"
            )
