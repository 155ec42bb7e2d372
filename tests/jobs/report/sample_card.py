"""A run card's document as a night of network flows would leave it, seeded."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from jobs.report.document import Card, DayEntry, FlagLine, Picture, ProfileFacts, TopFlag
from jobs.report.profile import ACTOR_STAGES, Profile
from models.explaining.pictures import draw
from models.layout import SignalInput
from models.scores.quality import evaluate

HOSTS = ("10.12.4.31", "10.12.9.200", "10.12.7.18", "10.12.3.77", "10.12.44.2", "10.12.0.9")
INCIDENTS: tuple[tuple[str, str, list[tuple[str, float, str, str]]], ...] = (
    (
        "10.12.4.31",
        "203.0.113.77",
        [
            ("bytes_out", 41.2, "1,840,221,003", "12,400"),
            ("duration", 11.7, "5,402 s", "1.3 s"),
            ("hour of ts", 4.1, "03:12", "between 8 and 19"),
        ],
    ),
    (
        "10.12.9.200",
        "10.12.0.9",
        [
            ("port_dst", 9.8, "31337", "443"),
            ("conn_state", 7.7, "REJ", "SF"),
            ("packets_out", 5.2, "1", "14"),
        ],
    ),
    (
        "10.12.7.18",
        "198.51.100.4",
        [
            ("bytes_in", 6.1, "120", "48,210"),
            ("interval to the last flow", 5.9, "60.0 s", "4.2 s"),
            ("service", 1.2, "other", "ssl"),
            ("packets_out is null", 0.4, "yes", "no"),
        ],
    ),
)


def sample_card() -> Card:
    """Thirteen training days, 1.2 million rows, three planted incidents, some bad input."""
    rng = np.random.default_rng(20261122)
    start = datetime(2026, 11, 22, tzinfo=UTC)
    normal = rng.lognormal(-0.7, 0.6, 60_000)
    odd = rng.lognormal(2.6, 0.5, 180)
    edges = np.geomspace(0.03, 120, 61)
    counts = np.histogram(np.r_[np.repeat(normal, 20), odd], edges)[0]
    calibration = np.histogram(rng.lognormal(-0.72, 0.6, 90_000), edges)[0]
    busy = 60_000 * (0.35 + np.exp(-(((np.arange(48) / 2 - 13.5) / 5) ** 2)))
    flags = rng.poisson(0.6, 48) + np.where(np.arange(48) == 6, 57, 0)
    flags += np.where((np.arange(48) > 27) & (np.arange(48) < 36), 8, 0)
    scored = int(counts.sum())
    top = [_flag(rng, start, i) for i in range(20)]
    rows = scored + 37 + 2_048
    return {
        "run": {
            "watch": "demo_flows",
            "day": "2026-11-22",
            "run_id": "4be1c0a97d2f5e83",
            "status": "committed",
            "started": "2026-11-23T01:00:03.211+00:00",
            "finished": "2026-11-23T01:02:16.871+00:00",
            "seconds": 133.66,
            "rows_per_second": rows / 133.66,
            "command": "python -m jobs score specs/demo_flows.yaml --day 2026-11-22",
            "table_version": 41,
            "input_version": 7,
        },
        "books": {
            "rows": rows,
            "filtered": 2_048,
            "scored": scored,
            "quarantined": 37,
            "flagged": int(flags.sum()),
            "non_finite": 0,
            "splits": 31,
            "tasks": 31,
            "retried": 1,
            "resent": 3,
            "checked_by_pages": 61_002_114,
            "checked_by_store": 0,
            "unchecked": 4_811_302,
            "files": 24,
            "rejected_files": 1,
            "bytes": 87_332_119,
            "duplicate_ids": 0,
        },
        "gates": [
            {"name": "day", "passed": True, "message": "24 files, 1,202,265 rows"},
            {"name": "finite scores", "passed": True, "message": "no NaN, no infinity"},
            {"name": "flag rate", "passed": True, "message": "0.012%, allowed 0.0001% to 1%"},
            {"name": "quarantine", "passed": True, "message": "0.003%, allowed up to 0.1%"},
            {"name": "volume", "passed": True, "message": "1.04 times the median of 13 days"},
        ],
        "threshold": {
            "value": 6.3151,
            "policy": {"name": "budget", "flags": 150, "per": "day"},
            "id": "b3d1a4f09c77e210",
        },
        "bundle": {
            "id": "9f2c11d47ab05e36",
            "digest": "9f2c11d47ab05e36c7d44a7a5b01e3ff0c9d6a2bd5a1e8fb6cd7e0c2a4b89d10",
            "detector": "autoencoder",
            "options": {"widths": [64, 16], "dropout": 0.1, "denoising": 0.05},
            "trained_days": [f"2026-11-{d:02d}" for d in range(9, 22)],
            "created": "2026-11-22T01:14:50+00:00",
            "versions": {"torch": "2.13.0", "ray": "2.60.0", "pyarrow": "26.0.1"},
            "features": 47,
            "parameters": 11_823,
            "computed_by": "onnx",
            "started_from": "0123456789abcdef",
            "chosen": {
                "winner": "autoencoder",
                "criterion": "rank correlation with all candidates",
                "tried": [
                    {"candidate": "knn", "figure": 0.91, "seconds": 1.5, "note": ""},
                    {"candidate": "autoencoder", "figure": 0.95, "seconds": 8.25, "note": ""},
                    {
                        "candidate": "diffusion_time",
                        "figure": None,
                        "seconds": 0.0,
                        "note": "not tried: the budget was used up",
                    },
                ],
            },
        },
        "score_histogram": {
            "edges": edges.tolist(),
            "counts": counts.tolist(),
            "calibration_counts": calibration.tolist(),
        },
        "flags_over_time": {
            "bins": [(start + timedelta(minutes=30 * i)).isoformat() for i in range(48)],
            "flags": flags.tolist(),
            "rows": rng.poisson(busy * 1.2e6 / busy.sum()).tolist(),
        },
        "entities": [
            {
                "column": "host_src" if i % 3 else "host_dst",
                "value": host,
                "flags": n,
                "max_severity": 97.1 - 2.3 * i,
            }
            for i, (host, n) in enumerate(zip(HOSTS, (58, 33, 21, 4, 2, 1), strict=True))
        ],
        "top_flags": top,
        "flags": [_list_flag(top[i % 20], 0.98**i) for i in range(int(flags.sum()))],
        "quarantine": [
            {
                "column": "duration",
                "file": "day=2026-11-22/part-00007.parquet",
                "rule": "not_finite",
                "rows": 31,
                "examples": [118, 119, 5_210, 48_112, 48_113],
            },
            {
                "column": "port_dst",
                "file": "day=2026-11-22/part-00011.parquet",
                "rule": "out_of_range",
                "rows": 6,
                "examples": [7, 90_001],
            },
            {
                "column": None,
                "file": "day=2026-11-22/part-00019.parquet",
                "rule": "truncated",
                "rows": 0,
                "examples": [],
            },
        ],
        "training": _training(rng),
        "quality": _quality(rng),
        "warnings": ["column 'vlan' is in the input and not in the spec"],
        "profile": _profile(rows),
    }


def _profile(rows: int) -> ProfileFacts:
    driver = {"start": 4.2, "list": 0.8, "plan": 0.1, "commit": 0.6, "card": 0.9, "wait": 126.6}
    seconds = (0.2, 1.1, 61.4, 52.0, 9.7, 83.2, 6.4, 12.8, 8.1, 1.9)
    actors = dict(zip(ACTOR_STAGES, seconds, strict=True))
    return Profile(133.66, 2, rows, driver, actors).to_document()


def _flag(rng: np.random.Generator, start: datetime, i: int) -> TopFlag:
    source, destination, reasons = INCIDENTS[(i * i + i // 2) % 3]
    return {
        "severity": float(99.2 - 1.3 * i + rng.uniform(-0.3, 0.3)),
        "score": float(61.4 * 0.9**i),
        "time": (start + timedelta(seconds=11_533 + 977 * i)).isoformat(),
        "id": {"uid": f"C{rng.integers(16**10):010x}"},
        "entities": {"host_src": source, "host_dst": destination},
        "kept": {"proto": "tcp", "service": None if i % 4 else "ssl", "bytes_out": 1_840_221_003},
        "reasons": [
            {
                "feature": f,
                "contribution": c * 0.9**i,
                "observed": o,
                "expected": e,
                "usual": "median 60, 1 to 7,000" if f == "bytes_out" else None,
            }
            for f, c, o, e in reasons
        ],
        "picture": None if i % 3 else _picture(rng),
    }


def _list_flag(flag: TopFlag, share: float) -> FlagLine:
    return {
        "severity": flag["severity"] * share,
        "score": flag["score"] * share,
        "time": flag["time"],
        "id": flag["id"],
        "entities": flag["entities"],
        "kept": flag["kept"],
        "reason": flag["reasons"][0],
    }


def _picture(rng: np.random.Generator) -> Picture:
    """An hour of a host's load, of which the last minutes are to blame."""
    signal = SignalInput("load", "series", (6, 60))
    values = rng.normal(size=signal.shape).cumsum(1).astype(np.float32)
    shares = (values**2 * (np.arange(60) > 50)).astype(np.float32)
    return {
        "feature": signal.name,
        "png": draw(signal, values, shares),
    }


def _training(rng: np.random.Generator) -> Any:
    losses = 0.21 + 1.1 * np.exp(-np.arange(14) / 2.2)
    return {
        "epochs": [
            {
                "epoch": i + 1,
                "train_loss": float(loss * rng.uniform(0.99, 1.01)),
                "validation_loss": float(loss * 1.04 + max(0, i - 9) * 0.006),
                "learning_rate": 1e-3 * 0.8**i,
                "rows_per_second": float(rng.uniform(2.4e5, 2.6e5)),
            }
            for i, loss in enumerate(losses)
        ],
        "best_epoch": 10,
        "seconds": 812.4,
        "rows": 14_802_110,
    }


def _quality(rng: np.random.Generator) -> Any:
    labels = (rng.random(20_000) < 0.01).astype(np.int8)
    kinds = [("port scan", "beaconing", "exfiltration")[i % 3] for i in range(20_000)]

    def measured(shift: float) -> dict[str, Any]:
        scores = rng.normal(labels * shift).astype(np.float32)
        return evaluate(scores, labels, 2.6, kinds, ks=(100,), resamples=50).to_document()

    return {
        "detector": measured(4.4),
        "baselines": {"isolation_forest": measured(2.9), "pca": measured(3.2)},
    }


def sample_days(count: int = 30) -> list[DayEntry]:
    """Days up to the sample card's, one of them refused."""
    rng = np.random.default_rng(7)
    last = datetime(2026, 11, 22, tzinfo=UTC)
    entries: list[DayEntry] = []
    for i in range(count):
        day = f"{last - timedelta(days=i):%Y-%m-%d}"
        entries.append(
            {
                "watch": "demo_flows",
                "day": day,
                "status": "refused" if i == 9 else "committed",
                "rows": int(rng.normal(1.2e6, 4e4)),
                "flagged": int(rng.poisson(40)) + (160 if i in (0, 13) else 0),
                "quarantined": int(rng.poisson(12)),
                "link": f"day={day}/card.html",
                "run_id": f"{int(rng.integers(2**62)):016x}",
                "when": f"{last - timedelta(days=i - 1):%Y-%m-%d}T01:02:16+00:00",
                "scored": 1_199_000,
                "seconds": 12.5,
                "threshold": 3.2,
                "score_drift": 0.04,
            }
        )
    return entries
