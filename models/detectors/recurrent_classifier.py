"""Supervised classifier of labelled series, events and texts, by a recurrent network."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.batch import Batch
from models.detectors.bases.sequential import require_steps
from models.detectors.classifier import Classifier, ClassifierConfig
from models.detectors.detector import expect
from models.detectors.search_space import OneOf, Space
from models.layers.dense_inputs import Inputs
from models.layers.mlp import mlp, run
from models.layers.recurrent import REACH, make_embedding, run_cell
from models.layout import Layout


@dataclass(frozen=True)
class RecurrentClassifierConfig(ClassifierConfig):
    """Options of `recurrent_classifier`: those of `classifier` and the size of the cells."""

    widths: tuple[int, ...] = (64,)  # units of the hidden layers after the cells
    hidden: int = 32  # units of each recurrent cell
    embedding: int = 16  # width of the vector for each code of tokens

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.hidden >= 1, self, "hidden", "1 or more")
        expect(self.embedding >= 1, self, "embedding", "1 or more")


class RecurrentClassifier(Classifier):
    """A recurrent network trained on labels, which reads series and texts in order.

    A gated recurrent unit (Cho et al., EMNLP 2014) reads each series and each token input. Its last
    state, the mean of its states without padding, and all other columns go through dense layers to
    one logit. Loss, imbalance and explanation are those of `classifier`; integrated gradients are
    taken of the numbers of a series and of the vectors of codes.
    """

    Config = RecurrentClassifierConfig

    def __init__(self, layout: Layout, config: RecurrentClassifierConfig) -> None:
        super().__init__(layout, config)
        series = [s.shape[0] for s in layout.signals if s.kind == "series"]
        widths = [*series, *(config.embedding + 1 for _ in layout.tokens)]
        self.cells = nn.ModuleList(nn.GRU(w, config.hidden, batch_first=True) for w in widths)
        others = [s.width for s in layout.signals if s.kind != "series"]
        flat = len(layout.numeric) + sum(self.inputs.sizes) + sum(others)
        self.layers = mlp((flat + 2 * config.hidden * len(widths), *config.widths, 1))

    @classmethod
    def space(cls) -> Space:
        return {**super().space(), "hidden": OneOf((16, 32, 64)), "embedding": OneOf((8, 16, 32))}

    @classmethod
    def unfit(cls, layout: Layout) -> str | None:
        return require_steps(layout)

    def make_inputs(self, layout: Layout) -> "OrderedInputs":
        return OrderedInputs(layout, self.config.embedding)

    def _logit(self, columns: Tensor, dropout: float = 0.0) -> Tensor:
        flat, sequences = self._split_sequences(columns)
        for cell, (steps, there) in zip(self.cells, sequences, strict=True):
            states, last = run_cell(cell, steps)  # type: ignore[arg-type]
            weight = there.clamp(0, 1)[..., None]
            # At least 1: between the reference row and a row, steps may be there in part only.
            mean = (states * weight).sum(1) / weight.sum(1).clamp_min(1)
            flat += [last[0].float(), mean.float()]
        return run(self.layers, torch.cat(flat, 1), dropout).float().squeeze(1)

    def _split_sequences(self, columns: Tensor) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
        """The columns outside sequences; and the steps [rows, steps, width] of each sequence, with
        how much of each step is there [rows, steps], 0 to 1."""
        numeric, inner, categories = self.inputs.split(columns)
        flat, sequences = [numeric, *categories], []
        signals = self.layout.signals
        for signal, block in zip(signals, inner, strict=False):
            if signal.kind != "series":
                flat.append(block)
                continue
            steps = block.reshape(-1, *signal.shape).transpose(1, 2).clamp(-REACH, REACH)
            there = steps[..., -1] if signal.masked else torch.ones_like(steps[..., 0])
            sequences.append((steps, there))
        for tokens, block in zip(self.layout.tokens, inner[len(signals) :], strict=True):
            steps = block.reshape(len(block), tokens.length, self.config.embedding + 1)
            sequences.append((steps, steps[..., -1]))
        return flat, sequences


class OrderedInputs(Inputs):
    """`Inputs` with tokens in order: at each place the vector of its code and a 1, or all 0."""

    def __init__(self, layout: Layout, width: int) -> None:
        super().__init__(layout, embed=True)
        self.code_width = width + 1
        self.vectors = nn.ModuleList(make_embedding(t, width) for t in layout.tokens)
        self.blocks[len(layout.signals) :] = [t.length * self.code_width for t in layout.tokens]
        self.numbers = len(layout.numeric) + sum(self.blocks)
        self.width = self.numbers + sum(self.sizes)

    def make_token_columns(self, batch: Batch) -> list[Tensor]:
        blocks = []
        for vectors, tokens in zip(self.vectors, batch.tokens, strict=True):
            there = (tokens > 0)[..., None].float()
            blocks.append(torch.cat([vectors(tokens) * there, there], 2).flatten(1))
        return blocks

    def map_tokens(self, blocks: list[Tensor], batch: Batch) -> list[Tensor]:
        return [
            block.reshape(*tokens.shape, self.code_width).sum(2)
            for tokens, block in zip(batch.tokens, blocks, strict=True)
        ]
