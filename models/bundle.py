"""A trained detector on disk: a few files, which are verified before any is used. Never pickle.

Nothing here needs torch, unless the encoder or the detector is asked for.
"""

import hashlib
import json
import os
import platform
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from models import canonical_json
from models.compiled import CompiledModel, Graphs, Model
from models.detectors.plugins import Package, require_package
from models.encoding.extractor import Extractor, open_extractor
from models.refusal import Refusal
from models.scores.severity import Severity
from models.scores.threshold import Calibration

if TYPE_CHECKING:  # these import torch
    from models.detectors.detector import Detector
    from models.encoding.encoder import Encoder

# Goes up when an older version would misread the files.
FORMAT = 1

MANIFEST = "bundle.json"
ENCODER = "encoder.safetensors"
DETECTOR = "detector.safetensors"
CALIBRATION = "calibration.json"
CONTENT = (ENCODER, DETECTOR, CALIBRATION)
FILES = (MANIFEST, *CONTENT)
SCORER = "scorer.onnx"
EXPLAINER = "explainer.onnx"
COMPILED = (SCORER, EXPLAINER)  # of detectors that onnxruntime can run

# A header takes about 100 bytes per tensor, so 10,000 tensors fit. The format allows headers of
# 100 MB, which would keep the parser of a hostile file busy.
MAX_HEADER_BYTES = 1 << 20

# Vocabularies and the losses of a training take tens of kilobytes.
MAX_JSON_BYTES = 16 << 20

# What computes scores: onnxruntime on CPUs, or torch on the device of that name.
Backend = Literal["onnx", "cpu", "cuda"]
ONNX: Backend = "onnx"

LIBRARIES = (
    "torch",
    "numpy",
    "pyarrow",
    "scikit-learn",
    "safetensors",
    "datasketches",
    "onnxruntime",
)


@dataclass(frozen=True, eq=False)
class Bundle:
    """A trained detector with everything that scoring needs except the threshold. Made by
    `make_bundle` or `open_bundle`.

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
    >>> bundle = make_bundle(encoder, detector, "autoencoder", Calibration(scores), {})
    >>> sorted(bundle.files)
    ['bundle.json', 'calibration.json', 'detector.safetensors', 'encoder.safetensors']
    >>> open_bundle(bundle.files, expected=bundle.id).id == bundle.id
    True
    """

    files: dict[str, bytes] = field(repr=False)  # by name
    manifest: dict[str, Any] = field(repr=False)
    digest: str  # SHA-256 of `bundle.json`, which holds the hashes of the other files
    extractor: Extractor
    calibration: Calibration

    def __reduce__(self) -> tuple[Any, ...]:
        """A bundle travels between processes as its files."""
        return open_bundle, (self.files, self.digest)

    @property
    def id(self) -> str:
        """The first 16 hexadecimal digits of the digest."""
        return self.digest[:16]

    @property
    def metadata(self) -> dict[str, Any]:
        """JSON values: digests of the spec and of the training snapshots, days, metrics, losses."""
        metadata: dict[str, Any] = self.manifest["metadata"]
        return metadata

    @property
    def detector_name(self) -> str:
        """The name of the detector in the catalogue."""
        return str(self.manifest["detector"]["name"])

    @property
    def options(self) -> dict[str, Any]:
        """All fields of the detector's config, since a later version may have other defaults."""
        options: dict[str, Any] = self.manifest["detector"]["options"]
        return options

    @property
    def parameters(self) -> int:
        """Learned numbers of the detector."""
        return int(self.manifest["detector"]["parameters"])

    @cached_property
    def severity(self) -> Severity:
        """The mapping of the detector's scores to severities."""
        return Severity.from_calibration(self.calibration)

    @cached_property
    def encoder(self) -> "Encoder":
        """The encoder, on the CPU and in evaluation mode. Imports torch; raises Refusal for tensors
        that do not fit."""
        from models.trained import load_encoder

        with _reading_encoder():
            return load_encoder(self.manifest["encoder"], ENCODER, self.files[ENCODER])

    @cached_property
    def detector(self) -> "Detector":
        """The detector, as `encoder`; refused for options that do not fit, too."""
        from models.detectors.catalog import CATALOG
        from models.trained import load_detector

        CATALOG.require_package(self.detector_name, _find_package(self.manifest))
        described = self.manifest["detector"]
        return load_detector(described, self.extractor.layout, DETECTOR, self.files[DETECTOR])

    @property
    def is_compiled(self) -> bool:
        """Whether CPUs score with onnxruntime."""
        return SCORER in self.files

    def choose_backend(self, gpus: bool) -> Backend:
        """What runs the detector on machines with or without GPUs."""
        if gpus:
            return "cuda"
        return ONNX if self.is_compiled else "cpu"

    def open_model(self, backend: Backend, prepare_torch: Callable[[], object]) -> Model:
        """The detector, run by this backend; `prepare_torch` is called before torch computes."""
        if backend != ONNX:
            from models.eager import EagerModel

            prepare_torch()
            return EagerModel(self.encoder, self.detector, backend)
        graphs = Graphs(self.files[SCORER], self.files.get(EXPLAINER))
        return CompiledModel(self.extractor, graphs, lambda: self.open_model("cpu", prepare_torch))


def make_bundle(
    encoder: "Encoder",
    detector: "Detector",
    name: str,
    calibration: Calibration,
    metadata: dict[str, Any],
    graphs: Graphs | None = None,
) -> Bundle:
    """The bundle of a detector with this name in the catalogue. The same parts always give the same
    bytes.

    `metadata` holds JSON values; the key "versions" is added if it is missing. Raises Refusal if it
    is not JSON.
    """
    from models.detectors.catalog import CATALOG
    from models.trained import save_module

    content = {
        ENCODER: save_module(encoder),
        DETECTOR: save_module(detector),
        CALIBRATION: calibration.to_bytes(),
    }
    if graphs is not None:
        content[SCORER] = graphs.scorer
        if graphs.explainer is not None:
            content[EXPLAINER] = graphs.explainer
    package = CATALOG.find_package(name)
    described = {
        "name": name,
        "options": asdict(detector.config),
        "parameters": sum(parameter.numel() for parameter in detector.parameters()),
        **({"package": asdict(package)} if package else {}),
    }
    document = {
        "format": FORMAT,
        "detector": described,
        "encoder": encoder.to_document(),
        "files": {n: {"sha256": _sha256(data), "size": len(data)} for n, data in content.items()},
        "metadata": {"versions": versions(), **metadata},
    }
    manifest = _canonical({**document, "checksum": _checksum(document)})
    return open_bundle({MANIFEST: manifest, **content})


def open_bundle(files: Mapping[str, bytes], expected: str | None = None) -> Bundle:
    """Open the files of a bundle.

    Args:
        files: the content of each file, by name.
        expected: the id or digest of the wanted bundle. Without it, a change is only found if the
            checksums were not changed with it.

    Raises Refusal for missing, extra, changed or truncated files, an oversized header, another
    format, and a detector of a package that is not here in the version that trained it.
    """
    _check_names(files)
    document = _read_manifest(files[MANIFEST])
    digest = _sha256(files[MANIFEST])
    if expected is not None and (len(expected) < 16 or not digest.startswith(expected)):
        raise Refusal(f"expected the bundle {expected}; found {digest[:16]}: fetch it again")
    _check_listed(files, document["files"])
    for name, entry in document["files"].items():
        _verify(name, files[name], entry)
    if package := _find_package(document):
        require_package(document["detector"]["name"], package)
    arrays = _load_arrays(ENCODER, files[ENCODER])
    extractor = _open_extractor(document["encoder"], arrays)
    calibration = Calibration.from_bytes(files[CALIBRATION])
    return Bundle(dict(files), document, digest, extractor, calibration)


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
    return {entry.name: _read_file(entry) for entry in sorted(path.iterdir())}


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
        for name in files:
            with (draft / name).open("wb") as file:
                file.write(files[name])
                file.flush()
                os.fsync(file.fileno())
        _flush_folder(draft)
        draft.rename(path)
    except BaseException:
        for name in files:
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
    extra = sorted(set(names) - {*FILES, *COMPILED})
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
            and set(CONTENT) <= set(listed) <= {*CONTENT, *COMPILED}
            and (SCORER in listed or EXPLAINER not in listed)
            and all(
                isinstance(entry["sha256"], str) and type(entry["size"]) is int
                for entry in listed.values()
            )
            and isinstance(document["detector"]["name"], str)
            and isinstance(document["detector"]["options"], dict)
            and type(document["detector"]["parameters"]) is int
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


def _check_listed(files: Mapping[str, bytes], listed: Mapping[str, Any]) -> None:
    if unlisted := sorted(set(files) ^ {MANIFEST, *listed}):
        raise Refusal(
            f"expected a bundle of the files that {MANIFEST} names; {unlisted[0]} is in one of "
            "them alone: copy the bundle again"
        )


def _verify(name: str, data: bytes, entry: dict[str, Any]) -> None:
    if len(data) != entry["size"]:
        raise Refusal(
            f"expected {name} of {entry['size']:,} bytes; found {len(data):,}: it is truncated or "
            "changed: copy the bundle again"
        )
    if _sha256(data) != entry["sha256"]:
        raise Refusal(f"{name} was changed or damaged since it was written: copy the bundle again")
    if not name.endswith(".safetensors"):
        return
    header = int.from_bytes(data[:8], "little")
    if header > MAX_HEADER_BYTES:
        raise Refusal(
            f"expected a header of at most {MAX_HEADER_BYTES:,} bytes in {name}; found {header:,}"
        )
    if len(data) < 8 or header > len(data) - 8:
        raise Refusal(f"expected {name} to hold its header; it ends before that: train again")


def _load_arrays(name: str, data: bytes) -> dict[str, npt.NDArray[Any]]:
    try:
        return safetensors.numpy.load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise Refusal(f"expected {name} to be safetensors; it cannot be read ({error})") from error


def _open_extractor(document: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> Extractor:
    with _reading_encoder():
        return open_extractor(document, arrays)


@contextmanager
def _reading_encoder() -> Iterator[None]:
    """Refuse a document of another's making, whatever it leads to."""
    try:
        yield
    except Refusal:
        raise
    except Exception as error:
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
