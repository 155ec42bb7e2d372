"""Encoders and detectors as tensors of a file, and back."""

from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from models.detectors.detector import Detector
from models.detectors.rebuilding import rebuild
from models.encoding.encoder import Encoder
from models.layout import Layout
from models.refusal import Refusal


def save_module(module: nn.Module) -> bytes:
    """The state of a module as safetensors. The same state always gives the same bytes."""
    tensors = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in module.state_dict().items()
    }
    return safetensors.torch.save(tensors)


def load_encoder(document: dict[str, Any], name: str, data: bytes) -> Encoder:
    """The encoder of a document and the file of its tensors, in evaluation mode. Raises Refusal if
    they do not fit."""
    return Encoder.from_document(document, _load(name, data)).eval()


def load_detector(described: dict[str, Any], layout: Layout, name: str, data: bytes) -> Detector:
    """The detector with a name and options and the file of its tensors, in evaluation mode. Raises
    Refusal if they do not fit."""
    tensors = _load(name, data)
    return rebuild(described["name"], layout, described["options"], tensors).eval()


def _load(name: str, data: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise Refusal(f"expected {name} to be safetensors; it cannot be read ({error})") from error
