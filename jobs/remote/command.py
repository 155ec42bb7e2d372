"""A command line made fit to be sent: its spec travels, and nothing secret is in it.

Whoever may look at a cluster's dashboard reads the commands and variables of its jobs. So secrets
stay where the nodes are: in their environment, their instance's role, a mounted file.
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

# They write beside themselves, start what is already started, or never end.
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
# A shorter value of a variable would be found in words by chance.
_SHORTEST_SECRET = 8


def prepare_command(
    arguments: Sequence[str], verbs: Iterable[str]
) -> tuple[list[str], dict[str, Path]]:
    """The command as the cluster runs it, and the files to send along, by their path there.

    A spec of this checkout keeps its path; one from elsewhere goes to `submitted/`, to a folder of
    its output: two watches in files of one name are two commands. Raises Refusal for a verb that
    runs here only, and for a spec that only this machine can follow.
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
            _refuse_out_of_reach(spec, argument)
            rest[position] = _there(file.resolve(), spec.output.uri)
            sent[rest[position]] = file
    return [verb, *rest], sent


def refuse_secrets(arguments: Sequence[str], variables: Mapping[str, str]) -> None:
    """Raise Refusal where an argument or a variable looks like a secret; the value is not said."""
    held = {
        value: name
        for name, value in os.environ.items()
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET and "/" not in value[:1]
    }
    for argument in arguments:
        named = argument.startswith("--") and _SECRET_NAME.search(argument.partition("=")[0])
        kept = next((name for value, name in held.items() if value in argument), None)
        if named or kept or _SECRET_VALUE.search(argument):
            what = f"the value of {kept}" if kept else "what looks like a secret"
            raise Refusal(f"argument {arguments.index(argument) + 1} holds {what}: {_ADVICE}")
    for name, value in variables.items():
        if _SECRET_NAME.search(name) or _SECRET_VALUE.search(value) or value in held:
            raise Refusal(f"--env {name} looks like a secret: {_ADVICE}")


_ADVICE = (
    "everyone who sees the cluster's dashboard reads it. Give it to the nodes instead (a "
    "Kubernetes secret by reference, an instance's role), where the job finds it in its environment"
)


def read_variables(names: Iterable[str]) -> dict[str, str]:
    """The variables of these names, as they are here."""
    wanted = list(names)
    if absent := [name for name in wanted if name not in os.environ]:
        raise Refusal(f"--env {absent[0]}: expected a variable of this environment, found none")
    return {name: os.environ[name] for name in wanted}


def _there(file: Path, output: str) -> str:
    """Where a spec is in the folder that the job starts in."""
    if file.is_relative_to(ROOT):
        return file.relative_to(ROOT).as_posix()
    return f"submitted/{hashlib.sha256(output.encode()).hexdigest()[:8]}/{file.name}"


def _refuse_out_of_reach(spec: Spec, argument: str) -> None:
    """A relative folder would be one of the job's own, which ends with it."""
    places = {
        "input.uri": spec.input.uri,
        "training.uri": spec.training_uri,
        "output.uri": spec.output.uri,
    }
    for key, uri in places.items():
        if "://" not in uri and not Path(uri).is_absolute():
            raise Refusal(
                f"{argument}: {key}: expected s3:// or an absolute path of a folder that all nodes "
                f"share, found {uri!r}, which a node looks for in a folder of its own"
            )
