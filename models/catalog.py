"""The detectors by name. A new one is a file of its own and a line here."""

import dataclasses
import json
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from rapidfuzz import process

from models.anomaly_likelihood import AnomalyLikelihood
from models.autoencoder import Autoencoder
from models.classifier import Classifier
from models.convolutional_autoencoder import ConvolutionalAutoencoder
from models.convolutional_classifier import ConvolutionalClassifier
from models.deep_sad import DeepSAD
from models.deep_svdd import DeepSVDD
from models.detector import Detector, Layout
from models.devnet import DevNet
from models.diffusion_time import DiffusionTime
from models.ecod import ECOD
from models.ensemble import Ensemble
from models.forecaster import Forecaster
from models.gan import GAN
from models.gaussian import Gaussian
from models.hog_knn import HOGKNN
from models.isolation_forest import IsolationForest
from models.knn import KNN
from models.matrix_profile import MatrixProfile
from models.pca import PCA
from models.recurrent_autoencoder import RecurrentAutoencoder
from models.recurrent_classifier import RecurrentClassifier
from models.refusal import Refusal
from models.spectral_residual import SpectralResidual
from models.stacked_devnet import StackedDevNet
from models.variational_autoencoder import VariationalAutoencoder

CATALOG: dict[str, type[Detector]] = {
    "anomaly_likelihood": AnomalyLikelihood,
    "autoencoder": Autoencoder,
    "classifier": Classifier,
    "cnn_classifier": ConvolutionalClassifier,
    "convolutional_autoencoder": ConvolutionalAutoencoder,
    "deep_sad": DeepSAD,
    "deep_svdd": DeepSVDD,
    "devnet": DevNet,
    "diffusion_time": DiffusionTime,
    "ecod": ECOD,
    "ensemble": Ensemble,
    "forecaster": Forecaster,
    "gan": GAN,
    "gaussian": Gaussian,
    "hog_knn": HOGKNN,
    "isolation_forest": IsolationForest,
    "knn": KNN,
    "matrix_profile": MatrixProfile,
    "pca": PCA,
    "recurrent_autoencoder": RecurrentAutoencoder,
    "recurrent_classifier": RecurrentClassifier,
    "spectral_residual": SpectralResidual,
    "stacked_devnet": StackedDevNet,
    "variational_autoencoder": VariationalAutoencoder,
}


def build(name: str, layout: Layout, options: dict[str, Any]) -> Detector:
    """A detector, untrained, for rows of a layout.

    `options` are fields of its Config, as YAML or JSON gives them. Raises Refusal for a name that
    is not in the catalogue, for columns that it cannot learn from, and for an option that is
    unknown, of the wrong type or out of range.
    """
    kind = detector_class(name)
    if lacking := kind.unfit(layout):
        raise Refusal(f"detector '{name}' does not fit these columns: {lacking}")
    return kind(layout, configure(name, options))


def detector_class(name: str) -> type[Detector]:
    """The class of a name; raises Refusal for an unknown one."""
    if name not in CATALOG:
        raise Refusal(f"unknown detector '{name}'{_choices(name, list(CATALOG))}")
    return CATALOG[name]


def configure(name: str, options: dict[str, Any]) -> Any:
    """The Config of a detector, checked, without building it (no layout is needed)."""
    return checked(detector_class(name).Config, name, options)


def checked(config: Any, name: str, options: dict[str, Any]) -> Any:
    """A frozen dataclass out of options as YAML or JSON gives them; `name` is for messages."""
    hints = get_type_hints(config)
    allowed = [field.name for field in dataclasses.fields(config)]
    values = {}
    for key, value in options.items():
        if key not in allowed:
            raise Refusal(f"detector '{name}' has no option '{key}'{_choices(key, allowed)}")
        values[key] = _typed(name, key, value, hints[key])
    return config(**values)


def _typed(name: str, key: str, value: Any, hint: Any) -> Any:
    # Strict JSON rules: a list may be a tuple and 1 may be 1.0, but "1" is no number and true no 1.
    try:
        return TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    except (ValidationError, TypeError) as error:
        wanted = hint.__name__ if isinstance(hint, type) and hint.__module__ == "builtins" else hint
        raise Refusal(
            f"option '{key}' of detector '{name}': expected "
            f"{str(wanted).replace('typing.', '')}, found {value!r}"
        ) from error


def _choices(found: str, allowed: list[str]) -> str:
    """'; did you mean …? It is one of …'."""
    nearest = process.extractOne(found, allowed)
    hint = f"; did you mean '{nearest[0]}'?" if nearest else ";"
    return f"{hint} expected one of: {', '.join(allowed)}"
