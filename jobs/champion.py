"""The champion of a watch, used only if it is what was promoted, by whom the spec trusts."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.lake.output.table import LakeTable
from cluster.lake.registry.registry import Entry, Registry, Signer, Trust
from cluster.lake.registry.signatures import load_key
from jobs.spec.spec import Spec
from models.bundle import Bundle, open_bundle
from models.refusal import Refusal
from models.scores.threshold import Threshold


@dataclass(frozen=True)
class Champion:
    """An entry of the registry with what it names, verified."""

    entry: Entry
    bundle: Bundle
    threshold: Threshold


def load_champion(spec: Spec, registry: Registry) -> Champion:
    """The champion in force.

    Raises `Refusal` where there is none, where bundle or threshold are not the ones that were
    promoted, and where the spec demands a signature that is missing or wrong.
    """
    entry = registry.require_champion()
    trusted_signers(spec).check(entry)
    expected = entry.digests.get(entry.bundle, entry.bundle)
    bundle = open_bundle(registry.read_bundle(entry.bundle), expected)
    return Champion(entry, bundle, _threshold(entry, registry))


def trusted_signers(spec: Spec) -> Trust:
    """Whose champions the spec lets in."""
    policy = spec.bundle
    return Trust(spec.name, policy.keys if policy.signed == "required" else (), policy.at_least)


def require_newest(spec: Spec, entry: Entry, table: LakeTable) -> None:
    """Refuse a champion that is older than one whose flags were committed, where champions are
    signed: who can write to the registry alone cannot put an earlier one back by deleting the
    later."""
    if spec.bundle.signed == "required":
        used = max((int(commit.get("champion", 0)) for commit in table.history()), default=0)
        replace(trusted_signers(spec), at_least=used).check(entry)


def load_signer(spec: Spec, key_file: Path | None) -> Signer | None:
    """What signs the next champion; None where there is no key, and none is asked for.

    Raises `Refusal`, before any work is done, for a champion that could not be used afterwards.
    """
    required = spec.bundle.signed == "required"
    if key_file is None:
        if required:
            raise Refusal(
                f"{spec.where('bundle', 'signed')}: a champion must be signed, and there is no key "
                "to sign with: pass --sign-with KEYFILE (made by `python -m jobs keys`)"
            )
        return None
    signer = Signer(spec.name, load_key(key_file))
    if required and signer.key.public not in spec.bundle.keys:
        raise Refusal(
            f"{spec.where('bundle', 'keys')}: expected a key of the spec to sign with, found "
            f"{signer.key.public} in {key_file}: add it to bundle.keys, or use another"
        )
    return signer


def _threshold(entry: Entry, registry: Registry) -> Threshold:
    data = registry.read_threshold(entry.threshold)
    threshold = Threshold.from_json(data)
    digest = hashlib.sha256(data).hexdigest()
    if threshold.id != entry.threshold or entry.threshold_sha256 not in ("", digest):
        raise Refusal(
            f"threshold {entry.threshold} of champion {entry.number} was changed since it was "
            "promoted: promote a bundle anew (`python -m jobs promote`)"
        )
    return threshold
