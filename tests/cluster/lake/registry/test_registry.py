"""The champion is the last entry, and it changes in one step."""

import hashlib
import json
import random
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster.lake.registry.registry import Entry, Promotion, Registry
from cluster.lake.storage.store import Store
from models.refusal import Refusal

T1, T2 = (hashlib.sha256(document).hexdigest()[:16] for document in (b"1", b"2"))


def files(name: str) -> dict[str, bytes]:
    return {"bundle.json": b'{"name":"%s"}' % name.encode(), "detector.safetensors": b"weights"}


@pytest.fixture
def registry(store: Store) -> Registry:
    registry = Registry(store.child("registry"))
    assert (registry.add_threshold(b"1"), registry.add_threshold(b"2")) == (T1, T2)
    return registry


def brief(entry: Entry | None) -> tuple[int, str, str]:
    assert entry is not None
    return entry.number, entry.bundle, entry.threshold


def test_a_bundle_is_stored_under_the_digest_of_its_manifest(registry: Registry) -> None:
    bundle = registry.add_bundle(files("a"))
    assert bundle == hashlib.sha256(files("a")["bundle.json"]).hexdigest()[:16]
    assert registry.add_bundle(files("a")) == bundle
    assert registry.list_bundles() == (bundle,)
    assert registry.read_bundle(bundle) == files("a")


@pytest.mark.parametrize("seed", range(3))
def test_what_the_registry_holds_is_never_written_again(registry: Registry, seed: int) -> None:
    chance = random.Random(seed)

    def choose() -> str:
        return registry.add_bundle(files(chance.choice("abc")))

    acts: list[Callable[[], object]] = [
        choose,
        lambda: registry.add_threshold(b"%d" % chance.randrange(3)),
        lambda: registry.promote(Promotion(choose(), chance.choice([T1, T2]))),
        lambda: registry.promote(Promotion(choose(), T1, baselines={"pca": choose()})),
        registry.rollback,
    ]
    registry.promote(Promotion(choose(), T1))
    registry.promote(Promotion(choose(), T2))
    for _ in range(20):
        before = registry.store.list()
        chance.choice(acts)()
        assert set(before) <= set(registry.store.list()), "same keys, sizes, versions, times"


def test_an_object_with_other_bytes_is_named_and_left_as_it_is(registry: Registry) -> None:
    bundle = registry.add_bundle(files("a"))
    objects: dict[str, Callable[[], object]] = {
        f"bundles/{bundle}/bundle.json": lambda: registry.add_bundle(files("a")),
        f"bundles/{bundle}/detector.safetensors": lambda: registry.add_bundle(files("a")),
        f"thresholds/{T1}.json": lambda: registry.add_threshold(b"1"),
    }
    for key, write in objects.items():
        right = registry.store.read(key)
        registry.store.put(key, b"damaged")
        with pytest.raises(Refusal, match=f"{key}: expected the {len(right)} bytes .* restore it"):
            write()
        assert registry.store.read(key) == b"damaged"
        registry.store.delete(key)
        write()
        assert registry.store.read(key) == right, "what is missing is written again"


def test_a_bundle_without_its_manifest_is_not_there(registry: Registry) -> None:
    registry.store.put("bundles/00ff00ff00ff00ff/detector.safetensors", b"weights")
    assert registry.list_bundles() == ()
    with pytest.raises(
        Refusal, match=r"bundle 00ff00ff00ff00ff is not in the registry .*; it has: none"
    ):
        registry.read_bundle("00ff00ff00ff00ff")
    with pytest.raises(Refusal, match=r"a bundle has a bundle\.json, found x"):
        registry.add_bundle({"x": b""})


def test_a_registry_without_a_champion_says_to_train_first(registry: Registry) -> None:
    assert registry.read_champion() is None
    assert registry.list_entries() == ()
    with pytest.raises(Refusal, match="has no champion: train first"):
        registry.require_champion()


def test_the_last_promoted_bundle_is_the_champion(registry: Registry) -> None:
    a, b = registry.add_bundle(files("a")), registry.add_bundle(files("b"))
    registry.promote(Promotion(a, T1, "trained", {"pca": b}))
    promoted = registry.promote(Promotion(b, T1, "better"))
    assert promoted == registry.read_champion()
    assert brief(registry.read_champion()) == (2, b, T1)
    assert [(e.number, e.note, e.baselines) for e in registry.list_entries()] == [
        (1, "trained", {"pca": b}),
        (2, "better", {}),
    ]
    assert promoted.created.endswith("+00:00")


def test_a_rollback_is_a_new_entry_equal_to_the_previous_distinct_one(registry: Registry) -> None:
    a, b = registry.add_bundle(files("a")), registry.add_bundle(files("b"))
    registry.promote(Promotion(a, T1, baselines={"pca": b}))
    registry.promote(Promotion(b, T1))
    registry.promote(Promotion(b, T1, "the same again"))
    back = registry.rollback()
    assert brief(back) == (4, a, T1)
    assert back.baselines == {"pca": b}
    assert len(registry.list_entries()) == 4
    registry.promote(Promotion(a, T2))
    assert brief(registry.rollback()) == (6, a, T1), "a threshold can be rolled back alone"


def test_there_is_no_rollback_without_an_earlier_champion(registry: Registry) -> None:
    with pytest.raises(Refusal, match="no earlier champion to roll back to"):
        registry.rollback()
    registry.promote(Promotion(registry.add_bundle(files("a")), T1))
    with pytest.raises(Refusal, match="no earlier champion to roll back to"):
        registry.rollback()


def test_a_missing_bundle_or_threshold_cannot_be_promoted(registry: Registry) -> None:
    a = registry.add_bundle(files("a"))
    with pytest.raises(Refusal, match=f"bundle gone is not in the registry .*; it has: {a}"):
        registry.promote(Promotion("gone", T1))
    with pytest.raises(Refusal, match="bundle gone is not"):
        registry.promote(Promotion(a, T1, baselines={"pca": "gone"}))
    with pytest.raises(Refusal, match="threshold gone is not in the registry"):
        registry.promote(Promotion(a, "gone"))
    assert registry.list_entries() == ()


def test_a_champion_whose_bundle_is_gone_is_refused(registry: Registry) -> None:
    a = registry.add_bundle(files("a"))
    registry.promote(Promotion(a, T1))
    registry.store.delete(f"bundles/{a}/bundle.json")
    with pytest.raises(Refusal, match=f"champion 1 cannot be used: bundle {a} is not .* roll back"):
        registry.read_champion()


def test_racing_promotions_all_count_and_none_is_lost(registry: Registry) -> None:
    bundles = [registry.add_bundle(files(str(index))) for index in range(4)]
    with ThreadPoolExecutor(4) as threads:
        entries = list(threads.map(lambda b: registry.promote(Promotion(b, T1)), bundles))
    assert sorted(e.number for e in entries) == [1, 2, 3, 4]
    assert {e.bundle for e in registry.list_entries()} == set(bundles)
    champion = max(entries, key=lambda e: e.number)
    assert registry.read_champion() == champion


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".."])
def test_a_name_that_leaves_its_folder_is_refused(registry: Registry, name: str) -> None:
    for act in (registry.read_bundle, registry.read_threshold):
        with pytest.raises(Refusal, match=r"is not allowed|is not a name"):
            act(name)


def test_a_damaged_entry_is_refused_by_name(registry: Registry) -> None:
    registry.store.put("champions/00001.json", b'{"bundle": "a"}')
    with pytest.raises(Refusal, match=r"champions/00001\.json: expected an entry of the registry"):
        registry.list_entries()


FOREIGN = [
    "champions/1.json",
    "champions/000003.json",
    "champions/00000.json",
    "champions/0000３.json",
    "champions/00_03.json",
    "champions/00003.json.bak",
    "champions/00003.JSON",
    "champions/old/00003.json",
    "champions/README",
]


@pytest.mark.parametrize("key", FOREIGN)
def test_an_entry_has_one_name_and_no_other_file_is_among_the_entries(
    registry: Registry, key: str
) -> None:
    a, b = registry.add_bundle(files("a")), registry.add_bundle(files("b"))
    registry.promote(Promotion(a, T1))
    registry.promote(Promotion(b, T1))
    registry.store.put(key, registry.store.read("champions/00001.json"))
    uses: list[Callable[[], object]] = [
        registry.read_champion,
        registry.list_entries,
        registry.rollback,
        lambda: registry.promote(Promotion(a, T2)),
    ]
    for use in uses:
        with pytest.raises(Refusal, match=f"{re.escape(key)} is no file of the registry"):
            use()
    registry.store.delete(key)
    assert brief(registry.read_champion()) == (2, b, T1)


def test_entries_are_in_the_order_of_their_numbers(registry: Registry) -> None:
    registry.promote(Promotion(registry.add_bundle(files("a")), T1))
    entry = registry.store.read("champions/00001.json")
    for number in (99_999, 100_000):
        registry.store.put(f"champions/{number}.json", entry)
    assert [one.number for one in registry.list_entries()] == [1, 99_999, 100_000]


@pytest.mark.parametrize(
    "key", ["bundles/README", "bundles/BUNDLE/x", "bundles/00ff00ff00ff00ff/a/b"]
)
def test_a_file_that_belongs_to_no_bundle_is_named(registry: Registry, key: str) -> None:
    registry.store.put(key, b"")
    with pytest.raises(Refusal, match=f"{key} is no file of the registry: expected bundles/ID"):
        registry.list_bundles()


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b"9" * 5_000,
        b'{"bundle": ' + b"9" * 5_000 + b"}",
        b"\xff",
        b"{}",
        b" " * 70_000,
        {"bundle": []},
        {"bundle": None},
        {"digests": [["a", "b"]]},
        {"digests": {"a": 1}},
        {"baselines": "pca"},
        {"note": 7},
        {"more": "x"},
    ],
    ids=range(13),
)
def test_no_entry_of_whatever_bytes_is_a_trace(
    registry: Registry, data: bytes | dict[str, object]
) -> None:
    registry.promote(Promotion(registry.add_bundle(files("a")), T1))
    if isinstance(data, dict):
        entry = json.loads(registry.store.read("champions/00001.json"))
        data = json.dumps(entry | data).encode()
    registry.store.put("champions/00002.json", data)
    with pytest.raises(Refusal, match=r"champions/00002\.json: expected ") as told:
        registry.read_champion()
    assert len(str(told.value)) < 600


def test_a_bundle_of_too_many_files_is_refused_unread(registry: Registry) -> None:
    bundle = registry.add_bundle(files("a"))
    for number in range(9):
        registry.store.put(f"bundles/{bundle}/{number}", b"")
    with pytest.raises(Refusal, match=r"expected a bundle of at most 8 files .*found 11 files"):
        registry.read_bundle(bundle)


def test_the_beginning_of_an_id_stands_for_it_where_no_other_begins_so(store: Store) -> None:
    registry = Registry(store.child("registry"))
    for bundle in ("00ff00ff00ff00ff", "00fa00fa00fa00fa", "b000000000000000"):
        store.put(f"registry/bundles/{bundle}/bundle.json", b"{}")
    assert registry.find_bundle("b") == "b000000000000000"
    assert registry.find_bundle("00ff") == registry.find_bundle("00ff00ff00ff00ff")
    several = r"bundle 00f: expected .* found that of 2: 00fa00fa00fa00fa, 00ff00ff00ff00ff; give"
    with pytest.raises(Refusal, match=several):
        registry.find_bundle("00f")
    for unknown in ("c", "00ff00ff00ff00ff0", "../00ff"):
        with pytest.raises(Refusal, match=r"is not in the registry .*; it has: 00fa00fa00fa00fa, "):
            registry.find_bundle(unknown)
