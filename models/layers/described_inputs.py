"""Inputs in which a signal is replaced by a description: fewer numbers that compare better."""

from collections.abc import Callable
from functools import reduce

import numpy as np
import torch
from torch import Tensor, nn

from models.batch import Batch
from models.encoding.moments import ArrayMoments
from models.layers.band_statistics import BandStatistics
from models.layers.convolution import Section, split_sections
from models.layers.dense_inputs import Inputs
from models.layers.gradient_histograms import Histograms
from models.layout import Layout, SignalInput

# Least deviation of a number of a description, relative to their mean deviation, or else a cell
# that was empty in all training rows would outweigh the others.
_LEAST_DEVIATION = 0.05
_ROWS = 4096  # rows that are described at once when scales are learned

Description = Histograms | BandStatistics
Describe = Callable[[SignalInput], Description | None]  # None: the signal keeps all its numbers


class DescribedInputs(Inputs):
    """`Inputs` without learned embeddings, in which `describe` chooses how a signal is described.

    Each number of a description is scaled to mean 0 and variance 1 (`fit`), like the other columns:
    docs/decisions/signal-descriptions.md.
    """

    centre: Tensor
    scales: Tensor
    usual: Tensor

    def __init__(self, layout: Layout, describe: Describe) -> None:
        super().__init__(layout, embed=False)
        self.sections: list[Section] = []
        self.widths: list[int] = []
        descriptions: list[Description] = []
        for section in split_sections(layout, self.width):
            description = describe(section.signal) if section.signal else None
            self.sections.append(section if description else Section(section.width, None))
            self.widths.append(description.width if description else section.width)
            if description:
                descriptions.append(description)
        self.descriptions = nn.ModuleList(descriptions)
        described = sum(d.width for d in descriptions)
        self.register_buffer("centre", torch.zeros(described))
        self.register_buffer("scales", torch.ones(described))
        self.register_buffer("usual", torch.zeros(self.width))
        self.width = sum(self.widths)

    @torch.no_grad()
    def fit(self, sample: Batch) -> None:
        """Learn the scales, and the mean row, which is the expected value of described signals."""
        if not self.descriptions:
            return
        raw, described = [], []
        for start in range(0, len(sample.numeric), _ROWS):
            columns = super().forward(sample.take(slice(start, start + _ROWS)))
            raw.append(ArrayMoments.from_values(columns.cpu().numpy()))
            blocks = [block for _, block in self._describe(columns)]
            described.append(ArrayMoments.from_values(torch.cat(blocks, 1).cpu().numpy()))
        self.usual.copy_(torch.from_numpy(reduce(ArrayMoments.combine, raw).mean))
        moments = reduce(ArrayMoments.combine, described)
        self.centre.copy_(torch.from_numpy(moments.mean))
        deviation = np.sqrt(moments.squares / np.maximum(moments.count, 1))
        widths = [description.width for description in self._list_descriptions()]
        for scale, own in zip(
            torch.split(self.scales, widths),
            torch.split(torch.from_numpy(deviation), widths),
            strict=True,
        ):
            # If all rows are equal every deviation is 0, and any scale will do.
            least = float(_LEAST_DEVIATION * own.mean()) or 1.0
            scale.copy_(1 / own.clamp_min(least))

    def forward(self, batch: Batch) -> Tensor:
        """The matrix [rows, width]. Raises Refusal for a batch of another layout."""
        columns = super().forward(batch)
        if not self.descriptions:
            return columns
        widths = [description.width for description in self._list_descriptions()]
        centres, scales = torch.split(self.centre, widths), torch.split(self.scales, widths)
        parts = list(torch.split(columns, [s.width for s in self.sections], 1))
        described = zip(self._describe(columns), centres, scales, strict=True)
        for (place, block), centre, scale in described:
            parts[place] = (block - centre) * scale
        return torch.cat(parts, 1)

    def sum_by_feature(self, columns: Tensor) -> Tensor:
        """The sum over the columns of each feature: [rows, len(layout.features)]."""
        return super().sum_by_feature(self._distribute(columns))

    def map_places(self, columns: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """Shares [rows, width], laid out as `Contributions.maps`.

        The share of a number of a description is divided among the places that it describes.
        """
        return super().map_places(self._distribute(columns), batch)

    def decode(self, columns: Tensor) -> Batch:
        """The batch of columns [rows, width]. A described signal is the mean of the sample, since
        it cannot be rebuilt from its description."""
        blocks = torch.split(columns, self.widths, 1)
        usual = torch.split(self.usual, [s.width for s in self.sections])
        parts = [
            u.expand(len(columns), -1) if s.signal else block
            for block, u, s in zip(blocks, usual, self.sections, strict=True)
        ]
        return super().decode(torch.cat(parts, 1))

    def _list_descriptions(self) -> list[Description]:
        return [d for d in self.descriptions if isinstance(d, Histograms | BandStatistics)]

    def _describe(self, columns: Tensor) -> list[tuple[int, Tensor]]:
        """For each described signal its index among the sections, and its description
        [rows, width of the description]."""
        blocks = torch.split(columns, [s.width for s in self.sections], 1)
        descriptions = iter(self._list_descriptions())
        return [
            (place, next(descriptions)(blocks[place].reshape(-1, *section.signal.shape)))
            for place, section in enumerate(self.sections)
            if section.signal
        ]

    def _distribute(self, columns: Tensor) -> Tensor:
        """Shares [rows, width], divided among the columns of `Inputs`."""
        descriptions = iter(self._list_descriptions())
        blocks = torch.split(columns, self.widths, 1)
        parts = [
            next(descriptions).distribute(block) if s.signal else block
            for block, s in zip(blocks, self.sections, strict=True)
        ]
        return torch.cat(parts, 1)
