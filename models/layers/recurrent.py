"""Series and tokens as the steps of a recurrent cell."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.batch import SignalInput, TokenInput

# What a recurrent cell reads is cut off here, in scaled units: beyond it the cell is saturated, and
# one huge value would be all that it knows of a window. What is predicted or scored is not cut.
REACH = 10.0

# Texts are read in blocks of so many steps, up to the last that any row has: a column as long as
# its longest text costs what its usual texts do. Blocks of one size, since a matrix product of
# another size may round otherwise, and a row's score must not depend on its neighbours.
BLOCK = 64


def count_channels(series: SignalInput) -> int:
    """Channels with values, without the mask."""
    return series.shape[0] - series.masked


def split_steps(series: SignalInput, signal: Tensor) -> tuple[Tensor, Tensor]:
    """Values [rows, steps, channels] and where there are any, bool [rows, steps], of a signal
    [rows, channels (and mask), steps]."""
    steps = signal.transpose(1, 2)
    if series.masked:
        return steps[..., :-1], steps[..., -1] > 0.5
    return steps, torch.ones_like(steps[..., 0], dtype=torch.bool)


def clamp_steps(series: SignalInput, signal: Tensor) -> Tensor:
    """What a recurrent cell reads of a signal: [rows, steps, channels (and mask)], within REACH."""
    return signal.transpose(1, 2).clamp(-REACH, REACH)


def measure_lengths(tokens: Tensor) -> Tensor:
    """Codes of each row up to the last that is no padding: int64 [rows]."""
    place = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    return torch.where(tokens > 0, place, 0).amax(1)


def cut_blocks(tokens: Tensor) -> list[slice]:
    """Slices of BLOCK steps that hold every row's codes and one step more."""
    longest = int(measure_lengths(tokens).max()) if len(tokens) else 0
    longest = min(longest + 1, tokens.shape[1])
    return [slice(start, start + BLOCK) for start in range(0, longest, BLOCK)]


def run_cell(cell: nn.GRU, steps: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """States after each step [rows, steps, hidden] and the last [1, rows, hidden], as float32."""
    if not len(steps):  # torch refuses to run a cell over no rows
        hidden = cell.hidden_size
        return steps.new_zeros(0, steps.shape[1], hidden), steps.new_zeros(1, 0, hidden)
    # cuDNN keeps what a gradient needs in training mode only; reasons are gradients outside it.
    explains = torch.is_grad_enabled() and not cell.training
    with torch.backends.cudnn.flags(enabled=not explains):
        states, last = cell(steps, state)
    return states.float(), last.float()


def pad_to(values: Tensor, length: int) -> Tensor:
    """Values [rows, steps] with zeros up to `length` steps, or cut there."""
    return F.pad(values, (0, length - values.shape[1]))


def make_embedding(tokens: TokenInput, width: int) -> nn.Embedding:
    """A vector a code; padding and "other", seldom trained on, start as no information."""
    table = nn.Embedding(tokens.size, width)
    nn.init.zeros_(table.weight.data[:2])
    return table
