"""The limit of a GPU machine, by hand: LAKE BUNDLE THRESHOLD.

Threads decode Parquet, columns go to the card as they lie, all else happens there in row groups;
ids are read where something is flagged. Prints one JSON object."""

import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.bench.contenders import fused

_STREAMS = 8
_KEPT = ("id", "ts", "src", "dst")


class Network:
    """The folded autoencoder on a device."""

    def __init__(self, bundle: Path, device: torch.device) -> None:
        self.folded = folded = fused.read(bundle)

        def move(array: object) -> Tensor:
            return torch.from_numpy(np.array(array, np.float32)).to(device)

        self.device = device
        self.table, self.first = move(folded.table), move(folded.first)
        self.layers = [(move(w.T), move(b)) for w, b in folded.layers]
        self.last, self.last_bias = move(folded.last), move(folded.last_bias)
        self.low, self.high = move(folded.low), move(folded.high)
        self.precision = move(folded.precision)

    @torch.inference_mode()
    def score(self, columns: list[Tensor], codes: list[Tensor]) -> Tensor:
        folded = self.folded
        inputs = torch.stack(columns, 1).clamp(self.low, self.high)
        place = codes[0]
        for code, size in zip(codes[1:], folded.sizes[1:], strict=True):
            place = place * size + code
        hidden = F.gelu(torch.addmm(self.table[place], inputs, self.first))
        for number, (weights, bias) in enumerate(self.layers):
            hidden = F.linear(hidden, weights, bias)
            hidden = hidden if number == folded.latent else F.gelu(hidden)
        out = F.linear(hidden, self.last, self.last_bias)
        width = inputs.shape[1]
        total = torch.log1p((inputs - out[:, :width]).square() * self.precision).sum(1)
        blocks = fused.blocks(folded.sizes, width)
        for (a, b), code, weight in zip(blocks, codes, folded.category_precision, strict=True):
            odds = out[:, a:b].softmax(1)
            hit = odds.gather(1, code[:, None])[:, 0]
            total += (odds.square().sum(1) - 2 * hit + 1).mul(float(weight)).log1p()
        return total


def main(lake: str, bundle: str, threshold: float) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network, folded = Network(Path(bundle), device), fused.read(Path(bundle))
    streams: list[torch.cuda.Stream | None] = [None]
    if device.type == "cuda":
        streams = [torch.cuda.Stream() for _ in range(_STREAMS)]  # type: ignore[no-untyped-call]
    pa.set_cpu_count(1)
    files = sorted(str(path) for path in Path(lake).rglob("*.parquet"))

    def work(path: str) -> tuple[int, int]:
        file = pq.ParquetFile(path, read_dictionary=["src", "dst", *folded.vocabularies])
        flagged = 0
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, list(folded.columns), use_threads=False)
            stream = streams[threading.get_ident() % len(streams)]
            with torch.cuda.stream(stream):
                columns = [
                    torch.from_numpy(fused.numbers(table.column(n))).to(device, non_blocking=True)
                    for n in folded.numbers
                ]
                codes = [
                    torch.from_numpy(fused.codes(table.column(n), known)).to(device).long()
                    for n, known in folded.vocabularies.items()
                ]
                scores = network.score(columns, codes)
                places = torch.nonzero(scores > threshold)[:, 0].cpu().numpy()
            if len(places):
                kept = file.read_row_group(group, list(_KEPT), use_threads=False)
                flagged += kept.take(pa.array(places)).num_rows
        return file.metadata.num_rows, flagged

    threads = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(threads) as pool:
        work(files[0])
        began = time.perf_counter()
        done = list(pool.map(work, files))
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    rows = sum(count for count, _ in done)
    print(
        json.dumps(
            {
                "threads": threads,
                "rows": rows,
                "flagged": sum(count for _, count in done),
                "seconds": round(seconds, 3),
                "million rows a second": round(rows / seconds / 1e6, 2),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
