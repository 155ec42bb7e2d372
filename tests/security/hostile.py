"""Texts that attack the program that shows them, and a lake with them in every field."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

ATTACKS = (
    "</script><script>alert('a script ran')</script>",
    "<img src=x onerror=alert('an image ran')>",
    "'\"><svg/onload=alert('a drawing ran')>",
    "<a href='javascript:alert(1)'>x</a><iframe src='http://evil.example/'></iframe>",
    "<style>@import 'http://evil.example/style.css';</style>",
    "{{ 7 * 191 }}{% raw %}",
    "[red]markup[/red] [link=http://evil.example]x[/link] [/]",
    '=HYPERLINK("http://evil.example","x")',
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "\x1b]0;title\x07\x1b[2J\x1b[31mred\x9b31m",
    'line\r\nX-Injected: yes\r\n{"event": "forged"}',
    "admin\u202egnp.exe\u2066\u200b\u2028",
    "before\x00after\x08\x7f",
    "e" + "\u0301" * 400,
    "a" * 100_000,
)
NAMES = ("<img src=x onerror=alert('a name ran')>", "=1+1", "[bold]name")  # of columns and files

DAYS = ("2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04")
ROWS = 300  # a day
EVERY = 20  # one row in 20 is unusual

# Values that no output may contain. Each is in many rows.
CARD, PERSON, STREET, HOST = (
    "4000123412345678",
    "Canary Q. Yellowbird",
    "17 Canary Lane, Birdham",
    "203.0.113.77",
)
LAST_FOUR = "****5678"
ACCOUNT = 770_055_123_000
CANARIES = (CARD, PERSON, STREET, HOST, "77005512")


def write(folder: Path, signer: str) -> Path:
    """Four days of payments, and the spec of their watch; returns the spec's path."""
    for number, day in enumerate(DAYS):
        target = folder / "payments" / f"day={day}"
        target.mkdir(parents=True)
        table = payments(datetime.fromisoformat(day).replace(tzinfo=UTC), number)
        half = ROWS // 2
        for name, part in ((f"{NAMES[0]}.parquet", table[:half]), ("=1+1.parquet", table[half:])):
            pq.write_table(part, target / name)
    (folder / "payments" / f"day={DAYS[3]}" / f"{NAMES[2]}.parquet").write_bytes(b"no Parquet")
    document = spec(folder, {"signed": "required", "keys": [signer]})
    path = folder / "watch.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    return path


def payments(day: datetime, number: int) -> pa.Table:
    """Rows of a day; on the last, some cannot be scored."""
    rows = range(ROWS)
    odd = [row % EVERY == 7 for row in rows]
    attacks = [ATTACKS[(row // EVERY) % len(ATTACKS)] for row in rows]
    amount = [900.0 + row if odd[row] else 10.0 + row % 7 for row in rows]
    if number == 3:
        amount[8], amount[9] = math.nan, -1.0
    columns = {
        "account": [ACCOUNT + number * ROWS + row for row in rows],
        "at": [day + timedelta(minutes=4 * row) for row in rows],
        "street": [STREET if odd[row] else f"{row} Road" for row in rows],
        "person": [f"{PERSON} {text[:50]}" for text in attacks],
        "card": [CARD] * ROWS,
        "host": [HOST if odd[row] else f"10.0.0.{row % 9}" for row in rows],
        "note": attacks,
        "shop": [attacks[row] if odd[row] else "shop" for row in rows],
        NAMES[0]: attacks,
        "amount": amount,
    }
    return pa.table(columns)


def spec(folder: Path, bundle: dict[str, object] | None = None) -> dict[str, object]:
    return {
        "name": "payments",
        "input": {"uri": str(folder / "payments"), "partition": "day"},
        "columns": {
            "account": {"role": "id", "sensitive": "hmac"},
            "at": {"role": ["time", "timestamp"]},
            "street": {"role": "entity", "sensitive": "hmac"},
            "person": {"role": "keep", "sensitive": "mask"},
            "card": {"role": "keep", "sensitive": "mask"},
            "host": {"role": ["entity", "ip"], "sensitive": "hmac"},
            "note": {"role": ["entity", "text"], "ngrams": 16, "length": 16},
            "shop": {"role": "categorical"},
            NAMES[0]: {"role": "keep"},
            "amount": {"role": "numeric", "range": [0, None]},
        },
        "detector": {"name": "pca"},
        "training": {"days": f"{DAYS[0]}..{DAYS[2]}", "baselines": []},
        "threshold": {"policy": "quantile", "contamination": 0.05},
        "gates": {
            "flag_rate": [0, 1],
            "volume": None,
            "quarantine_rate": 1,
            "quarantined_files": 9,
        },
        "output": {"uri": str(folder / "out"), "scores": "all"},
        "bundle": bundle or {"signed": "optional"},
    }
