"""The bundles and thresholds of a watch, and which of them is the champion.

The champion is the highest of the numbered entries in `champions/`. An entry is written once and
never changed, so a change of the champion is one create-once write, and its history is kept.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from cluster.lake.registry import signatures
from cluster.lake.registry.signatures import Signature, SigningKey
from cluster.lake.storage.store import Missing, Store, check_key
from models import canonical_json
from models.refusal import Refusal

_MANIFEST = "bundle.json"
# Promotions come from people and once a night: losing one race is rare, losing five is a fault.
_TRIES = 5


@dataclass(frozen=True)
class Promotion:
    """The bundle and the threshold that are to become champion."""

    bundle: str
    threshold: str
    note: str = ""
    baselines: Mapping[str, str] = field(default_factory=dict)  # bundle by detector
    # SHA-256 of `bundle.json` of the bundles that the caller has verified, by bundle. For the
    # others the registry's own are taken.
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One change of the champion."""

    number: int
    bundle: str
    threshold: str
    note: str
    created: str  # UTC, ISO 8601
    baselines: dict[str, str] = field(default_factory=dict)  # bundle by detector
    digests: dict[str, str] = field(default_factory=dict)  # SHA-256 of `bundle.json`, by bundle
    threshold_sha256: str = ""
    signature: Signature | None = None

    @property
    def champion(self) -> tuple[str, str, dict[str, str]]:
        """What the entry makes the champion; two entries may agree in it."""
        return self.bundle, self.threshold, self.baselines

    def statement(self, watch: str) -> dict[str, Any]:
        """The document that is signed: the entry, and the watch that it belongs to."""
        entry = asdict(self)
        del entry["signature"]
        return {"watch": watch, **entry}

    def to_bytes(self) -> bytes:
        """Canonical JSON, without the number, which is the name of the file."""
        entry = asdict(self)
        del entry["number"]
        return canonical_json.encode(entry)

    @classmethod
    def from_bytes(cls, data: bytes, name: str, where: str) -> "Entry":
        """The entry of `to_bytes`, in the file called `name`. Raises `Refusal` for other data."""
        document = canonical_json.decode(data, where)
        signature = Signature.from_document(document.pop("signature", None))
        try:
            return cls(number=int(name), signature=signature, **document)
        except (TypeError, ValueError):
            raise Refusal(f"{where}: expected an entry of the registry, found {name}") from None


@dataclass(frozen=True)
class Signer:
    """Signs the entries of a watch."""

    watch: str
    key: SigningKey


@dataclass(frozen=True)
class Trust:
    """Which entries may be used. Without keys, entries of anyone."""

    watch: str
    keys: tuple[str, ...] = ()  # as `SigningKey.public` writes them
    at_least: int = 1  # entries with a lower number are refused

    def check(self, entry: Entry) -> None:
        """Raise `Refusal` where the entry may not be used."""
        if entry.number < self.at_least:
            raise Refusal(
                f"champion {entry.number} is older than one that was used before: expected "
                f"{self.at_least} or later; an earlier champion was put back, or entries of the "
                "registry are missing"
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
        """Store a bundle, given its files by name. Returns its id."""
        if _MANIFEST not in files:
            raise Refusal(f"a bundle has a {_MANIFEST}, found {', '.join(sorted(files))}")
        bundle = hashlib.sha256(files[_MANIFEST]).hexdigest()[:16]
        # The manifest comes last: a bundle is complete when it has one.
        for name in sorted(files, key=lambda n: n == _MANIFEST):
            self.store.put(_bundle_key(bundle, name), files[name])
        return bundle

    def read_bundle(self, bundle: str) -> dict[str, bytes]:
        """The files of a bundle by name, for `models.bundle.open_bundle`."""
        self._need_bundle(bundle)
        folder = f"bundles/{_name(bundle)}"
        keys = [found.key for found in self.store.list(folder)]
        return {key.removeprefix(f"{folder}/"): self.store.read(key) for key in keys}

    def list_bundles(self) -> tuple[str, ...]:
        """The ids of all complete bundles."""
        keys = [found.key.split("/") for found in self.store.list("bundles")]
        return tuple(sorted(parts[1] for parts in keys if parts[2:] == [_MANIFEST]))

    def add_threshold(self, threshold: str, document: str | bytes) -> None:
        data = document.encode() if isinstance(document, str) else document
        self.store.put(_threshold_key(threshold), data)

    def read_threshold(self, threshold: str) -> bytes:
        """The JSON of a threshold. Raises `Refusal` for one that is not there."""
        try:
            return self.store.read(_threshold_key(threshold))
        except Missing:
            raise Refusal(
                f"threshold {threshold} is not in the registry {self.store.uri}"
            ) from None

    def read_champion(self) -> Entry | None:
        """The last entry; None before the first promotion.

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
        """As `read_champion`, with a `Refusal` before the first promotion."""
        entry = self.read_champion()
        if entry is None:
            raise Refusal(f"the registry {self.store.uri} has no champion: train first")
        return entry

    def list_entries(self) -> tuple[Entry, ...]:
        """All entries, oldest first."""
        keys = [found.key for found in self.store.list("champions")]
        return tuple(self._read_entry(key) for key in keys)

    def promote(self, promotion: Promotion, signer: Signer | None = None) -> Entry:
        """Make bundle and threshold the champion, in one atomic step."""
        bundles = (promotion.bundle, *promotion.baselines.values())
        for bundle in bundles:
            self._need_bundle(bundle)
        digests = {bundle: self._digest(bundle) for bundle in bundles}
        entry = Entry(
            number=0,
            bundle=promotion.bundle,
            threshold=promotion.threshold,
            note=promotion.note,
            created="",
            baselines=dict(promotion.baselines),
            digests={**digests, **promotion.digests},
            threshold_sha256=hashlib.sha256(self.read_threshold(promotion.threshold)).hexdigest(),
        )
        return self._append(lambda _: entry, signer)

    def rollback(self, signer: Signer | None = None, trust: Trust | None = None) -> Entry:
        """Make the previous champion the champion again, if it is trusted."""

        def restore(entries: tuple[Entry, ...]) -> Entry:
            earlier = [entry for entry in entries if entry.champion != entries[-1].champion]
            if not earlier:
                raise Refusal(
                    f"the registry {self.store.uri} has no earlier champion to roll back to"
                )
            entry = earlier[-1]
            if trust:
                replace(trust, at_least=1).check(entry)
            self._need_bundle(entry.bundle)
            self.read_threshold(entry.threshold)
            return replace(entry, note="rolled back")

        return self._append(restore, signer)

    def _append(self, decide: Callable[[tuple[Entry, ...]], Entry], signer: Signer | None) -> Entry:
        """Write the next entry, numbered, dated and signed. A lost race is run again."""
        for _ in range(_TRIES):
            entries = self.list_entries()
            entry = replace(
                decide(entries),
                number=entries[-1].number + 1 if entries else 1,
                created=datetime.now(UTC).isoformat(timespec="microseconds"),
                signature=None,
            )
            if signer:
                signature = signer.key.sign(entry.statement(signer.watch))
                entry = replace(entry, signature=signature)
            if self.store.create(f"champions/{entry.number:05}.json", entry.to_bytes()):
                return entry
        raise Refusal(
            f"others changed the champion of {self.store.uri} {_TRIES} times in the meantime: "
            "look at its history, and try again"
        )

    def _read_entry(self, key: str) -> Entry:
        name = key.removeprefix("champions/").removesuffix(".json")
        return Entry.from_bytes(self.store.read(key), name, f"{self.store.uri}/{key}")

    def _digest(self, bundle: str) -> str:
        return hashlib.sha256(self.store.read(_bundle_key(bundle, _MANIFEST))).hexdigest()

    def _need_bundle(self, bundle: str) -> None:
        if not self.store.exists(_bundle_key(bundle, _MANIFEST)):
            there = ", ".join(self.list_bundles()) or "none"
            raise Refusal(
                f"bundle {bundle} is not in the registry {self.store.uri}; it has: {there}"
            )


def _bundle_key(bundle: str, name: str) -> str:
    return f"bundles/{_name(bundle)}/{_name(name)}"


def _threshold_key(threshold: str) -> str:
    return f"thresholds/{_name(threshold)}.json"


def _name(name: str) -> str:
    if "/" in check_key(name):
        raise Refusal(f"{name!r} is not a name: it holds a '/'")
    return name
