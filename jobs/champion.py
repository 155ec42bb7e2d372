"""The champion of a watch: loaded only if it is unchanged and signed as the spec demands."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.lake.output.schemas import REGISTRY
from cluster.lake.output.table import LakeTable
from cluster.lake.registry.registry import Entry, Registry, Signer, Trust
from cluster.lake.registry.signatures import load_key
from jobs.output import open_output
from jobs.spec.spec import Spec
from models.bundle import Bundle, open_bundle
from models.refusal import Refusal
from models.scores.threshold import Threshold


@dataclass(frozen=True)
class Champion:
    """An entry of the registry with its bundle and threshold, both verified."""

    entry: Entry
    bundle: Bundle
    threshold: Threshold


def open_registry(spec: Spec) -> Registry:
    """The registry of the watch."""
    return Registry(open_output(spec).child(REGISTRY))


def load_champion(
    spec: Spec, registry: Registry, known: Champion | None = None, number: int | None = None
) -> Champion:
    """Load the current champion, or an earlier one by the number of its entry. Where it is `known`,
    its files are not read again.

    Raises `Refusal` if there is none, if its bundle or threshold has changed since the promotion,
    or if a signature that the spec demands is missing or wrong.
    """
    entry = registry.require_champion() if number is None else registry.read_entry(number)
    trusted_signers(spec).check(entry)
    if known is not None and known.entry == entry:
        return known
    expected = entry.digests.get(entry.bundle, entry.bundle)
    bundle = open_bundle(registry.read_bundle(entry.bundle), expected)
    return Champion(entry, bundle, _load_threshold(entry, registry))


def trusted_signers(spec: Spec) -> Trust:
    """The signers whose champions the spec accepts; anyone, unless it demands signatures."""
    policy = spec.bundle
    return Trust(spec.name, policy.keys if policy.signed == "required" else (), policy.at_least)


def require_newest(spec: Spec, entry: Entry, table: LakeTable) -> None:
    """Raise `Refusal` for a signed champion that is older than one that has committed flags.

    So nobody can bring back an old champion by deleting newer entries from the registry.
    """
    if spec.bundle.signed == "required":
        facts = [logged.commit.facts for logged in table.read_commits()]
        used = max((int(one.get("champion", 0)) for one in facts), default=0)
        replace(trusted_signers(spec), at_least=used).check(entry)


def load_signer(spec: Spec, key_file: Path | None) -> Signer | None:
    """Load the signer of the next champion; None without a key file if the spec demands none.

    Raises `Refusal`, before any work, if the spec would not accept the champion afterwards.
    """
    required = spec.bundle.signed == "required"
    if key_file is None:
        if required:
            raise Refusal(
                f"{spec.where('bundle', 'signed')}: champions must be signed and no key was "
                "given: pass --sign-with KEYFILE (made by the verb `keys`)"
            )
        return None
    signer = Signer(spec.name, load_key(key_file))
    if required and signer.key.public not in spec.bundle.keys:
        raise Refusal(
            f"{spec.where('bundle', 'keys')}: expected a key that the spec lists, found "
            f"{signer.key.public} in {key_file}: add it to bundle.keys, or use another key"
        )
    return signer


def _load_threshold(entry: Entry, registry: Registry) -> Threshold:
    data = registry.read_threshold(entry.threshold)
    threshold = Threshold.from_json(data)
    digest = hashlib.sha256(data).hexdigest()
    if threshold.id != entry.threshold or entry.threshold_sha256 not in ("", digest):
        raise Refusal(
            f"threshold {entry.threshold} of champion {entry.number} has changed since its "
            "promotion: restore it, or remove it and promote a bundle again"
        )
    return threshold
