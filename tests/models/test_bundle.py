"""An opened bundle equals the one that was written, and anything else is refused."""

import contextlib
import copy
import functools
import hashlib
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.bundle import (
    CALIBRATION,
    DETECTOR,
    ENCODER,
    FILES,
    MANIFEST,
    Bundle,
    make_bundle,
    open_bundle,
    read_directory,
    write_directory,
)
from models.detectors.catalog import CATALOG
from models.encoding.encoder import Encoder
from models.refusal import Refusal
from models.scores.sketch import ScoreSketch
from models.scores.threshold import Calibration, Quantile, choose
from tests.models.flows import batch_of, fit, flows

Files = dict[str, bytes]
OPTIONS: dict[str, dict[str, Any]] = {
    "autoencoder": {"widths": [8], "latent": 3},
    "deep_svdd": {"widths": [8], "outputs": 3},
    "ensemble": {"members": [{"name": "knn", "sample_rows": 200}, {"name": "pca"}]},
    "gan": {"widths": [8], "latent": 3},
    "knn": {"sample_rows": 200},
    "isolation_forest": {"trees": 5, "rows_per_tree": 64},
    "pca": {"components": 5},
}


def trained(name: str) -> Bundle:
    """A bundle of a detector that saw 200 flows, without a full training."""
    table = flows()
    encoder = fit(table)
    torch.manual_seed(0)
    detector = CATALOG.build(name, encoder.layout, OPTIONS.get(name, {}))
    batch = encoder(encoder.extract(batch_of(table)))
    if detector.learns != "gradient":
        detector.fit(batch, seed=0)
    detector.eval()
    scores = ScoreSketch()
    scores.update(detector.score(batch).detach().numpy())
    metadata = {"spec": "00ff", "metrics": {"auroc": 0.9}, "history": [{"loss": 0.5}]}
    return make_bundle(encoder, detector, name, Calibration(scores), metadata)


def open_whole(files: Files) -> Bundle:
    """An opened bundle whose encoder and detector were built, too."""
    opened = open_bundle(files)
    assert opened.encoder
    assert opened.detector
    return opened


def scores_of(bundle: Bundle, encoder: Encoder) -> torch.Tensor:
    batch = encoder(encoder.extract(batch_of(flows(300, seed=8))))
    return bundle.detector.score(batch).detach()


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return trained("pca")


@pytest.fixture(scope="module")
def files(bundle: Bundle) -> Files:
    return bundle.files


def canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def forged(files: Files, change: Callable[[dict[str, Any]], None], **content: bytes) -> Files:
    """A bundle with other content and new hashes, as an attacker would make it."""
    renamed = {name.replace("_", "."): data for name, data in content.items()}
    document = json.loads(files[MANIFEST])
    for name, data in renamed.items():
        document["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    del document["checksum"]
    change(document)
    document["checksum"] = hashlib.sha256(canonical(document)).hexdigest()
    return {**files, **renamed, MANIFEST: canonical(document)}


def nothing(document: dict[str, Any]) -> None:
    del document


@pytest.mark.parametrize("name", sorted(CATALOG))
def test_an_opened_bundle_gives_the_scores_of_the_saved_one(name: str) -> None:
    if lacking := CATALOG[name].unfit(fit(flows()).layout):
        pytest.skip(f"flows are a table: {lacking}")
    saved = trained(name)
    opened = open_bundle(saved.files, expected=saved.id)
    assert torch.equal(scores_of(opened, opened.encoder), scores_of(saved, saved.encoder))
    assert not opened.detector.training
    assert opened.detector_name == name
    assert opened.options == saved.options
    assert opened.metadata == saved.metadata
    assert opened.severity == saved.severity
    assert choose(Quantile(0.1), opened.calibration) == choose(Quantile(0.1), saved.calibration)


def test_the_same_content_has_the_same_bytes_and_id(bundle: Bundle, files: Files) -> None:
    opened = open_bundle(files)
    assert opened.files == files
    again = make_bundle(opened.encoder, opened.detector, "pca", opened.calibration, opened.metadata)
    assert again.files == files
    assert opened.digest == bundle.digest == hashlib.sha256(files[MANIFEST]).hexdigest()
    assert opened.id == bundle.digest[:16]
    assert set(files) == set(FILES)


def test_a_bundle_travels_between_processes_as_its_files(files: Files) -> None:
    opened = open_whole(files)
    sent = copy.copy(opened)  # as pickle does it
    assert sent.files == files
    assert "detector" not in vars(sent)
    assert repr(opened).count("safetensors") == 0


def test_metadata_is_kept_and_names_the_versions(bundle: Bundle) -> None:
    assert bundle.metadata["metrics"] == {"auroc": 0.9}
    found = bundle.metadata["versions"]
    assert {"python", "torch", "numpy", "pyarrow", "scikit-learn"} <= set(found)
    assert found["numpy"] == np.__version__


def test_metadata_that_is_not_json_is_refused(bundle: Bundle) -> None:
    for bad in (float("nan"), {1, 2}, Path("x")):
        with pytest.raises(Refusal, match="expected JSON values in a bundle's metadata"):
            make_bundle(
                bundle.encoder, bundle.detector, "pca", bundle.calibration, {"metrics": bad}
            )


@given(st.sampled_from(FILES), st.integers(0, 1 << 30), st.integers(1, 255))
def test_any_changed_byte_is_refused(files: Files, name: str, place: int, change: int) -> None:
    data = bytearray(files[name])
    data[place % len(data)] ^= change
    with pytest.raises(Refusal):
        open_bundle({**files, name: bytes(data)})


@given(st.sampled_from(FILES), st.integers(0, 1 << 30))
def test_any_truncated_file_is_refused(files: Files, name: str, length: int) -> None:
    data = files[name]
    with pytest.raises(Refusal):
        open_bundle({**files, name: data[: length % len(data)]})


def test_a_tampered_file_is_named(files: Files) -> None:
    for name in (ENCODER, DETECTOR, CALIBRATION):
        data = files[name]
        with pytest.raises(Refusal, match=f"{name} was changed or damaged since"):
            open_bundle({**files, name: data[:-1] + bytes([data[-1] ^ 1])})
        expected = f"expected {name} of {len(data):,} bytes; found {len(data) - 1:,}: it is trunc"
        with pytest.raises(Refusal, match=expected):
            open_bundle({**files, name: data[:-1]})
    with pytest.raises(Refusal, match=r"bundle.json to be JSON; it is damaged or truncated"):
        open_bundle({**files, MANIFEST: files[MANIFEST][:-1]})
    changed = files[MANIFEST].replace(b'"auroc":0.9', b'"auroc":1.0')
    with pytest.raises(Refusal, match=r"bundle.json was changed or damaged since"):
        open_bundle({**files, MANIFEST: changed})


def test_a_bundle_with_another_layout_of_the_same_json_is_refused(files: Files) -> None:
    with pytest.raises(Refusal, match=r"bundle.json was changed or damaged since"):
        open_bundle({**files, MANIFEST: files[MANIFEST] + b"\n"})


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(files: Files, name: str) -> None:
    with pytest.raises(Refusal, match=f"exactly .*; found one without {name}: copy"):
        open_bundle({other: data for other, data in files.items() if other != name})


def test_an_extra_file_is_refused(files: Files) -> None:
    with pytest.raises(Refusal, match=r"found one with 'detector.pkl': copy"):
        open_bundle({**files, "detector.pkl": b""})


@pytest.mark.parametrize("name", ["../bundle.json", "/bundle.json", "a\\b", ".."])
def test_a_name_with_a_path_is_refused(files: Files, tmp_path: Path, name: str) -> None:
    for use in (open_bundle, lambda some: write_directory(tmp_path / "new", some)):
        with pytest.raises(Refusal, match="expected file names without a path"):
            use({**files, name: b""})


def test_a_bundle_other_than_the_wanted_one_is_refused(bundle: Bundle, files: Files) -> None:
    assert open_bundle(files, expected=bundle.digest).id == bundle.id
    for wanted in ("0" * 16, "", bundle.id[:8]):
        with pytest.raises(Refusal, match=f"expected the bundle {wanted}; found {bundle.id}"):
            open_bundle(files, expected=wanted)
    other = forged(files, lambda document: document["metadata"].update(spec="other"))
    assert open_bundle(other).metadata["spec"] == "other"
    with pytest.raises(Refusal, match="fetch it again"):
        open_bundle(other, expected=bundle.id)


def test_a_newer_format_says_to_upgrade(files: Files) -> None:
    newer = forged(files, lambda document: document.update(format=2))
    with pytest.raises(Refusal, match=r"format 1 or older; found format 2, .*: upgrade Anomaray"):
        open_bundle(newer)
    for found in ("1", True, None, 1.0):
        bad = forged(files, lambda document, found=found: document.update(format=found))  # type: ignore[misc]
        with pytest.raises(Refusal, match="a format version; found none: this is not a bundle"):
            open_bundle(bad)
    with pytest.raises(Refusal, match="a part of it is missing or misshapen"):
        open_bundle(forged(files, lambda document: document.update(format=0)))


@pytest.mark.parametrize("part", ["files", "detector", "encoder", "metadata"])
@pytest.mark.parametrize("value", [None, [], {}, "text"])
def test_a_misshapen_part_is_refused(files: Files, part: str, value: Any) -> None:
    if (part, value) == ("metadata", {}):
        return  # metadata may be empty
    with pytest.raises(Refusal):
        open_whole(forged(files, lambda document: document.update({part: value})))


def test_an_oversized_header_is_refused_before_it_is_parsed(files: Files) -> None:
    tensors = {f"{'x' * 900}{i}": torch.zeros(1) for i in range(1_200)}
    huge = safetensors.torch.save(tensors)
    for name in ("encoder_safetensors", "detector_safetensors"):
        with pytest.raises(Refusal, match=r"a header of at most 1,048,576 bytes in .*; found 1,1"):
            open_bundle(forged(files, nothing, **{name: huge}))
    with pytest.raises(Refusal, match="a header of at most 1,048,576 bytes"):
        open_bundle(forged(files, nothing, detector_safetensors=b"\xff" * 8 + b"{}"))


@pytest.mark.parametrize("data", [b"", b"\x02\0\0", b"\x09\0\0\0\0\0\0\0{}"])
def test_a_header_longer_than_its_file_is_refused(files: Files, data: bytes) -> None:
    with pytest.raises(Refusal, match=r"detector.safetensors to hold its header; it ends before"):
        open_bundle(forged(files, nothing, detector_safetensors=data))


def test_rubbish_with_valid_hashes_is_refused(files: Files) -> None:
    with pytest.raises(Refusal, match=r"to be safetensors; it cannot be read"):
        open_whole(forged(files, nothing, encoder_safetensors=b"\x02\0\0\0\0\0\0\0[]"))
    with pytest.raises(Refusal, match="expected a calibration with the fields"):
        open_whole(forged(files, nothing, calibration_json=b"{}"))
    with pytest.raises(Refusal, match=r"expected an encoder in bundle.json; it cannot be read"):
        open_whole(forged(files, lambda document: document.update(encoder={"sources": 1})))
    with pytest.raises(Refusal, match="unknown detector 'pcaa'; did you mean 'pca'"):
        open_whole(forged(files, lambda document: document["detector"].update(name="pcaa")))


def test_tensors_of_another_detector_are_refused(files: Files) -> None:
    other = trained("isolation_forest").files[DETECTOR]
    with pytest.raises(Refusal, match="expected the state of a PCA with"):
        open_whole(forged(files, nothing, detector_safetensors=other))
    fewer = safetensors.torch.load(files[DETECTOR])
    del fewer["mean"]
    with pytest.raises(Refusal, match="expected the state of a PCA with"):
        open_whole(forged(files, nothing, detector_safetensors=safetensors.torch.save(fewer)))


def set_option(name: str, value: Any, document: dict[str, Any]) -> None:
    document["detector"]["options"][name] = value


@pytest.mark.parametrize("name", sorted(CATALOG))
def test_an_option_that_asks_for_other_tensors_is_refused_before_memory_is_taken(name: str) -> None:
    if lacking := CATALOG[name].unfit(fit(flows()).layout):
        pytest.skip(f"flows are a table: {lacking}")
    saved = trained(name)
    whole = saved.files
    for option, value in saved.options.items():
        if type(value) is not int and not isinstance(value, list | tuple):
            continue
        for huge in (10**9, 10**30) if type(value) is int else ([10**9] * 3, [10**30]):
            ask = functools.partial(set_option, option, huge)
            changed = forged(whole, ask)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            with contextlib.suppress(Refusal):  # some options shape no tensor
                open_whole(changed)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert grown < 100_000, f"{option}={huge}: {grown:,} kB"


def list_leaves(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of each value of a JSON document that is neither an object nor a list."""
    if not isinstance(value, dict | list):
        return [path]
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [leaf for key, one in items for leaf in list_leaves(one, (*path, key))]


HOSTILE: tuple[Any, ...] = (
    *(0, -1, 10**9, 2**63, 10**400, 1e308, True, None, "", "x", "\ud800", [], {}, [[]], {"a": 1}),
)


@given(st.data())
def test_any_value_of_a_forged_document_is_accepted_or_refused(files: Files, data: Any) -> None:
    """Never another error: the one who forges a bundle makes its hashes too."""
    name = data.draw(st.sampled_from((MANIFEST, CALIBRATION)))
    document = json.loads(files[name])
    document.pop("checksum", None)
    path = data.draw(st.sampled_from(list_leaves(document)))
    value = data.draw(st.sampled_from(HOSTILE))

    def change(given: dict[str, Any]) -> None:
        place: Any = given
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    if name == MANIFEST:
        changed = forged(files, change)
    else:
        change(document)
        changed = forged(files, nothing, calibration_json=canonical(document))
    with contextlib.suppress(Refusal):
        open_whole(changed)


def test_deep_or_huge_json_is_refused(files: Files) -> None:
    with pytest.raises(Refusal, match="it is damaged or truncated"):
        open_bundle({**files, MANIFEST: b"[" * 200_000})
    with pytest.raises(Refusal, match=r"bundle.json of at most 16,777,216 bytes; found"):
        open_bundle({**files, MANIFEST: b" " * ((16 << 20) + 1)})


def test_a_folder_gives_back_the_files_that_were_written(files: Files, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "bundle"
    write_directory(folder, files)
    assert read_directory(folder) == files
    assert [entry.name for entry in folder.parent.iterdir()] == ["bundle"]
    with pytest.raises(Refusal, match="exists: name another"):
        write_directory(folder, files)
    assert read_directory(folder) == files


def test_a_folder_that_cannot_be_written_completely_leaves_nothing(
    files: Files, tmp_path: Path
) -> None:
    broken: dict[str, Any] = {**files, CALIBRATION: "not bytes"}
    with pytest.raises(TypeError):
        write_directory(tmp_path / "bundle", broken)
    assert list(tmp_path.iterdir()) == []


def link_file(folder: Path) -> None:
    (folder / DETECTOR).rename(folder.parent / DETECTOR)
    (folder / DETECTOR).symlink_to(folder.parent / DETECTOR)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (link_file, "only plain files in a bundle; 'detector.safetensors' is not"),
        (lambda folder: (folder / "more").mkdir(), "only plain files in a bundle; 'more' is not"),
        (lambda folder: os.mkfifo(folder / "pipe"), "only plain files in a bundle; 'pipe' is not"),
        (lambda folder: (folder / "run.py").touch(), "found one with 'run.py'"),
        (lambda folder: (folder / ENCODER).unlink(), "found one without encoder.safetensors"),
    ],
)
def test_a_folder_with_anything_else_is_refused(
    files: Files, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    folder = tmp_path / "bundle"
    write_directory(folder, files)
    spoil(folder)
    with pytest.raises(Refusal, match=message):
        read_directory(folder)


def test_a_linked_or_missing_folder_is_refused(files: Files, tmp_path: Path) -> None:
    write_directory(tmp_path / "bundle", files)
    (tmp_path / "link").symlink_to(tmp_path / "bundle")
    with pytest.raises(Refusal, match="is a symbolic link: name its target"):
        read_directory(tmp_path / "link")
    with pytest.raises(Refusal, match="expected a bundle's folder; found none at"):
        read_directory(tmp_path / "absent")
    with pytest.raises(Refusal, match="exists: name another"):
        write_directory(tmp_path / "link", files)


def test_huge_json_in_a_folder_is_refused_unread(files: Files, tmp_path: Path) -> None:
    write_directory(tmp_path / "bundle", files)
    with (tmp_path / "bundle" / CALIBRATION).open("r+b") as file:
        file.truncate(1 << 40)  # a sparse file: a terabyte that takes no space
    with pytest.raises(Refusal, match=r"calibration.json of at most 16,777,216 bytes; found 1,099"):
        read_directory(tmp_path / "bundle")
