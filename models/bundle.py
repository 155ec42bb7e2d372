"""A trained detector on disk: four files, which are verified before any is used. Never pickle."""

import hashlib
import json
import os
import platform
import stat
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from models import canonical_json
from models.detectors.catalog import CATALOG
from models.detectors.detector import Detector
from models.detectors.plugins import Package
from models.detectors.rebuilding import rebuild
from models.encoding.encoder import Encoder
from models.refusal import Refusal
from models.scores.severity import Severity
from models.scores.threshold import Calibration

# Goes up when an older version would misread the files.
FORMAT = 1

MANIFEST = "bundle.json"
ENCODER = "encoder.safetensors"
DETECTOR = "detector.safetensors"
CALIBRATION = "calibration.json"
CONTENT = (ENCODER, DETECTOR, CALIBRATION)
FILES = (MANIFEST, *CONTENT)

# A header takes about 100 bytes per tensor, so 10,000 tensors fit. The format allows headers of
# 100 MB, which would keep the parser of a hostile file busy.
MAX_HEADER_BYTES = 1 << 20

# Vocabularies and the losses of a training take tens of kilobytes.
MAX_JSON_BYTES = 16 << 20

LIBRARIES = ("torch", "numpy", "pyarrow", "scikit-learn", "safetensors", "datasketches")


@dataclass(frozen=True, eq=False)
class Bundle:
    """A trained detector with everything that scoring needs except the threshold.

    `metadata` holds JSON values: digests of the spec and of the training snapshots, days, metrics
    and losses. The key "versions" is added if it is missing.

    >>> from pyarrow import record_batch
    >>> from models.columns import Numeric
    >>> from models.detectors.catalog import CATALOG
    >>> from models.encoding.fit import EncoderFit
    >>> from models.scores.sketch import ScoreSketch
    >>> rows = record_batch({"bytes": [1.0, 2.0, 3.0]})
    >>> fit = EncoderFit((Numeric("bytes"),), rows.schema)
    >>> fit.update(rows)
    >>> encoder = fit.finish()
    >>> detector = CATALOG.build("autoencoder", encoder.layout, {})
    >>> scores = ScoreSketch()
    >>> scores.update([0.5, 0.7])  # of held-back rows
    >>> bundle = Bundle(encoder, detector, "autoencoder", Calibration(scores), {})
    >>> sorted(bundle.to_files())
    ['bundle.json', 'calibration.json', 'detector.safetensors', 'encoder.safetensors']
    >>> open_bundle(bundle.to_files(), expected=bundle.id).id == bundle.id
    True
    """

    encoder: Encoder
    detector: Detector
    detector_name: str  # its name in the catalogue
    calibration: Calibration
    metadata: dict[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "metadata", {"versions": versions(), **self.metadata})

    @property
    def options(self) -> dict[str, Any]:
        """All fields of the detector's config, since a later version may have other defaults."""
        return asdict(self.detector.config)

    @cached_property
    def severity(self) -> Severity:
        """The mapping of the detector's scores to severities."""
        return Severity.from_calibration(self.calibration)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of `bundle.json`, which holds the hashes of the other files."""
        return _sha256(self.to_files()[MANIFEST])

    @property
    def id(self) -> str:
        """The first 16 hexadecimal digits of the digest."""
        return self.digest[:16]

    def to_files(self) -> dict[str, bytes]:
        """The content of each file, by name. The same bundle always gives the same bytes.

        Raises Refusal if the metadata is not JSON.
        """
        content = {
            ENCODER: _save(self.encoder),
            DETECTOR: _save(self.detector),
            CALIBRATION: self.calibration.to_bytes(),
        }
        document = {
            "format": FORMAT,
            "detector": self._describe_detector(),
            "encoder": self.encoder.to_document(),
            "files": {
                name: {"sha256": _sha256(data), "size": len(data)} for name, data in content.items()
            },
            "metadata": self.metadata,
        }
        return {MANIFEST: _canonical({**document, "checksum": _checksum(document)}), **content}

    def _describe_detector(self) -> dict[str, Any]:
        """Name and options; of another package's detector, the package too."""
        package = CATALOG.find_package(self.detector_name)
        described = {"name": self.detector_name, "options": self.options}
        return described | ({"package": asdict(package)} if package else {})


def open_bundle(files: Mapping[str, bytes], expected: str | None = None) -> Bundle:
    """Open the files that `Bundle.to_files` made, on the CPU and in evaluation mode.

    Args:
        files: the content of each file, by name.
        expected: the id or digest of the wanted bundle. Without it, a change is only found if the
            checksums were not changed with it.

    Raises Refusal for missing, extra, changed or truncated files, an oversized header, another
    format, tensors or options that do not fit the detector, and a detector of a package that is not
    here in the version that trained it.
    """
    _check_names(files)
    document = _read_manifest(files[MANIFEST])
    digest = _sha256(files[MANIFEST])
    if expected is not None and (len(expected) < 16 or not digest.startswith(expected)):
        raise Refusal(f"expected the bundle {expected}; found {digest[:16]}: fetch it again")
    for name in CONTENT:
        _verify(name, files[name], document["files"][name])
    name, options = document["detector"]["name"], document["detector"]["options"]
    CATALOG.require_package(name, _find_package(document))
    encoder = _open_encoder(document["encoder"], _load(ENCODER, files[ENCODER]))
    detector = rebuild(name, encoder.layout, options, _load(DETECTOR, files[DETECTOR]))
    calibration = Calibration.from_bytes(files[CALIBRATION])
    bundle = Bundle(encoder.eval(), detector.eval(), name, calibration, document["metadata"])
    # The digest of these bytes: another version of safetensors could write other bytes.
    object.__setattr__(bundle, "digest", digest)
    return bundle


@dataclass(frozen=True)
class Facts:
    """What a manifest says of its bundle. No detector is built, so it may be of any package."""

    detector_name: str
    package: Package | None  # of a detector that is not Anomaray's own
    metadata: dict[str, Any]


def read_facts(files: Mapping[str, bytes], bundle_id: str) -> Facts:
    """Read the manifest among the files of a bundle. Raises Refusal for one that was changed."""
    _check_names(files)
    document = _read_manifest(files[MANIFEST])
    if _sha256(files[MANIFEST])[:16] != bundle_id:
        raise Refusal(f"expected the bundle {bundle_id}; found another in its place")
    return Facts(document["detector"]["name"], _find_package(document), document["metadata"])


def read_directory(path: Path) -> dict[str, bytes]:
    """Read the files of a bundle from a local folder. `open_bundle` verifies them.

    Raises Refusal if the folder does not hold exactly the files of a bundle. Links, sub-folders and
    special files are refused too.
    """
    if path.is_symlink():
        raise Refusal(f"expected a bundle's folder; {path} is a symbolic link: name its target")
    if not path.is_dir():
        raise Refusal(f"expected a bundle's folder; found none at {path}")
    for entry in sorted(path.iterdir()):
        if not stat.S_ISREG(entry.lstat().st_mode):
            raise Refusal(
                f"expected only plain files in a bundle; {entry.name!r} is not: remove it"
            )
    _check_names({entry.name for entry in path.iterdir()})
    return {name: _read_file(path / name) for name in FILES}


def write_directory(path: Path, files: Mapping[str, bytes]) -> None:
    """Write the files of a bundle to a new local folder, all of them or none.

    Raises Refusal if `path` exists.
    """
    _check_names(files)
    if path.is_symlink() or path.exists():
        raise Refusal(f"expected a new folder for the bundle; {path} exists: name another")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.parent / f".{path.name}-{uuid.uuid4().hex}"
    draft.mkdir()
    try:
        for name in FILES:
            with (draft / name).open("wb") as file:
                file.write(files[name])
                file.flush()
                os.fsync(file.fileno())
        _flush_folder(draft)
        draft.rename(path)
    except BaseException:
        for name in FILES:
            (draft / name).unlink(missing_ok=True)
        draft.rmdir()
        raise
    _flush_folder(path.parent)


def versions() -> dict[str, str]:
    """The versions of Python and of the libraries that scores depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def _flush_folder(path: Path) -> None:
    """Make the names in the folder last through a loss of power."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_names(names: Mapping[str, bytes] | set[str]) -> None:
    for name in sorted(names):
        if "/" in name or "\\" in name or name in (".", ".."):
            raise Refusal(f"expected file names without a path in a bundle; found {name!r}")
    missing = [name for name in FILES if name not in names]
    extra = sorted(set(names) - set(FILES))
    if missing or extra:
        found = [f"without {name}" for name in missing] + [f"with {name!r}" for name in extra]
        raise Refusal(
            f"expected a bundle of exactly {', '.join(FILES)}; found one {', '.join(found)}: "
            "copy the bundle again"
        )


def _read_manifest(data: bytes) -> dict[str, Any]:
    """`bundle.json`, verified against its own checksum."""
    if len(data) > MAX_JSON_BYTES:
        raise Refusal(
            f"expected {MANIFEST} of at most {MAX_JSON_BYTES:,} bytes; found {len(data):,}"
        )
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Refusal(f"expected {MANIFEST} to be JSON; it is damaged or truncated") from error
    if not isinstance(document, dict) or type(document.get("format")) is not int:
        raise Refusal(
            f"expected {MANIFEST} with a format version; found none: this is not a bundle"
        )
    if document["format"] > FORMAT:
        raise Refusal(
            f"expected a bundle of format {FORMAT} or older; found format {document['format']}, "
            "which a newer version wrote: upgrade Anomaray, or train again"
        )
    checksum = document.pop("checksum", None)
    try:
        intact = checksum == _checksum(document)
        intact = intact and data == _canonical({**document, "checksum": checksum})
    except Refusal:  # NaN, which Python's parser accepts although JSON does not have it
        intact = False
    if not intact:
        raise Refusal(f"{MANIFEST} was changed or damaged since it was written: copy it again")
    if not _has_shape(document):
        raise Refusal(
            f"expected {MANIFEST} of format {FORMAT}; a part of it is missing or misshapen"
        )
    return document


def _has_shape(document: dict[str, Any]) -> bool:
    try:
        listed = document["files"]
        _find_package(document)
        return (
            document["format"] == FORMAT
            and set(listed) == set(CONTENT)
            and all(
                isinstance(entry["sha256"], str) and type(entry["size"]) is int
                for entry in listed.values()
            )
            and isinstance(document["detector"]["name"], str)
            and isinstance(document["detector"]["options"], dict)
            and isinstance(document["encoder"], dict)
            and isinstance(document["metadata"], dict)
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        return False


def _find_package(document: dict[str, Any]) -> Package | None:
    """The package in a manifest; None for a detector of our own."""
    if "package" not in document["detector"]:
        return None
    return Package.from_document(document["detector"]["package"])


def _verify(name: str, data: bytes, entry: dict[str, Any]) -> None:
    if len(data) != entry["size"]:
        raise Refusal(
            f"expected {name} of {entry['size']:,} bytes; found {len(data):,}: it is truncated or "
            "changed: copy the bundle again"
        )
    if _sha256(data) != entry["sha256"]:
        raise Refusal(f"{name} was changed or damaged since it was written: copy the bundle again")
    if name == CALIBRATION:
        return
    header = int.from_bytes(data[:8], "little")
    if header > MAX_HEADER_BYTES:
        raise Refusal(
            f"expected a header of at most {MAX_HEADER_BYTES:,} bytes in {name}; found {header:,}"
        )
    if len(data) < 8 or header > len(data) - 8:
        raise Refusal(f"expected {name} to hold its header; it ends before that: train again")


def _save(module: nn.Module) -> bytes:
    tensors = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in module.state_dict().items()
    }
    return safetensors.torch.save(tensors)


def _load(name: str, data: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise Refusal(f"expected {name} to be safetensors; it cannot be read ({error})") from error


def _open_encoder(document: dict[str, Any], tensors: dict[str, Tensor]) -> Encoder:
    try:
        return Encoder.from_document(document, tensors)
    except Refusal:
        raise
    except Exception as error:  # whatever a document of another's making leads to
        raise Refusal(
            f"expected an encoder in {MANIFEST}; it cannot be read ({type(error).__name__}): "
            "copy the bundle again, or train again"
        ) from error


def _read_file(path: Path) -> bytes:
    """The bytes of a plain file. A link that took its place meanwhile is not followed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Refusal(f"expected to read {path.name!r} of the bundle; {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Refusal(f"expected only plain files in a bundle; {path.name!r} is not: remove it")
        if path.suffix == ".json" and status.st_size > MAX_JSON_BYTES:
            raise Refusal(
                f"expected {path.name} of at most {MAX_JSON_BYTES:,} bytes; "
                f"found {status.st_size:,}"
            )
        return file.read()


def _checksum(document: dict[str, Any]) -> str:
    return _sha256(_canonical(document))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _canonical(document: dict[str, Any]) -> bytes:
    try:
        return canonical_json.encode(document, ascii_only=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise Refusal(
            f"expected JSON values in a bundle's metadata and options: {error}"
        ) from error
