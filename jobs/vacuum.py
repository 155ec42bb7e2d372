"""Remove old files that nothing needs from the output of a watch."""

from datetime import timedelta

from cluster.lake.derived.derive import remove_before
from cluster.lake.output import vacuum as output_files
from jobs.input_rows import DERIVED
from jobs.output import open_own_output
from jobs.spec.spec import Spec


def vacuum(spec: Spec, hours: int, dry_run: bool) -> list[str]:
    """Remove files older than `hours` that nothing needs, and derived rows that no verb has read
    for as long.

    Returns the keys; with `dry_run` nothing is removed. Derived rows are derived again on demand.
    """
    output, age = open_own_output(spec), timedelta(hours=hours)
    now = output_files.read_store_time(output)
    removed = output_files.vacuum(output, now, age, dry_run)
    unused_since = output_files.limit_use(now, age)
    derived = remove_before(output.child(DERIVED), unused_since, dry_run)
    return removed + [f"{DERIVED}/{key}" for key in derived]
