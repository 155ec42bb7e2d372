"""The output of a watch: opened only by the watch that it belongs to."""

from contextlib import suppress

from cluster.lake.input.layout import propose
from cluster.lake.output.owner import MARKER, check_owner, claim_output, list_above
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Missing, Store
from jobs.spec.spec import Spec
from models.refusal import Refusal


def open_output(spec: Spec) -> Store:
    """The output, to read. Raises `Refusal` if it belongs to another watch, or lies among days."""
    output = open_store(spec.output.uri)
    _refuse_among_days(output)
    check_owner(output, spec.name)
    return output


def open_own_output(spec: Spec) -> Store:
    """The output, to write; from now on it is the watch's. Raises as `open_output` does."""
    output = open_store(spec.output.uri)
    _refuse_among_days(output)
    claim_output(output, spec.name)
    return output


def _refuse_among_days(output: Store) -> None:
    """Raise `Refusal` for a new output beside or below folders of days, which some watch reads.

    Which inputs other watches have is written nowhere. They in turn refuse an input that holds an
    output.
    """
    if output.exists(MARKER):
        return
    for above in list_above(output):
        with suppress(Missing, PermissionError):
            folders = above.survey("", deep=False).folders
            if propose([name] for name in folders):
                raise Refusal(
                    f"the output {output.uri} lies in {above.uri}, whose folders name days: a "
                    "watch that reads these would read its flags as rows. Name an output.uri "
                    "outside of it"
                )
