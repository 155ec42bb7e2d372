"""Builds a saved detector from options and tensors that a stranger may have written.

The options decide how large the tensors are, so they are believed only where the tensors of the
file have these sizes: the detector is first built on torch's meta device, which takes no memory.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from models.detectors.catalog import CATALOG
from models.detectors.detector import Detector
from models.layout import Layout
from models.refusal import Refusal

# Of the catalogue with its defaults, one detector needs 1,011 calls, the others fewer. Very many
# would be a loop as long as an option says.
_MOST_CALLS = 50_000
# What a detector computes beside its saved tensors, such as filters and cells of a histogram.
_FREE_BYTES = 256 << 20


def rebuild(
    name: str, layout: Layout, options: dict[str, Any], tensors: Mapping[str, Tensor]
) -> Detector:
    """The detector with these tensors.

    Raises Refusal for options that are not the detector's, or that ask for other tensors.
    """
    CATALOG.find(name)  # imports a package's code here, not on the meta device
    _check_sizes(_sketch(name, layout, options), name, tensors)
    detector = CATALOG.build(name, layout, options)
    detector.load_state_dict(tensors)
    return detector


class _Counted(TorchFunctionMode):
    """Ends a construction that calls torch too often."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self.calls += 1
        if self.calls > _MOST_CALLS:
            raise Refusal(f"expected at most {_MOST_CALLS:,} steps to build a detector, found more")
        return func(*args, **(kwargs or {}))


def _sketch(name: str, layout: Layout, options: dict[str, Any]) -> Detector:
    """The detector without memory for its tensors."""
    try:
        with torch.device("meta"), _Counted():
            return CATALOG.build(name, layout, options)
    except Refusal:
        raise
    except Exception as error:  # whatever a detector raises for numbers that none would choose
        raise Refusal(
            f"expected options that detector '{name}' can be built from; found others "
            f"({type(error).__name__}): train again"
        ) from error


def _check_sizes(sketch: Detector, name: str, tensors: Mapping[str, Tensor]) -> None:
    expected = {key: tuple(tensor.shape) for key, tensor in sketch.state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    odd = [key for key in (*expected, *found) if expected.get(key) != found.get(key)]
    if odd:
        key = odd[0]
        raise Refusal(
            f"expected the state of a {type(sketch).__name__} with {len(expected)} tensors, found "
            f"{len(found)}: {key!r} has the shape {found.get(key, 'of no tensor')}, and the "
            f"options say {expected.get(key, 'there is none')}; open the bundle with the version "
            "that wrote it, or train again"
        )
    saved = sum(tensor.nbytes for tensor in tensors.values())
    computed = sum(buffer.numel() * buffer.element_size() for buffer in sketch.buffers())
    if computed > saved + _FREE_BYTES:
        raise Refusal(
            f"expected a detector '{name}' of {saved + _FREE_BYTES:,} bytes at most beside its "
            f"tensors, found {computed:,}: train again"
        )
