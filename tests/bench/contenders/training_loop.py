"""A training by hand: the network of BUNDLE, from random weights, on the rows of LAKE.

The rows are encoded before the clock starts. Prints the seconds of three epochs as JSON."""

import itertools
import json
import sys
import time
from pathlib import Path

import pyarrow.dataset as ds
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.bundle import open_bundle, read_directory
from models.detectors.autoencoder import HUBER

EPOCHS, BATCH = 3, 2048


def main(bundle: Path, lake: str) -> None:
    champion = open_bundle(read_directory(bundle))
    table = ds.dataset(lake, partitioning="hive").to_table().combine_chunks()
    batch = champion.encoder(champion.encoder.extract(table.to_batches()[0]))
    rows = champion.metadata["training"]["rows"]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch = batch.take(slice(rows)).to(device)
    sizes = [category.size for category in champion.encoder.layout.categories]
    config = champion.detector.config
    hot = [F.one_hot(batch.codes[:, j], size).float() for j, size in enumerate(sizes)]
    inputs = torch.cat([batch.numeric, *hot], 1)
    numbers, width = batch.numeric.shape[1], inputs.shape[1]
    layers = (width, *config.widths, config.latent, *config.widths[::-1], width)
    network = _stack(layers, linear=len(config.widths)).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-4)
    started = time.perf_counter()
    for _ in range(EPOCHS):
        order = torch.randperm(rows).to(device)
        for chosen in torch.split(order, BATCH):
            given = inputs[chosen]
            loss = _loss(network(given), given[:, :numbers], batch.codes[chosen], sizes)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    print(json.dumps({"rows": rows, "seconds": seconds, "threads": torch.get_num_threads()}))


def _stack(widths: tuple[int, ...], linear: int) -> nn.Sequential:
    """Layers with GELU between them, but not after the bottleneck, number `linear`."""
    parts: list[nn.Module] = []
    for number, (a, b) in enumerate(itertools.pairwise(widths)):
        parts.append(nn.Linear(a, b))
        if number not in (linear, len(widths) - 2):
            parts.append(nn.GELU())
    return nn.Sequential(*parts)


def _loss(out: Tensor, numeric: Tensor, codes: Tensor, sizes: list[int]) -> Tensor:
    real, *logits = torch.split(out, [numeric.shape[1], *sizes], 1)
    loss = 2 * F.huber_loss(real, numeric, reduction="none", delta=HUBER).sum(1)
    for j, block in enumerate(logits):
        loss = loss + F.cross_entropy(block, codes[:, j], reduction="none")
    return loss.mean()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
