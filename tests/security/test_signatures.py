"""A spec that demands signed champions accepts only what the right key signed."""

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner

from cluster.lake.output.schemas import QUARANTINE_SCHEMA
from cluster.lake.output.table import Commit, LakeTable
from cluster.lake.registry.registry import Promotion, Registry
from cluster.lake.registry.signatures import load_key, make_key
from cluster.lake.storage.opening import open_store
from jobs import registry, threshold
from jobs.champion import load_champion, load_signer, require_newest
from jobs.cli.app import app
from jobs.spec.sections import QuantileThreshold
from jobs.spec.source import SpecRefused
from jobs.spec.spec import Spec, load
from models.bundle import Bundle
from models.refusal import Refusal
from models.scores.threshold import Quantile, Threshold
from tests.models.test_bundle import trained
from tests.security import hostile


class Watch:
    """A watch with a registry and two bundles, and a key that its spec trusts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key_file = folder / "signing.pem"
        self.key = make_key(self.key_file)
        self.registry = Registry(open_store(str(folder / "out" / "registry")))
        self.first, self.second = self.add("pca"), self.add("isolation_forest")

    def add(self, detector: str) -> Bundle:
        bundle = trained(detector)
        self.registry.add_bundle(bundle.files)
        return bundle

    def spec(self, **policy: Any) -> Spec:
        policy = {"signed": "required", "keys": [self.key.public], **policy}
        document = hostile.spec(self.folder, policy)
        path = self.folder / "watch.yaml"
        path.write_text(yaml.safe_dump(document))
        return load(path)

    def promote(self, bundle: Bundle, key_file: Path | None = None) -> None:
        registry.promote(self.spec(), bundle.id, sign_with=key_file or self.key_file)

    def change(self, number: int, change: Callable[[dict[str, Any]], None]) -> None:
        """Change an entry, as whoever can write to the registry may."""
        path = self.folder / "out" / "registry" / "champions" / f"{number:05}.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    def open(self, **policy: Any) -> str:
        return load_champion(self.spec(**policy), self.registry).bundle.id

    def refusal(self, **policy: Any) -> str:
        with pytest.raises(Refusal) as told:
            self.open(**policy)
        return str(told.value)


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    return Watch(tmp_path)


def test_a_champion_signed_by_the_right_key_is_accepted(watch: Watch) -> None:
    watch.promote(watch.first)
    watch.promote(watch.second)
    assert watch.open() == watch.second.id
    registry.rollback(watch.spec(), sign_with=watch.key_file)
    assert watch.open() == watch.first.id
    looser = QuantileThreshold(policy="quantile", contamination=0.2)
    spec = watch.spec().model_copy(update={"threshold": looser})
    assert threshold.change_threshold(spec, sign_with=watch.key_file)["promoted"]
    assert load_champion(spec, watch.registry).entry.number == 4
    assert not threshold.change_threshold(spec, sign_with=watch.key_file)["promoted"]
    assert load_champion(spec, watch.registry).entry.number == 4, "what is signed is as it was"


def test_a_champion_without_a_signature_is_refused_where_one_is_demanded(watch: Watch) -> None:
    chosen = Threshold.choose(Quantile(0.1), watch.first.calibration, watch.first.id)
    watch.registry.add_threshold(chosen.to_json())
    watch.registry.promote(Promotion(watch.first.id, chosen.id))
    assert "champion 1 is not signed; the spec demands one that is" in watch.refusal()
    assert watch.open(signed="optional") == watch.first.id


def test_another_key_is_refused_before_and_after(watch: Watch) -> None:
    other = make_key(watch.folder / "other.pem")
    with pytest.raises(Refusal, match=r"expected a key that the spec lists, found ed25519:"):
        watch.promote(watch.first, watch.folder / "other.pem")
    watch.promote(watch.first)
    assert f"is signed with the key {watch.key.public}, which the spec does not" in watch.refusal(
        keys=[other.public]
    )
    assert watch.open(keys=[other.public, watch.key.public]) == watch.first.id  # while keys change


def test_no_key_to_sign_with_is_refused_before_any_work(watch: Watch) -> None:
    with pytest.raises(Refusal, match=r"watch\.yaml:\d+: champions must be signed .*--sign-with"):
        load_signer(watch.spec(), None)


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry.update(note="trained by me"),
        lambda entry: entry.update(created="2030-01-01T00:00:00+00:00"),
        lambda entry: entry.update(baselines={"pca": entry["bundle"]}),
        lambda entry: entry.update(threshold_sha256="0" * 64),
        lambda entry: entry["digests"].update({entry["bundle"]: "0" * 64}),
        lambda entry: entry["signature"].update(value=entry["signature"]["value"][:-4] + "AAA="),
        lambda entry: entry["signature"].update(value="no base64"),
        lambda entry: entry["signature"].update(value=""),
    ],
    ids=range(8),
)
def test_a_changed_entry_is_refused(change: Callable[[dict[str, Any]], None], watch: Watch) -> None:
    watch.promote(watch.first)
    watch.change(1, change)
    assert "champion 1 does not match its signature" in watch.refusal()


@pytest.mark.parametrize("signature", [None, [], "ed25519:", {}, {"key": "none"}])
def test_an_invalid_signature_is_refused(signature: object, watch: Watch) -> None:
    watch.promote(watch.first)
    watch.change(1, lambda entry: entry.update(signature=signature))
    assert "the spec demands one that is signed" in watch.refusal()


@pytest.mark.parametrize("name", ["bundle.json", "detector.safetensors", "calibration.json"])
def test_a_changed_byte_of_a_signed_bundle_is_refused(name: str, watch: Watch) -> None:
    watch.promote(watch.first)
    path = watch.folder / "out" / "registry" / "bundles" / watch.first.id / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(Refusal):
        watch.open()


def test_another_bundle_in_the_place_of_a_signed_one_is_refused(watch: Watch) -> None:
    watch.promote(watch.first)
    watch.change(1, lambda entry: entry.update(bundle=watch.second.id))
    assert "champion 1 does not match its signature" in watch.refusal()
    folder = watch.folder / "out" / "registry" / "bundles"
    for name, data in watch.second.files.items():  # its files under the first one's id
        (folder / watch.first.id / name).write_bytes(data)
    watch.change(1, lambda entry: entry.update(bundle=watch.first.id))
    assert f"expected the bundle {watch.first.digest}" in watch.refusal()


def test_a_changed_threshold_is_refused_signed_or_not(watch: Watch) -> None:
    watch.promote(watch.first)
    (path,) = (watch.folder / "out" / "registry" / "thresholds").iterdir()
    document = json.loads(path.read_text())
    document["value"] = 1e9  # so high that nothing would be flagged
    path.write_text(json.dumps(document, sort_keys=True, separators=(",", ":")))
    assert "threshold" in watch.refusal()
    assert "has changed since its promotion" in watch.refusal(signed="optional")


def test_an_earlier_entry_cannot_stand_in_for_a_later_one(watch: Watch) -> None:
    watch.promote(watch.first)
    watch.promote(watch.second)
    champions = watch.folder / "out" / "registry" / "champions"
    (champions / "00003.json").write_bytes((champions / "00001.json").read_bytes())
    assert "champion 3 does not match its signature" in watch.refusal()


def test_an_earlier_entry_under_another_name_of_its_number_is_refused(watch: Watch) -> None:
    watch.promote(watch.first)
    watch.promote(watch.second)
    champions = watch.folder / "out" / "registry" / "champions"
    (champions / "1.json").write_bytes((champions / "00001.json").read_bytes())
    assert "champions/1.json is no file of the registry" in watch.refusal()
    assert "champions/1.json is no file of the registry" in watch.refusal(signed="optional")


def test_the_champion_of_another_watch_is_refused(watch: Watch) -> None:
    watch.promote(watch.first)
    spec = watch.spec().model_copy(update={"name": "another"})
    with pytest.raises(Refusal, match="entry of another watch"):
        load_champion(spec, watch.registry)


def test_a_rollback_signs_nothing_that_was_not_signed(watch: Watch) -> None:
    watch.promote(watch.first)
    watch.promote(watch.second)
    watch.change(1, lambda entry: entry.update(signature=None))
    with pytest.raises(Refusal, match="champion 1 is not signed"):
        registry.rollback(watch.spec(), sign_with=watch.key_file)


def test_a_spec_can_name_the_oldest_champion_that_it_accepts(watch: Watch) -> None:
    watch.promote(watch.first)
    assert "champion 1 is older than one that was used before: expected 2" in watch.refusal(
        at_least=2
    )


def test_an_earlier_champion_is_refused_once_flags_of_a_later_one_are_committed(
    watch: Watch,
) -> None:
    watch.promote(watch.first)
    entry = load_champion(watch.spec(), watch.registry).entry
    table = LakeTable(open_store(str(watch.folder / "flags")), QUARANTINE_SCHEMA, "flags")
    require_newest(watch.spec(), entry, table)
    table.commit(Commit("2026-01-01", "run-1", "digest", {"champion": "2"}), [], None)
    table.commit(Commit("2026-01-02", "run-2", "digest"), [], None)
    with pytest.raises(Refusal, match=r"champion 1 is older .* expected 2 or later"):
        require_newest(watch.spec(), entry, table)
    require_newest(watch.spec(signed="optional"), entry, table)


def test_a_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    made = CliRunner().invoke(app, ["keys", str(path)])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert made.stdout.strip() == load_key(path).public
    assert "PRIVATE" not in made.output
    assert isinstance(again := CliRunner().invoke(app, ["keys", str(path)]).exception, Refusal)
    assert "a key is never overwritten" in str(again)


def test_a_key_that_others_may_use_is_refused(tmp_path: Path) -> None:
    make_key(tmp_path / "key.pem")
    for mode in (0o604, 0o602, 0o620, 0o666):
        (tmp_path / "key.pem").chmod(mode)
        with pytest.raises(Refusal, match=f"others may use it \\(mode {mode:04o}\\)"):
            load_key(tmp_path / "key.pem")


def test_another_kind_of_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    other = generate_private_key(SECP256R1())
    path.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    with pytest.raises(Refusal, match="expected an Ed25519 key, found another kind"):
        load_key(path)
    path.write_text("no key")
    with pytest.raises(Refusal, match="expected an Ed25519 key without a password"):
        load_key(path)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"keys": []}, "bundle.keys: expected the public keys of those who may sign"),
        ({"keys": ["rsa:AAAA"]}, "expected ed25519:"),
        ({"keys": ["ed25519:AAAA"]}, "expected ed25519:"),
        ({"signed": "sometimes"}, "bundle.signed"),
        ({"at_least": 0}, "bundle.at_least"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(
    policy: dict[str, Any], message: str, watch: Watch
) -> None:
    with pytest.raises(SpecRefused, match=message):
        watch.spec(**policy)


def test_a_key_shows_nothing_of_itself(watch: Watch) -> None:
    assert repr(watch.key) == "SigningKey()"
    assert "PRIVATE" not in str(vars(watch.key))
