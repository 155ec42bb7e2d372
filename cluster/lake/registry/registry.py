"""The bundles and thresholds of a watch, and which of them is the champion.

The champion is the highest of the numbered entries in `champions/`. An entry is written once and
never changed, so a change of the champion is one create-once write, and its history is kept. What
it names, and may have signed, is never changed either: bundles and thresholds lie under the digest
of their content.
"""

import hashlib
import re
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
# The only names that stand for a number and for a bundle: `champions/1.json` beside `00001.json`
# would be a second first champion.
_ENTRY = re.compile(r"champions/([0-9]{5,9})\.json")
_BUNDLE = re.compile(r"[0-9a-f]{16}")
# The largest detector that was measured has 60 MB; a worker must hold the bundle in memory.
_MOST_BUNDLE_BYTES = 4 << 30
_MOST_MANIFEST_BYTES = 16 << 20  # as in models/bundle.py
_MOST_FILES = 8
# An entry has about 1 kB, a threshold 300 bytes; ten baselines and a long note fit.
_MOST_BYTES = 64 * 1024
# A champion a night for a century.
_MOST_ENTRIES = 40_000


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
    def from_bytes(cls, data: bytes, number: int, where: str) -> "Entry":
        """The entry of `to_bytes` with this number. Raises `Refusal` for other data."""
        document = canonical_json.decode(data, where)
        signature = Signature.from_document(document.pop("signature", None))
        if {name: _shape(value) for name, value in document.items()} != _ENTRY_SHAPE:
            raise Refusal(
                f"{where}: expected an entry of the registry, found other fields; restore the "
                "file, or remove it and promote a bundle"
            )
        return cls(number=number, signature=signature, **document)


def _shape(value: Any) -> str:
    """What kind of value an entry's field is: a text, texts by name, or another."""
    if isinstance(value, dict):
        texts = all(isinstance(one, str) for one in value.values())
        return "texts" if texts else "other"
    return "text" if isinstance(value, str) else "other"


_ENTRY_SHAPE = {
    **dict.fromkeys(("bundle", "threshold", "note", "created", "threshold_sha256"), "text"),
    **dict.fromkeys(("baselines", "digests"), "texts"),
}


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
            self._keep(_bundle_key(bundle, name), files[name])
        return bundle

    def read_bundle(self, bundle: str) -> dict[str, bytes]:
        """The files of a bundle by name, for `models.bundle.open_bundle`."""
        self._need_bundle(bundle)
        folder = f"bundles/{_name(bundle)}"
        found = self.store.list(folder)
        size = sum(one.size for one in found)
        if len(found) > _MOST_FILES or size > _MOST_BUNDLE_BYTES:
            raise Refusal(
                f"{self.store.uri}/{folder}: expected a bundle of at most {_MOST_FILES} files and "
                f"{_MOST_BUNDLE_BYTES:,} bytes, found {len(found):,} files of {size:,} bytes; "
                "copy the bundle again"
            )
        return {
            one.key.removeprefix(f"{folder}/"): self.store.read(one.key, one.size) for one in found
        }

    def list_bundles(self) -> tuple[str, ...]:
        """The ids of all complete bundles. Raises `Refusal` for any other name beside them."""
        keys = [found.key.split("/") for found in self.store.list("bundles")]
        for parts in keys:
            if len(parts) != 3 or not _BUNDLE.fullmatch(parts[1]):
                raise self._foreign("/".join(parts), "bundles/ID/FILE, as `train` writes them")
        return tuple(sorted(parts[1] for parts in keys if parts[2] == _MANIFEST))

    def find_bundle(self, beginning: str) -> str:
        """The one bundle whose id begins so. Raises `Refusal` for none, and for several with their
        ids."""
        there = self.list_bundles()
        found = [bundle for bundle in there if bundle.startswith(beginning)]
        if not found:
            raise self._unknown(beginning, there)
        if len(found) > 1:
            raise Refusal(
                f"bundle {beginning}: expected the beginning of one id, found that of "
                f"{len(found)}: {', '.join(found)}; give more of it"
            )
        return found[0]

    def add_threshold(self, document: bytes) -> str:
        """Store the JSON of a threshold. Returns its id."""
        threshold = hashlib.sha256(document).hexdigest()[:16]
        self._keep(_threshold_key(threshold), document)
        return threshold

    def read_threshold(self, threshold: str) -> bytes:
        """The JSON of a threshold. Raises `Refusal` for one that is not there."""
        try:
            return self.store.read(_threshold_key(threshold), _MOST_BYTES)
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

    def read_entry(self, number: int) -> Entry:
        """The entry of a champion by its number. Raises `Refusal` where it is gone."""
        for entry in self.list_entries():
            if entry.number == number:
                return entry
        raise Refusal(f"the registry {self.store.uri} has no entry of champion {number} any more")

    def list_entries(self) -> tuple[Entry, ...]:
        """All entries, oldest first. Raises `Refusal` for any other file beside them."""
        keys = [found.key for found in self.store.list("champions")]
        if len(keys) > _MOST_ENTRIES:
            raise Refusal(
                f"{self.store.uri}/champions: expected at most {_MOST_ENTRIES:,} entries, found "
                f"{len(keys):,}; name another output"
            )
        numbers = {self._number(key): key for key in keys}
        return tuple(self._read_entry(numbers[number], number) for number in sorted(numbers))

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

    def _keep(self, key: str, data: bytes) -> None:
        """Write an object once. `Refusal` where other bytes are there, which are left as they are.

        The object may be there from an earlier run, or from one that was killed.
        """
        if self.store.create(key, data) or self.store.read(key, _MOST_BUNDLE_BYTES) == data:
            return
        raise Refusal(
            f"{self.store.uri}/{key}: expected the {len(data):,} bytes that its name stands for, "
            "found others; it was changed or damaged since it was written, and is left as it is: "
            "restore it, or remove it and run again"
        )

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
            if self.store.create(_entry_key(entry.number), entry.to_bytes()):
                return entry
        raise Refusal(
            f"others changed the champion of {self.store.uri} {_TRIES} times in the meantime: "
            "look at its history, and try again"
        )

    def _number(self, key: str) -> int:
        """The number in the key of an entry, which has one canonical name."""
        found = _ENTRY.fullmatch(key)
        number = int(found[1]) if found else 0
        if number < 1 or key != _entry_key(number):
            raise self._foreign(key, "champions/NUMBER.json with five digits, from 00001")
        return number

    def _foreign(self, key: str, expected: str) -> Refusal:
        return Refusal(
            f"{self.store.uri}/{key} is no file of the registry: expected {expected}; find out "
            "who put it there, and remove it"
        )

    def _read_entry(self, key: str, number: int) -> Entry:
        return Entry.from_bytes(
            self.store.read(key, _MOST_BYTES), number, f"{self.store.uri}/{key}"
        )

    def _digest(self, bundle: str) -> str:
        return hashlib.sha256(
            self.store.read(_bundle_key(bundle, _MANIFEST), _MOST_MANIFEST_BYTES)
        ).hexdigest()

    def _need_bundle(self, bundle: str) -> None:
        if not self.store.exists(_bundle_key(bundle, _MANIFEST)):
            raise self._unknown(bundle, self.list_bundles())

    def _unknown(self, bundle: str, there: tuple[str, ...]) -> Refusal:
        names = ", ".join(there) or "none"
        return Refusal(f"bundle {bundle} is not in the registry {self.store.uri}; it has: {names}")


def _entry_key(number: int) -> str:
    return f"champions/{number:05}.json"


def _bundle_key(bundle: str, name: str) -> str:
    return f"bundles/{_name(bundle)}/{_name(name)}"


def _threshold_key(threshold: str) -> str:
    return f"thresholds/{_name(threshold)}.json"


def _name(name: str) -> str:
    if "/" in check_key(name):
        raise Refusal(f"{name!r} is not a name: it holds a '/'")
    return name
