"""An output folder belongs to one watch: two would replace each other's flags and champions."""

from cluster.lake.storage.store import Missing, Store
from models import canonical_json
from models.refusal import Refusal

MARKER = "_watch.json"
_MOST_BYTES = 10_000


def claim_output(output: Store, watch: str) -> None:
    """Mark the output as the watch's, once. Raises `Refusal` if it is another's."""
    if _check(output, watch):
        return
    if not output.create(MARKER, canonical_json.encode({"watch": watch})):
        _check(output, watch)  # another has just claimed it


def check_owner(output: Store, watch: str) -> None:
    """Raise `Refusal` if the output is another watch's; one that nobody has claimed is free."""
    _check(output, watch)


def _check(output: Store, watch: str) -> bool:
    """Whether the output is claimed by the watch."""
    try:
        data = output.read(MARKER, _MOST_BYTES)
    except Missing:
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
