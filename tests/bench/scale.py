"""What a very large night costs: `python -m tests.bench.scale` writes docs/scale.md.

From what `tests.bench.plan` and `tests.bench.requests` measured, the rates of docs/performance.md,
and prices that are assumptions.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster.lake.input.splits import SPLIT_ROWS, split_limits
from tests.bench import chart, machine
from tests.bench.measure import ROOT

GIB, TB, PB = 1024**3, 10**12, 10**15
# Rows a second of a GPU that the table of GPU hours is made for: what-ifs, none was measured.
GPU_RATES = (1e6, 5e6, 25e6)
# docs/performance.md: W4-64M, 64 million rows of 6,793 MB Parquet in 95.1 CPU seconds; from S3 at
# 0.89 of the pace (W1).
BYTES_A_ROW = 6_793e6 / 64e6
PLAIN_BYTES_A_ROW = 124  # of W1's files, uncompressed, by their footers
ROWS_A_CORE = 64e6 / 95.1 * 0.89
PART = 16 * 1024**2  # bytes of a GET of a large range (`cluster.lake.storage.ranged_file`)
NIGHT_H = 6.0


@dataclass(frozen=True)
class Prices:
    """US dollars, list prices of us-east-1 as assumed here: put yours in their place."""

    vcpu_hour: float = 0.0446  # c7i, on demand
    gpu_hour: float = 0.805  # g6.xlarge: one L4 and 4 vCPU, on demand
    get: float = 0.4e-6  # GET, HEAD
    put: float = 5e-6  # PUT, POST, LIST


@dataclass(frozen=True)
class Size:
    """A night's input, as W1 has it: Parquet bytes, and what follows from them."""

    name: str
    bytes: float

    @property
    def rows(self) -> int:
        return round(self.bytes / BYTES_A_ROW)

    @property
    def split_rows(self) -> int:
        return split_limits(self.rows, self.rows * PLAIN_BYTES_A_ROW)[0]

    @property
    def splits(self) -> int:
        return -(-self.rows // self.split_rows)

    @property
    def core_hours(self) -> float:
        return self.rows / ROWS_A_CORE / 3600


SIZES = (Size("10 TB", 10 * TB), Size("1 PB", PB))


def requests_of(size: Size, lines: dict[str, Any]) -> dict[str, float]:
    """Requests by kind: the measured lines, and one more GET for each 16 MiB of input."""
    total: dict[str, float] = {}
    for line in lines.values():
        for kind, slope in line["slope"].items():
            total[kind] = total.get(kind, 0) + line["base"][kind] + slope * size.splits
    total["GET"] += size.bytes / PART
    return total


def dollars(requests: dict[str, float], prices: Prices) -> float:
    reads = requests["GET"] + requests["HEAD"]
    return reads * prices.get + sum(requests[k] for k in ("PUT", "POST", "LIST")) * prices.put


def driver_of(splits: int, driver: list[dict[str, Any]]) -> tuple[float, float]:
    """Seconds of the driver's own work, without a resume, and its peak GiB: between the sizes that
    were measured, along a line."""
    sizes = sorted({one["splits"] for one in driver})
    seconds = [
        sum(one["seconds"] for one in driver if one["splits"] == n and one["step"] != "resume")
        for n in sizes
    ]
    peaks = [max(one["mib"] for one in driver if one["splits"] == n) for n in sizes]
    return float(np.interp(splits, sizes, seconds)), float(np.interp(splits, sizes, peaks)) / 1024


def page(driver: list[dict[str, Any]], lines: dict[str, Any], prices: Prices) -> str:
    return (
        "\n\n".join(
            [
                "# What a very large night costs",
                "Written by `make bench-plan` from measured results; not edited by hand. Machine "
                f"of the driver's figures: {_machine()}.",
                _driver_table(driver),
                _requests_table(lines),
                _nights(driver, lines, prices),
                _bounds(prices),
                _assumptions(prices),
            ]
        )
        + "\n"
    )


def _machine() -> str:
    found = machine.describe()
    return f"{found['cpu']}, {found['cores']} cores, {found['memory_gib']} GiB"


def _driver_table(driver: list[dict[str, Any]]) -> str:
    sizes = sorted({one["splits"] for one in driver})
    steps = list(dict.fromkeys(one["step"] for one in driver))
    found = {(one["step"], one["splits"]): one for one in driver}
    head = "| step | " + " | ".join(f"{size:,} splits" for size in sizes) + " |"
    rows = [
        f"| {step} | "
        + " | ".join(
            f"{found[step, n]['seconds']:.1f} s, {found[step, n]['mib']:,.0f} MiB" for n in sizes
        )
        + " |"
        for step in steps
    ]
    about = (
        "## The driver\n\n"
        "One process plans the night, hands out tasks, adds up receipts and commits. Actors do "
        "everything else. Measured is the driver's own code (`tests/bench/plan.py`), on a snapshot "
        "without data files and with made-up receipts as large as those of W1: the time of each "
        "step, and the peak memory of the process.\n\n"
        "![seconds of the driver by step](scale.svg)"
    )
    after = (
        "`sum up` is spread over the whole night. `resume` is the work of a second driver, after "
        "the first was killed near the end of the run. Memory counts the list of files and the "
        "plan."
    )
    table = "\n".join([head, "|---|" + "---:|" * len(sizes), *rows])
    return f"{about}\n\n{table}\n\n{after}"


def _requests_table(lines: dict[str, Any]) -> str:
    kinds = ("GET", "HEAD", "LIST", "PUT", "POST", "DELETE")
    head = "| step | " + " | ".join(f"{kind} a split" for kind in kinds) + " | and a run |"
    rows = [
        f"| {step} | "
        + " | ".join(f"{abs(line['slope'][kind]):.3f}" for kind in kinds)
        + f" | {max(0, sum(line['base'].values())):,.0f} |"
        for step, line in lines.items()
    ]
    about = (
        "## Requests to S3\n\n"
        "Counted at the server (`tests/bench/requests.py`), for the driver's steps at 1,000 and "
        "4,000 splits. `score` is a whole command with Ray, over days of 16 and 64 files of one "
        "split each; it counts the requests of actors and driver together. In addition, one GET is "
        "sent for each 16 MiB of input. A resumed run lists the journal, in pages of 1,000 names, "
        "only if more than one split in 25 has no segment yet. Otherwise it asks for records by "
        "name, at most a thousand after one driver was killed."
    )
    return "\n".join([about, "", head, "|---|" + "---:|" * (len(kinds) + 1), *rows])


def _nights(driver: list[dict[str, Any]], lines: dict[str, Any], prices: Prices) -> str:
    rows: dict[str, list[str]] = {}
    for size in SIZES:
        seconds, gib = driver_of(size.splits, driver)
        requests = requests_of(size, {k: v for k, v in lines.items() if k == "score"})
        cores = size.core_hours / NIGHT_H
        compute, asked = size.core_hours * prices.vcpu_hour, dollars(requests, prices)
        for name, text in {
            "rows": f"{size.rows:.2g}",
            "rows of a split, at most": f"{size.split_rows:,}",
            "splits": f"{size.splits:,}",
            "driver's own seconds": f"{seconds:,.0f}",
            "driver's peak memory": f"{gib:.1f} GiB",
            "GET and HEAD": f"{requests['GET'] + requests['HEAD']:.2g}",
            "PUT, POST and LIST": f"{sum(requests[k] for k in ('PUT', 'POST', 'LIST')):.2g}",
            "requests": f"${asked:,.2f}",
            "core hours": f"{size.core_hours:,.0f}",
            f"cores, for a night of {NIGHT_H:g} hours": f"{cores:,.0f}",
            "their network": f"{size.bytes * 8 / NIGHT_H / 3600 / 1e9:,.1f} Gbit/s",
            "cores, at their price": f"${compute:,.2f}",
            "**the night**": f"**${compute + asked:,.2f}**",
        }.items():
            rows.setdefault(name, []).append(text)
    head = "| | " + " | ".join(size.name for size in SIZES) + " |"
    table = [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    about = (
        "## A night of 10 TB, and one of 1 PB\n\n"
        f"The bytes are of Parquet files as in W1, {BYTES_A_ROW:.0f} bytes a row. CPUs score them "
        f"with W1's autoencoder at {ROWS_A_CORE:,.0f} rows a second for each core "
        "(docs/performance.md: the rate of W4-64M, times 0.89 for S3)."
    )
    return "\n".join([about, "", head, "|---|" + "---:|" * len(SIZES), *table])


def _bounds(prices: Prices) -> str:
    a_gpu = 25e9 / 8 / BYTES_A_ROW
    rows = "\n".join(
        f"| {size.name} | {size.bytes * 8 / 25e9 / NIGHT_H / 3600:.1f} | "
        f"{size.bytes * 8 / 100e9 / NIGHT_H / 3600:.1f} | "
        f"{size.rows / NIGHT_H / 3600:.3g} |"
        for size in SIZES
    )
    hours = "\n".join(
        f"| {rate / 1e6:g} million | " + " | ".join(_on_gpus(s, rate, prices) for s in SIZES) + " |"
        for rate in GPU_RATES
    )
    split_gib = SIZES[-1].split_rows * PLAIN_BYTES_A_ROW / GIB
    return (
        "## On GPUs\n\n"
        "This page claims no rate of a GPU, because none was measured for it. If a GPU scores `r` "
        "rows a second, a night takes `rows / (3600 r)` GPU hours. The network bounds `r`: "
        f"{a_gpu / 1e6:,.0f} million rows a second at 25 Gbit/s a node, four times that at 100 "
        "Gbit/s. So do the CPUs of the node, each of which decodes about "
        f"{ROWS_A_CORE / 1e6:.1f} million rows a second. A GPU pays if scoring a row costs more "
        "than decoding it: images, series, texts, wide networks.\n\n"
        "| | nodes of 25 Gbit/s at least | of 100 Gbit/s | rows a second in all |\n"
        "|---|---:|---:|---:|\n" + rows + "\n\n"
        "If a GPU had these rates, its hours and their price would be:\n\n"
        "| rows a second | 10 TB | 1 PB |\n|---|---:|---:|\n" + hours + "\n\n"
        "## Where it breaks next\n\n"
        f"A split has at most {SPLIT_ROWS:,} rows or 256 MiB. A day that would have more than a "
        "million splits gets larger ones: the driver and the commit stay as they are at a million, "
        f"and actors need more memory ({split_gib:.1f} GiB uncompressed for a split of a petabyte)"
        ". A split never spans two files, so it cannot grow beyond its file. A petabyte in files "
        "of 10 MB is a hundred million splits, too many for one driver. Compact such a lake first, "
        "or partition it by the hour (`input.partition`): each hour is then a run and a commit."
    )


def _on_gpus(size: Size, rate: float, prices: Prices) -> str:
    hours = size.rows / rate / 3600
    return f"{hours:,.1f} hours, ${hours * prices.gpu_hour:,.2f}"


def _assumptions(prices: Prices) -> str:
    return (
        "## Assumptions\n\n"
        "| | US dollars |\n|---|---:|\n"
        f"| an hour of a vCPU (c7i, on demand; spot is about a third) | {prices.vcpu_hour} |\n"
        f"| an hour of a small GPU node (g6.xlarge) | {prices.gpu_hour} |\n"
        f"| a million GET or HEAD | {prices.get * 1e6:.2f} |\n"
        f"| a million PUT, POST or LIST | {prices.put * 1e6:.2f} |\n\n"
        "These are assumed list prices of us-east-1, not looked up. To use yours, change `Prices` "
        "in `tests/bench/scale.py` and run it again. Not counted: storage, one head node all "
        "night, and traffic between zones, which a gateway endpoint avoids."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("demo/plan"))
    given = parser.parse_args()
    driver = json.loads((given.folder / "driver.json").read_text())
    lines = json.loads((given.folder / "requests.json").read_text())
    (ROOT / "docs/scale.md").write_text(page(driver, lines, Prices()))
    largest = max(one["splits"] for one in driver)
    bars = [
        chart.Bar(one["step"], one["seconds"], f"{one['seconds']:.1f} s", True)
        for one in driver
        if one["splits"] == largest
    ]
    title = f"The driver of {largest:,} splits"
    (ROOT / "docs/scale.svg").write_text(chart.bars(title, "seconds", bars))
    print("wrote docs/scale.md and docs/scale.svg")


if __name__ == "__main__":
    main()
