"""The folded autoencoder in eager torch."""

import numpy as np
import torch
import torch.nn.functional as F

from tests.bench.contenders.fused import FACTORS, Floats, Fused, Ints, blocks


class TorchKernel:
    """Eager torch, one thread: sets the number of threads of the process."""

    def __init__(self, fused: Fused) -> None:
        torch.set_num_threads(1)
        tensor = torch.from_numpy
        self.fused = fused
        self._table = tensor(fused.table)
        self._first = tensor(fused.first)
        # linear takes its weight as [out, in]
        self._layers = [(tensor(w.T.copy()), tensor(b.copy())) for w, b in fused.layers]
        self._last = tensor(fused.last)
        self._last_bias = tensor(fused.last_bias)[:, None]
        self._precision = tensor(fused.precision)[:, None]

    @torch.inference_mode()
    def __call__(self, values: Floats, combined: Ints, codes: Ints) -> Floats:
        numbers = torch.from_numpy(values)
        share = self._table.index_select(0, torch.from_numpy(combined))
        hidden = F.gelu(torch.addmm(share, numbers.T, self._first))
        for i, (weight, bias) in enumerate(self._layers):
            hidden = F.linear(hidden, weight, bias)
            if i != self.fused.latent:
                hidden = F.gelu(hidden)
        outputs = torch.addmm(self._last_bias, self._last, hidden.T)
        scores: Floats = self._scores(numbers, outputs, codes).numpy()
        return scores

    def _scores(self, numbers: torch.Tensor, outputs: torch.Tensor, codes: Ints) -> torch.Tensor:
        n = len(numbers)
        terms = (numbers - outputs[:n]).square_().mul_(self._precision).add_(1)
        each = n // FACTORS
        product = terms[:each]
        for i in range(1, FACTORS):
            product.mul_(terms[i * each : (i + 1) * each])
        total = product.log().sum(0) + terms[FACTORS * each :].log().sum(0)
        index = torch.from_numpy(codes.astype(np.int64))
        ranges = blocks(self.fused.sizes, n)
        precisions = self.fused.category_precision
        for (a, b), code, precision in zip(ranges, index, precisions, strict=True):
            odds = outputs[a:b].softmax(0)
            hit = odds.gather(0, code[None])[0]
            brier = odds.square_().sum(0).sub_(hit, alpha=2).add_(1)
            total += brier.mul_(precision).log1p_()
        return total
