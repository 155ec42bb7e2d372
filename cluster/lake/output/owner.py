"""An output folder belongs to one watch: two would replace each other's flags and champions."""

import re
from collections.abc import Iterator
from contextlib import suppress

from cluster.lake.storage.opening import find_place, open_store
from cluster.lake.storage.store import Missing, Store
from models import canonical_json
from models.refusal import Refusal

MARKER = "_watch.json"
_MOST_BYTES = 10_000


def claim_output(output: Store, watch: str) -> None:
    """Mark the output as the watch's, once. Raises `Refusal` if it is another's, lies in another's
    or holds one."""
    if _check(output, watch):
        return
    if not output.create(MARKER, canonical_json.encode({"watch": watch})):
        _check(output, watch)  # another has just claimed it


def check_owner(output: Store, watch: str) -> None:
    """Raise `Refusal` as `claim_output` does; an output that nobody has claimed is free."""
    _check(output, watch)


def _check(output: Store, watch: str) -> bool:
    """Whether the output is claimed by the watch."""
    try:
        data = output.read(MARKER, _MOST_BYTES)
    except Missing:
        _refuse_nested(output)
        return False
    where = f"{output.uri}/{MARKER}"
    document = canonical_json.decode(data, where)
    owner = document.get("watch") if isinstance(document, dict) else None
    if owner != watch:
        raise Refusal(
            f"the output {output.uri} belongs to watch {owner!r}, not to {watch!r}: two watches in "
            "one output replace each other's flags and champions. Name another output.uri; to "
            f"hand this one over, delete {where} first"
        )
    return True


def _refuse_nested(output: Store) -> None:
    """Raise `Refusal` if the output lies in one that is claimed, or if one lies directly in it."""
    for other in (*list_above(output), *_list_inside(output)):
        # Whoever may not read there has no output there.
        with suppress(Missing, PermissionError):
            other.read(MARKER, _MOST_BYTES)
            raise Refusal(
                f"the output {output.uri} and the output {other.uri} of a watch lie one in the "
                "other: the files of one would count as the other's. Name an output.uri beside it, "
                f"or delete {other.uri}/{MARKER} if nothing uses it any more"
            )


def list_above(output: Store) -> Iterator[Store]:
    """The folders that the output lies in, wherever links lead."""
    uri = find_place(output.uri)
    while uri.strip("/") and not re.fullmatch("s3://[^/]*", uri):
        uri, _, _ = uri.rpartition("/")
        if not uri.endswith(".parquet"):
            yield open_store(uri or "/")


def _list_inside(output: Store) -> Iterator[Store]:
    for folder in output.survey("", deep=False).folders:
        yield output.child(folder)
