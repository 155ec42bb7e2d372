"""The bundles and thresholds of a spec, and which of them is the champion.

The champion is the highest of the numbered entries in `champions/`. An entry is written once and
never changed, so that a change of the champion is one create-once write, and its history is kept.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from cluster.lake.registry import signatures
from cluster.lake.registry.signatures import SigningKey
from cluster.lake.storage.store import Missing, Store, check_key
from models import canonical_json
from models.refusal import Refusal

_MANIFEST = "bundle.json"
# Promotions are made by people and once a night: one loser in a row is rare, five are a fault.
_TRIES = 5


@dataclass(frozen=True)
class Entry:
    """One change of the champion."""

    number: int
    bundle: str
    threshold: str
    note: str
    created: str  # UTC, ISO 8601
    baselines: dict[str, str] = field(default_factory=dict)  # detector name: bundle
    digests: dict[str, str] = field(default_factory=dict)  # SHA-256 of `bundle.json`, by bundle
    threshold_sha256: str = ""
    signature: dict[str, str] | None = None

    def statement(self, watch: str) -> dict[str, Any]:
        """What is signed: the entry itself, and whose it is."""
        stated = asdict(self)
        del stated["signature"]
        return {"watch": watch, **stated}


@dataclass(frozen=True)
class Signer:
    """Signs the entries of a watch."""

    watch: str
    key: SigningKey


@dataclass(frozen=True)
class Trust:
    """Whose entries are used; those of anyone without keys."""

    watch: str
    keys: tuple[str, ...] = ()  # as `SigningKey.public` writes them
    at_least: int = 1  # the lowest number of an entry that is used

    def check(self, entry: Entry) -> None:
        """Raise `Refusal` where the entry is not to be used."""
        if entry.number < self.at_least:
            raise Refusal(
                f"champion {entry.number} is older than what was in force: expected "
                f"{self.at_least} or a later one; an earlier champion was put back, or the "
                "registry is not whole"
            )
        if not self.keys:
            return
        try:
            signatures.verify(entry.statement(self.watch), entry.signature, self.keys)
        except Refusal as refused:
            raise Refusal(
                f"champion {entry.number} {refused}; the spec demands one that is signed with a "
                "key of bundle.keys: promote a bundle with --sign-with KEYFILE"
            ) from None


class Registry:
    """`<store>/bundles`, `<store>/thresholds` and `<store>/champions`."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def add_bundle(self, files: Mapping[str, bytes]) -> str:
        """Store a bundle; its id, which is made of the SHA-256 of its `bundle.json`."""
        if _MANIFEST not in files:
            raise Refusal(f"a bundle has a {_MANIFEST}, found {', '.join(sorted(files))}")
        bundle = hashlib.sha256(files[_MANIFEST]).hexdigest()[:16]
        # The manifest comes last: a bundle is there when its manifest is.
        for name in sorted(files, key=lambda n: n == _MANIFEST):
            self.store.put(_bundle_key(bundle, name), files[name])
        return bundle

    def read_bundle(self, bundle: str) -> dict[str, bytes]:
        """The files of a bundle by name, as `models.bundle.open_bundle` takes them."""
        self._need_bundle(bundle)
        folder = f"bundles/{_name(bundle)}"
        found = self.store.list(folder)
        return {o.key.removeprefix(f"{folder}/"): self.store.read(o.key) for o in found}

    def list_bundles(self) -> tuple[str, ...]:
        """The ids of all complete bundles."""
        keys = [found.key.split("/") for found in self.store.list("bundles")]
        return tuple(sorted(parts[1] for parts in keys if parts[2:] == [_MANIFEST]))

    def add_threshold(self, threshold: str, document: str | bytes) -> None:
        data = document.encode() if isinstance(document, str) else document
        self.store.put(_threshold_key(threshold), data)

    def read_threshold(self, threshold: str) -> bytes:
        """The JSON of a threshold."""
        try:
            return self.store.read(_threshold_key(threshold))
        except Missing:
            raise Refusal(
                f"threshold {threshold} is not in the registry {self.store.uri}"
            ) from None

    def read_champion(self) -> Entry | None:
        """The entry in force; None where nothing was ever promoted.

        Raises `Refusal` where its bundle or threshold is gone.
        """
        entries = self.list_entries()
        if not entries:
            return None
        try:
            self._need_bundle(entries[-1].bundle)
            self.read_threshold(entries[-1].threshold)
        except Refusal as gone:
            raise Refusal(
                f"champion {entries[-1].number} cannot be used: {gone}; "
                "restore it, roll back, or promote another bundle"
            ) from None
        return entries[-1]

    def require_champion(self) -> Entry:
        entry = self.read_champion()
        if entry is None:
            raise Refusal(f"the registry {self.store.uri} has no champion: train first")
        return entry

    def list_entries(self) -> tuple[Entry, ...]:
        """All entries, oldest first."""
        found = self.store.list("champions")
        return tuple(self._entry(one.key) for one in found)

    def promote(
        self,
        bundle: str,
        threshold: str,
        note: str = "",
        baselines: Mapping[str, str] | None = None,
        signer: Signer | None = None,
        digests: Mapping[str, str] | None = None,
    ) -> Entry:
        """Make bundle and threshold the champion, in one atomic step.

        `digests` are those of bundles that the caller has verified; without them, of those that
        the registry has.
        """
        named = (bundle, *(baselines or {}).values())
        for one in named:
            self._need_bundle(one)
        found = {one: self._digest(one) for one in named} | dict(digests or {})
        given = {
            "bundle": bundle,
            "threshold": threshold,
            "note": note,
            "baselines": dict(baselines or {}),
            "digests": found,
            "threshold_sha256": hashlib.sha256(self.read_threshold(threshold)).hexdigest(),
        }
        return self._append(lambda _: given, signer)

    def rollback(
        self,
        note: str = "rolled back",
        signer: Signer | None = None,
        trust: Trust | None = None,
    ) -> Entry:
        """Make the last champion before the present one the champion again, if it is trusted."""

        def previous(entries: tuple[Entry, ...]) -> dict[str, Any]:
            earlier = [e for e in entries if _what(e) != _what(entries[-1])]
            if not earlier:
                raise Refusal(
                    f"the registry {self.store.uri} has no earlier champion to roll back to"
                )
            entry = earlier[-1]
            if trust:
                replace(trust, at_least=1).check(entry)
            self._need_bundle(entry.bundle)
            self.read_threshold(entry.threshold)
            return {
                "bundle": entry.bundle,
                "threshold": entry.threshold,
                "note": note,
                "baselines": entry.baselines,
                "digests": entry.digests,
                "threshold_sha256": entry.threshold_sha256,
            }

        return self._append(previous, signer)

    def _append(
        self, decide: Callable[[tuple[Entry, ...]], dict[str, Any]], signer: Signer | None
    ) -> Entry:
        """Write the next entry. Whoever loses a race looks again at what is there."""
        for _ in range(_TRIES):
            entries = self.list_entries()
            number = entries[-1].number + 1 if entries else 1
            created = datetime.now(UTC).isoformat(timespec="microseconds")
            entry = Entry(number=number, **decide(entries), created=created)
            if signer:
                signature = signer.key.sign(entry.statement(signer.watch))
                entry = replace(entry, signature=signature)
            document = asdict(entry)
            del document["number"]
            if self.store.create(f"champions/{number:05}.json", canonical_json.encode(document)):
                return entry
        raise Refusal(
            f"the champion of {self.store.uri} was changed {_TRIES} times by others meanwhile: "
            "look at its history, and try again"
        )

    def _entry(self, key: str) -> Entry:
        where = f"{self.store.uri}/{key}"
        document = canonical_json.decode(self.store.read(key), where)
        name = key.removeprefix("champions/").removesuffix(".json")
        try:
            return Entry(number=int(name), **document)
        except (TypeError, ValueError):
            raise Refusal(f"{where}: expected an entry of the registry, found {name}") from None

    def _digest(self, bundle: str) -> str:
        return hashlib.sha256(self.store.read(_bundle_key(bundle, _MANIFEST))).hexdigest()

    def _need_bundle(self, bundle: str) -> None:
        if not self.store.exists(_bundle_key(bundle, _MANIFEST)):
            there = ", ".join(self.list_bundles()) or "none"
            raise Refusal(
                f"bundle {bundle} is not in the registry {self.store.uri}; it has: {there}"
            )


def _what(entry: Entry) -> tuple[str, str, dict[str, str]]:
    return entry.bundle, entry.threshold, entry.baselines


def _bundle_key(bundle: str, name: str) -> str:
    return f"bundles/{_name(bundle)}/{_name(name)}"


def _threshold_key(threshold: str) -> str:
    return f"thresholds/{_name(threshold)}.json"


def _name(name: str) -> str:
    if "/" in check_key(name):
        raise Refusal(f"{name!r} is not a name: it holds a '/'")
    return name
