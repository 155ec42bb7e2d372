"""Ensemble: several detectors, combined by how rare each finds a row."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from models.batch import Batch, Contributions
from models.detectors.detector import Detector, expect
from models.detectors.single import SINGLE
from models.layout import Layout
from models.refusal import Refusal
from models.searching import search_sorted

# Points of each member's calibration. With 200,000 rows each power of ten has 24 of them.
_KNOTS = 128
# Least distance between two knots, in `unit`.
_GAP = 1e-3
# Shares that cancel to less than this part of their size are not scaled: the sum is rounding.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class EnsembleConfig:
    """Options of `ensemble`."""

    # Each has the name of a detector and options of it; all other options are filled in.
    members: tuple[dict[str, Any], ...] = (
        {"name": "autoencoder"},
        {"name": "isolation_forest"},
        {"name": "knn"},
    )

    def __post_init__(self) -> None:
        expect(len(self.members) > 0, self, "members", "at least one member")
        object.__setattr__(self, "members", tuple(map(_complete, self.members)))

    @property
    def sample_rows(self) -> int:
        """The most rows that any member can be fitted on."""
        return max((member.get("sample_rows", 0) for member in self.members), default=0)


def _complete(member: dict[str, Any]) -> dict[str, Any]:
    """The member with every option filled in. Raises Refusal if it cannot be a member."""
    options = dict(member)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise Refusal(f"a member of an ensemble: expected {{name: knn, …}}, found {member!r}")
    if "." in name or ":" in name:
        raise Refusal(
            f"a member of an ensemble: expected a detector of Anomaray itself, found '{name}'"
        )
    kind = SINGLE.find(name)
    if kind.labels != "none":
        raise Refusal(
            "a member of an ensemble: expected a detector that learns without labels, "
            f"found '{name}'"
        )
    return {"name": name, **asdict(SINGLE.configure(name, options))}


class Ensemble(Detector):
    """Averages how rare several detectors find a row, so that their scores can be compared.

    The rarity of a score s is -log10 of the share of held-back rows that score at least s: 2 means
    one row in a hundred. Between quantiles it is interpolated. Above the largest of n scores, where
    it is log10(n), it grows with log(1 + excess), so far anomalies keep their order. The score is
    the mean rarity over the members. A mean of logarithms is Fisher's combined test: a row that one
    member finds in a million and another finds usual still scores high, which a mean of ranks would
    lose.

    Members that learn from a sample are fitted first; then the sum of the other members' losses is
    minimised. `learns` depends on the members and is set when the ensemble is built.

    The shares of a member are scaled to add up to the difference between the rarity of its score
    and of its base score. `expected` comes from the member that finds the row rarest.
    """

    Config = EnsembleConfig
    learns: Literal["gradient", "sample", "both"] = "both"  # with the default members
    knots: Tensor
    rarity: Tensor
    unit: Tensor

    def __init__(self, layout: Layout, config: EnsembleConfig) -> None:
        super().__init__(layout, config)
        built = []
        for member in config.members:
            options = dict(member)
            built.append(SINGLE.build(options.pop("name"), layout, options))
        self.built = nn.ModuleList(built)
        kinds = {member.learns for member in built}
        self.learns = kinds.pop() if len(kinds) == 1 else "both"
        # Before `calibrate` all knots are 0, and the rarity of a score above 0 is log(1 + score).
        self.register_buffer("knots", torch.zeros(len(built), _KNOTS))  # scores, ascending
        self.register_buffer("rarity", torch.zeros(_KNOTS))  # of each knot, ascending from 0
        self.register_buffer("unit", torch.ones(len(built)))  # of the excess over the last knot

    @property
    def members(self) -> Sequence[Detector]:
        return cast(Sequence[Detector], self.built)

    def loss(self, batch: Batch) -> Tensor:
        """Sum of the losses of the members that learn by gradient; the score if none does."""
        losses = [m.loss(batch) for m in self.members if m.learns == "gradient"]
        return torch.stack(losses).sum(0) if losses else self.score(batch)

    def fit(self, sample: Batch, seed: int) -> None:
        """Fit each member that learns from a sample, on at most its own `sample_rows`."""
        rows = len(sample.numeric)
        for index, member in enumerate(self.members):
            if member.learns == "sample":
                generator = torch.Generator().manual_seed(seed + index)
                order = torch.randperm(rows, generator=generator)
                chosen = order[: member.config.sample_rows].sort().values
                member.fit(sample.take(chosen.to(sample.numeric.device)), seed + index)

    @torch.no_grad()
    def calibrate(self, batches: list[Batch]) -> None:
        """Calibrate the members, then measure how rare their scores are.

        Raises Refusal if there are no rows.
        """
        rows = sum(len(b.numeric) for b in batches)
        if not rows:
            raise Refusal("expected held-back rows to rank an ensemble's scores by, found none")
        rarity = torch.linspace(0, math.log10(rows), _KNOTS, dtype=torch.float64)
        # Of ascending scores, counted from 0, a share of (rows - k) / rows is at least the k-th.
        # Between two scores the rarity is interpolated.
        place = ((1 - 10**-rarity) * rows).clamp(max=rows - 1)
        for index, member in enumerate(self.members):
            member.calibrate(batches)
            scores = torch.cat([member.score(b).float() for b in batches]).sort().values
            knots = _interpolate(scores, place)
            # The unit is the distance from the 90th percentile to the largest score.
            width = scores[-1] - scores[int(0.9 * (rows - 1))]
            self.unit[index] = width if width > 0 else scores[-1].abs().clamp_min(1.0)
            self.knots[index] = _separate(knots, _GAP * self.unit[index])
        self.rarity.copy_(rarity)

    @torch.no_grad()
    def score(self, batch: Batch) -> Tensor:
        return self.measure_rarity(batch).mean(0)

    def measure_rarity(self, batch: Batch) -> Tensor:
        """How rare each member finds each row, in powers of ten: float32 [members, rows]."""
        return self._to_rarity(torch.stack([m.score(batch) for m in self.members]).float())

    def base_score(self) -> float:
        return float(self._base_rarity().mean())

    @torch.no_grad()
    def contributions(self, batch: Batch) -> Contributions:
        rarities, explained = self.measure_rarity(batch), self.explain_members(batch)
        shares, maps = combine_shares(
            explained, (rarities - self._base_rarity()[:, None]) / len(explained)
        )
        return Contributions(
            shares, _pick_rows([t.expected for t in explained], rarities.argmax(0)), maps
        )

    def explain_members(self, batch: Batch) -> list[Contributions]:
        """The contributions of each member, in the unit of its own score."""
        return [member.contributions(batch) for member in self.members]

    def _base_rarity(self) -> Tensor:
        """The rarity of each member's base score: [members]."""
        base = torch.tensor([[m.base_score()] for m in self.members])
        return self._to_rarity(base.to(self.knots.device))[:, 0]

    def _to_rarity(self, scores: Tensor) -> Tensor:
        """The rarity of each score, for scores [members, rows]."""
        place = search_sorted(self.knots, scores.contiguous(), right=True)
        place = place.clamp(1, _KNOTS - 1)
        low, high = self.knots.gather(1, place - 1), self.knots.gather(1, place)
        tiny = torch.finfo(scores.dtype).tiny
        way = ((scores - low) / (high - low).clamp_min(tiny)).clamp(0, 1)
        rarity = torch.lerp(self.rarity[place - 1], self.rarity[place], way)
        excess = (scores - self.knots[:, -1:]).clamp_min(0) / self.unit[:, None]
        return rarity + excess.log1p()


def _interpolate(ascending: Tensor, place: Tensor) -> Tensor:
    """The values at fractional places of a sorted vector."""
    below = place.floor().long().to(ascending.device)
    above = (below + 1).clamp(max=len(ascending) - 1)
    way = (place.to(ascending.device) - below).to(ascending.dtype)
    return torch.lerp(ascending[below], ascending[above], way)


def _separate(knots: Tensor, gap: Tensor) -> Tensor:
    """The knots, moved so that each is at least `gap` above the one before.

    If the rarity jumped at a score, the rounding of that score would change the rarity.
    """
    steps = gap * torch.arange(len(knots), device=knots.device)
    return (knots - steps).cummax(0).values + steps


def combine_shares(
    explained: list[Contributions], amounts: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The shares and maps of all members together, as in `Contributions`.

    The shares of each member are first scaled to add up to its amount; amounts [members, rows].
    """
    shares, maps = [], []
    for amount, one in zip(amounts, explained, strict=True):
        factor, rest = _fit_factor(one.shares, amount)
        shares.append(one.shares * factor[:, None] + rest[:, None])
        if one.maps:
            maps.append([_multiply_rows(part, factor) for part in one.maps])
    added = tuple(torch.stack(parts).sum(0) for parts in zip(*maps, strict=True))
    return torch.stack(shares).sum(0), added


def _fit_factor(shares: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The factor and the rest, [rows] each, for which `shares * factor + rest` adds up to `wanted`.

    The rest is added to each feature; it is 0 unless the shares cancel each other.
    """
    total = shares.sum(1)
    sound = total.abs() > _ROUNDING * shares.abs().sum(1)
    factor = torch.where(sound, wanted / torch.where(sound, total, 1), 0)
    return factor, torch.where(sound, 0, wanted / shares.shape[1])


def _multiply_rows(values: Tensor, factor: Tensor) -> Tensor:
    return values * factor.reshape(-1, *[1] * (values.ndim - 1))


def _pick_rows(batches: list[Batch], which: Tensor) -> Batch:
    """Row i of batch number which[i]."""
    rows = torch.arange(len(which), device=which.device)

    def choose(tensors: Sequence[Tensor]) -> Tensor:
        if not tensors[0].numel():  # torch's exporter divides by its size
            return tensors[0]
        return torch.stack(list(tensors))[which, rows]

    return Batch(
        choose([b.numeric for b in batches]),
        choose([b.codes for b in batches]),
        None,
        tuple(map(choose, zip(*(b.signals for b in batches), strict=True))),
        tuple(map(choose, zip(*(b.tokens for b in batches), strict=True))),
    )
