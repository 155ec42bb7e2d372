"""Opening the Delta table in the folder of a store."""

from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from cluster.lake.storage.store import Store


def open_table(store: Store) -> DeltaTable | None:
    """The table in this folder; None if there is none.

    Raises `Refusal` where a link stands in its log, whose files deltalake opens by itself.
    """
    store.refuse_links("_delta_log")
    try:
        return DeltaTable(store.delta_uri, storage_options=store.delta_options)
    except TableNotFoundError:
        return None
