"""Draws days of card transactions: people with habits, terminals, and a bank's view of both."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.demo.flows import Floats, Ints, Rng

ROWS = 12_000  # transactions on an average day at scale 1
CUSTOMERS = 8_000  # at scale 1: about 1.5 payments a customer and day
TERMINALS = 1_500
REGION = 400.0  # km, the side of the square that people live in

# name, share of the payments, ratio to the usual amount, share of them online, first and last hour
CATEGORIES = (
    ("grocery", 0.30, 0.9, 0.03, (8, 21)),
    ("restaurant", 0.16, 0.8, 0.00, (11, 23)),
    ("fuel", 0.08, 1.3, 0.00, (6, 22)),
    ("transport", 0.10, 0.4, 0.20, (5, 24)),
    ("clothing", 0.08, 1.6, 0.45, (9, 22)),
    ("electronics", 0.04, 3.0, 0.55, (9, 23)),
    ("health", 0.06, 1.0, 0.05, (8, 20)),
    ("subscription", 0.09, 0.4, 1.00, (0, 24)),
    ("travel", 0.03, 4.0, 0.80, (6, 24)),
    ("cash", 0.06, 2.0, 0.00, (6, 24)),
)
COUNTRIES = np.array(["DE", "FR", "NL", "AT", "IT", "ES", "US", "GB", "PL", "TR", "BR", "VN"])
HOME = np.array([0.962, 0.009, 0.007, 0.006, 0.004, 0.004, 0.003, 0.002, 0.001, 0.001, 5e-4, 5e-4])
DAYS_OF_WEEK = (0.92, 0.94, 0.97, 1.02, 1.2, 1.22, 0.73)

STOLEN_CARDS, STOLEN_ROWS, TERMINAL_ROWS = 3, 9, 26  # on a day with the incident, at scale 1

Cards = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class People:
    """The customers and terminals, which stay the same from day to day."""

    usual: Floats  # median amount of each customer
    spread: Floats  # of the log of the amounts
    activity: Floats  # share of all payments, Zipf with a gentle slope
    place: Floats  # [customers, 2] km
    terminal_place: Floats  # [terminals, 2] km
    terminal_category: Ints
    terminal_since: Ints  # days in service on the first day
    near: Ints  # [customers, 6] terminals where a customer pays

    @classmethod
    def draw(cls, rng: Rng, scale: float) -> "People":
        count = max(60, round(CUSTOMERS * scale))
        terminals = max(60, round(TERMINALS * scale))
        weight = rng.gamma(1.6, 1.0, count) + 0.05
        places = rng.uniform(0, REGION, (terminals, 2))
        home = rng.integers(0, terminals, count)
        shares = np.array([entry[1] for entry in CATEGORIES])
        return cls(
            usual=rng.lognormal(3.2, 0.45, count),
            spread=rng.uniform(0.35, 0.7, count),
            activity=weight / weight.sum(),
            place=places[home] + rng.normal(0, 4, (count, 2)),
            terminal_place=places,
            terminal_category=rng.choice(len(CATEGORIES), terminals, p=shares / shares.sum()),
            terminal_since=rng.exponential(900, terminals).astype(np.int64) + 1,
            near=_find_neighbours(places)[home],
        )


def draw_day(
    people: People, rng: Rng, day: date, scale: float, number: int, last: bool
) -> pa.Table:
    """The transactions of one day in the order of time, with the incidents of the day."""
    noise = rng.normal(1.0, 0.03)
    rows = max(50, round(ROWS * scale * DAYS_OF_WEEK[day.weekday()] * noise))
    parts = [_draw_usual(people, rng, rows, number)]
    if last or number % 3 == 1:
        cards = max(1, round(STOLEN_CARDS * scale))
        parts.extend(_draw_stolen_card(people, rng, number) for _ in range(cards))
    if last or number % 4 in (2, 3):
        terminals = max(1, round(scale))
        each = max(3, round(TERMINAL_ROWS * scale / terminals))
        parts.extend(
            _draw_compromised_terminal(people, rng, each, number) for _ in range(terminals)
        )
    cards_ = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(cards_["seconds_of_day"], kind="stable")
    cards_ = {name: values[order] for name, values in cards_.items()}
    return _make_table(people, cards_, rng, day, number)


def _draw_usual(people: People, rng: Rng, rows: int, number: int) -> Cards:
    customer = rng.choice(len(people.usual), rows, p=people.activity)
    terminal = people.near[customer, rng.integers(0, people.near.shape[1], rows)]
    away = rng.random(rows) < 0.05  # a trip: any terminal
    terminal = np.where(away, rng.integers(0, len(people.terminal_place), rows), terminal)
    cards = _draw_payments(people, rng, customer, terminal, number)
    abroad = rng.random(rows) > HOME[0]
    weights = HOME[1:] / HOME[1:].sum()
    cards["country"] = np.where(abroad, COUNTRIES[1:][rng.choice(11, rows, p=weights)], "DE")
    km = np.where(abroad, rng.lognormal(6.6, 0.7, rows), cards["km"])
    online = cards["entry_mode"] == "online"
    cards["km"] = np.where(online, 0, km)
    return cards


def _draw_payments(people: People, rng: Rng, customer: Ints, terminal: Ints, number: int) -> Cards:
    """Usual payments of these customers at these terminals."""
    rows = len(customer)
    category = people.terminal_category[terminal]
    first, until = np.array([entry[4] for entry in CATEGORIES])[category].T
    online = rng.random(rows) < np.array([entry[3] for entry in CATEGORIES])[category]
    modes = np.array(["contactless", "chip", "magstripe"])
    mode = np.where(online, "online", modes[rng.choice(3, rows, p=[0.68, 0.3, 0.02])])
    level = np.array([entry[2] for entry in CATEGORIES])[category]
    ratio = level * np.exp(people.spread[customer] * rng.normal(size=rows))
    step = people.terminal_place[terminal] - people.place[customer]
    return {
        "customer": customer,
        "terminal": terminal,
        "category": category,
        "seconds_of_day": (first + (until - first) * rng.beta(2.2, 2.0, rows)) * 3_600,
        "entry_mode": mode,
        "ratio": ratio,
        "km": np.where(online, 0.0, np.hypot(*step.T)),
        "country": np.full(rows, "DE", dtype="U2"),
        "since": people.terminal_since[terminal] + number,
        "incident": np.full(rows, "", dtype="U20"),
    }


def _draw_stolen_card(people: People, rng: Rng, number: int) -> Cards:
    """A stolen card: many payments in a few hours, high, far away or online."""
    customer = np.full(STOLEN_ROWS, rng.choice(len(people.usual), p=people.activity))
    terminal = rng.integers(0, len(people.terminal_place), STOLEN_ROWS)
    cards = _draw_payments(people, rng, customer, terminal, number)
    start = rng.uniform(0, 20) * 3_600
    cards["seconds_of_day"] = start + np.sort(rng.uniform(0, 3 * 3_600, STOLEN_ROWS))
    cards["ratio"] = cards["ratio"] * rng.uniform(1.5, 5.0, STOLEN_ROWS)
    online = rng.random(STOLEN_ROWS) < 0.4
    cards["entry_mode"] = np.where(online, "online", rng.choice(["magstripe", "contactless"]))
    cards["country"][:] = rng.choice(COUNTRIES[5:])
    cards["km"] = np.where(online, 0.0, rng.lognormal(7.3, 0.2))
    cards["incident"][:] = "stolen card"
    return cards


def _draw_compromised_terminal(people: People, rng: Rng, rows: int, number: int) -> Cards:
    """A new terminal that copies cards: high payments by magnetic stripe, at night."""
    terminal = np.full(rows, rng.integers(0, len(people.terminal_place)))
    customer = rng.choice(len(people.usual), rows, p=people.activity)
    cards = _draw_payments(people, rng, customer, terminal, number)
    cards["seconds_of_day"] = rng.uniform(0, 7, rows) * 3_600
    cards["entry_mode"] = np.where(rng.random(rows) < 0.75, "magstripe", "chip").astype("U11")
    cards["ratio"] = cards["ratio"] * rng.uniform(1.5, 4.0, rows)
    cards["km"] = np.hypot(*(people.terminal_place[terminal] - people.place[customer]).T)
    cards["since"][:] = rng.integers(1, 15)
    cards["incident"][:] = "compromised terminal"
    return cards


def _make_table(people: People, cards: Cards, rng: Rng, day: date, number: int) -> pa.Table:
    rows = len(cards["customer"])
    midnight = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
    ts = np.int64(midnight) * 1_000_000 + (cards["seconds_of_day"] * 1e6).astype(np.int64)
    planted = cards["incident"] != ""
    names = np.array([entry[0] for entry in CATEGORIES])
    amount = np.round(people.usual[cards["customer"]] * cards["ratio"], 2).clip(0.5)
    ids = (number + 1) * 10_000_000 + np.arange(rows, dtype=np.int64)
    return pa.table(
        {
            "transaction_id": pa.array(ids),
            "ts": pa.array(ts, pa.timestamp("us", tz="UTC")),
            "customer_id": pa.array(_format_ids("C", cards["customer"])),
            "terminal_id": pa.array(_format_ids("T", cards["terminal"])),
            "amount": pa.array(amount),
            "category": pa.array(names[cards["category"]]),
            "entry_mode": pa.array(cards["entry_mode"]),
            "country": pa.array(cards["country"]),
            "amount_ratio_30d": pa.array(np.round(cards["ratio"] * rng.normal(1, 0.06, rows), 3)),
            "km_from_home": pa.array(np.round(cards["km"], 1)),
            "minutes_since_last": pa.array(_measure_minutes_since_last(people, cards, rng)),
            "terminal_age_days": pa.array(cards["since"].astype(np.int32)),
            "label": pa.array(planted.astype(np.int8)),
            "incident": pa.array(cards["incident"], mask=~planted),
        }
    )


def _measure_minutes_since_last(people: People, cards: Cards, rng: Rng) -> Floats:
    """Minutes since the customer's previous payment; for the first of a day, drawn at random."""
    customer, seconds = cards["customer"], cards["seconds_of_day"]
    a_day = people.activity[customer] * len(people.usual) * 1.5
    gap = seconds + rng.exponential(86_400 / a_day)
    order = np.lexsort((seconds, customer))
    again = np.flatnonzero(customer[order][1:] == customer[order][:-1])
    gap[order[again + 1]] = seconds[order[again + 1]] - seconds[order[again]]
    return np.round(gap / 60, 2)


def _find_neighbours(places: Floats, count: int = 6) -> Ints:
    """The nearest terminals of every terminal: int64 [terminals, count]."""
    near = np.empty((len(places), count), dtype=np.int64)
    for start in range(0, len(places), 1024):  # 1,024 rows of distances at a time: memory
        block = places[start : start + 1024]
        distance = ((block[:, None, :] - places[None, :, :]) ** 2).sum(axis=2)
        nearest = np.argpartition(distance, count, axis=1)[:, :count]
        near[start : start + len(block)] = np.sort(nearest, axis=1)
    return near


def _format_ids(letter: str, numbers: NDArray[np.int64]) -> NDArray[np.str_]:
    return np.char.add(letter, np.char.zfill(numbers.astype("U7"), 6))
