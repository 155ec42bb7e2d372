"""An output belongs to the first watch that writes there."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.lake.output.owner import MARKER, check_owner, claim_output
from cluster.lake.storage.opening import open_store
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


def test_an_output_neither_lies_in_another_nor_holds_one(store: Store) -> None:
    claim_output(open_store(f"{store.uri}/lake/flows"), "flows")
    for inside in ("lake/flows/cards", "lake/flows/a/b", "lake"):
        for use in (check_owner, claim_output):
            with pytest.raises(Refusal, match=r"lie one in the other.*lake/flows/_watch\.json"):
                use(open_store(f"{store.uri}/{inside}"), "cards")
    claim_output(open_store(f"{store.uri}/lake/flows2"), "cards")  # beside it
    claim_output(open_store(f"{store.uri}/lake/flows"), "flows")


def test_an_output_behind_a_link_lies_where_the_link_leads(tmp_path: Path) -> None:
    claim_output(open_store(str(tmp_path / "flows")), "flows")
    (tmp_path / "flows" / "inner").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "flows" / "inner")
    with pytest.raises(Refusal, match="lie one in the other"):
        claim_output(open_store(str(tmp_path / "link")), "cards")


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
