"""Run a recurrent cell over the steps of series and tokens."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layout import SignalInput, TokenInput

# Inputs of a recurrent cell are clamped here, in scaled units: beyond it the cell saturates, and
# one huge value would hide the rest of the window. Predicted and scored values are not clamped.
REACH = 10.0

# Texts are read in blocks of this many steps, up to the longest text of the batch, so that padding
# costs little. All blocks have the same size: a matrix product of another size may round
# differently, and a row's score must not depend on the other rows.
BLOCK = 64


def count_channels(series: SignalInput) -> int:
    """The number of channels without the mask."""
    return series.shape[0] - series.masked


def split_steps(series: SignalInput, signal: Tensor) -> tuple[Tensor, Tensor]:
    """Values [rows, steps, channels], and which steps are there, bool [rows, steps].

    `signal` is [rows, channels and mask, steps].
    """
    steps = signal.transpose(1, 2)
    if series.masked:
        return steps[..., :-1], steps[..., -1] > 0.5
    return steps, torch.ones_like(steps[..., 0], dtype=torch.bool)


def clamp_steps(series: SignalInput, signal: Tensor) -> Tensor:
    """The inputs of a recurrent cell: [rows, steps, channels and mask], clamped to REACH."""
    return signal.transpose(1, 2).clamp(-REACH, REACH)


def measure_lengths(tokens: Tensor) -> Tensor:
    """The number of codes of each row up to its last one, without padding: int64 [rows]."""
    place = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    return torch.where(tokens > 0, place, 0).amax(1)


def cut_blocks(tokens: Tensor) -> list[slice]:
    """Slices of BLOCK steps that cover the codes of every row and one more step."""
    longest = int(measure_lengths(tokens).max()) if len(tokens) else 0
    longest = min(longest + 1, tokens.shape[1])
    return [slice(start, start + BLOCK) for start in range(0, longest, BLOCK)]


def run_cell(cell: nn.GRU, steps: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The state after each step [rows, steps, hidden] and the last state [1, rows, hidden].

    Both are float32.
    """
    if not len(steps):  # torch cannot run a cell over 0 rows
        hidden = cell.hidden_size
        return steps.new_zeros(0, steps.shape[1], hidden), steps.new_zeros(1, 0, hidden)
    if torch.is_grad_enabled() and not cell.training:
        # Contributions need gradients in evaluation, and cuDNN has them in training mode only. The
        # copy has the same weights; a cell without dropout computes the same in both modes.
        cell = copy.copy(cell).train()
    states, last = cell(steps, state)
    return states.float(), last.float()


def pad_to(values: Tensor, length: int) -> Tensor:
    """Values [rows, steps], padded with 0 or cut to `length` steps."""
    return F.pad(values, (0, length - values.shape[1]))


def make_embedding(tokens: TokenInput, width: int) -> nn.Embedding:
    """A vector for each code. Padding and "other", which few rows train, start as 0."""
    table = nn.Embedding(tokens.size, width)
    nn.init.zeros_(table.weight.data[:2])
    return table
