"""The output of a watch: opened only by the watch that it belongs to."""

from cluster.lake.output.owner import check_owner, claim_output
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store
from jobs.spec.spec import Spec


def open_output(spec: Spec) -> Store:
    """The output, to read. Raises `Refusal` if it belongs to another watch."""
    output = open_store(spec.output.uri)
    check_owner(output, spec.name)
    return output


def open_own_output(spec: Spec) -> Store:
    """The output, to write; from now on it is the watch's. Raises as `open_output` does."""
    output = open_store(spec.output.uri)
    claim_output(output, spec.name)
    return output
