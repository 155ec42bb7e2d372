"""An output belongs to the first watch that writes there."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster.lake.output.owner import MARKER, check_owner, claim_output
from cluster.lake.storage.store import Store
from models.refusal import Refusal


def test_an_output_is_claimed_once_and_only_by_one(store: Store) -> None:
    check_owner(store, "cards")
    assert store.list() == ()
    for _ in range(2):
        claim_output(store, "flows")
        check_owner(store, "flows")
    for use in (check_owner, claim_output):
        with pytest.raises(Refusal, match="belongs to watch 'flows', not to 'cards'"):
            use(store, "cards")
    assert [found.key for found in store.list()] == [MARKER]


def test_of_several_that_claim_at_once_one_gets_the_output(store: Store) -> None:
    def claim(watch: str) -> str | None:
        try:
            claim_output(store, watch)
        except Refusal:
            return None
        return watch

    with ThreadPoolExecutor(8) as threads:
        winners = [one for one in threads.map(claim, "abcdefgh") if one]
    assert len(winners) == 1
    check_owner(store, winners[0])


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"no JSON"])
def test_a_marker_that_is_none_is_refused(store: Store, data: bytes) -> None:
    store.put(MARKER, data)
    with pytest.raises(Refusal, match=MARKER):
        claim_output(store, "flows")
