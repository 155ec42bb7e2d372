"""Several detectors as one: what their scores have in common is how rare they are."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.batch import Batch, Contributions, Layout
from models.detectors.detector import Detector, expect
from models.detectors.single import SINGLE
from models.refusal import Refusal

# Points of each member's calibration: with 200,000 rows, 24 of them in each power of ten.
_KNOTS = 128
# Least distance of two knots, in `unit`.
_GAP = 1e-3
# Shares that add up to less of their own size are rounding: nothing to scale.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class EnsembleConfig:
    """Options of `ensemble`."""

    # Each a name of the catalogue and options of that detector; every other field is filled in.
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
        """Rows that the members which learn from a sample can use, at most."""
        return max((member.get("sample_rows", 0) for member in self.members), default=0)


def _complete(member: dict[str, Any]) -> dict[str, Any]:
    """The member with every field of its Config; raises Refusal for a wrong one."""
    options = dict(member)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise Refusal(f"a member of an ensemble: expected {{name: knn, …}}, found {member!r}")
    kind = SINGLE.find(name)
    if kind.labels != "none":
        raise Refusal(
            "a member of an ensemble: expected a detector that learns without labels, "
            f"found '{name}'"
        )
    return {"name": name, **asdict(SINGLE.configure(name, options))}


class Ensemble(Detector):
    """Mean over the members of how rare their scores are, in powers of ten: 2 is a score that one
    held-back row in a hundred reaches.

    A member's score s becomes -log10 of the share of held-back rows that score at least s, by
    linear interpolation between quantiles. Beyond the largest score of n rows, log10(n), it grows
    with log(1 + excess): far anomalies keep their order. Logarithms of ranks, not ranks: their
    mean is Fisher's test of all members together, and a row that is one in a million to one member
    and usual to another is not lost (by ranks it is as rare as 1 - 0.75).

    Members that learn from a sample are fitted first; then the sum of the others' losses is
    minimised, and each gets its own gradient. `calibrate` settles the members and then the ranks.

    Shares of a member are scaled to what its rank differs from that of its base score; the mean
    over the members adds up to the score less `base_score()`. `expected` is that of the member
    that the row is rarest to.
    """

    Config = EnsembleConfig
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
        # Before `calibrate` all knots are 0: log(1 + score), for scores above it.
        self.register_buffer("knots", torch.zeros(len(built), _KNOTS))  # scores, ascending
        self.register_buffer("rarity", torch.zeros(_KNOTS))  # of the knots, ascending from 0
        self.register_buffer("unit", torch.ones(len(built)))  # of excesses over the last knot

    @property
    def members(self) -> Sequence[Detector]:
        return cast(Sequence[Detector], self.built)

    def loss(self, batch: Batch) -> Tensor:
        """Sum of the losses of the members that learn by gradient; without any, the score."""
        losses = [m.loss(batch) for m in self.members if m.learns == "gradient"]
        return torch.stack(losses).sum(0) if losses else self.score(batch)

    def fit(self, sample: Batch, seed: int) -> None:
        """Fit the members that learn from a sample, each on as many rows as it can use."""
        rows = len(sample.numeric)
        for index, member in enumerate(self.members):
            if member.learns == "sample":
                generator = torch.Generator().manual_seed(seed + index)
                order = torch.randperm(rows, generator=generator)
                chosen = order[: member.config.sample_rows].sort().values
                member.fit(sample.take(chosen), seed + index)

    @torch.no_grad()
    def calibrate(self, batches: list[Batch]) -> None:
        """Settle the members, then how rare each of their scores is among held-back rows."""
        rows = sum(len(b.numeric) for b in batches)
        if not rows:
            raise Refusal("expected held-back rows to rank an ensemble's scores by, found none")
        rarity = torch.linspace(0, math.log10(rows), _KNOTS, dtype=torch.float64)
        # Of ascending scores, a share of (rows - k) / rows is at least the k-th, counted from 0;
        # between two of them a score is as rare as its place between them says.
        place = ((1 - 10**-rarity) * rows).clamp(max=rows - 1)
        for index, member in enumerate(self.members):
            member.calibrate(batches)
            scores = torch.cat([member.score(b).float() for b in batches]).sort().values
            knots = _interpolate(scores, place)
            # As far as the score is beyond what is ten times as usual.
            tenth = scores[int(0.9 * (rows - 1))]
            spread = scores[-1] - tenth
            self.unit[index] = spread if spread > 0 else scores[-1].abs().clamp_min(1.0)
            self.knots[index] = _separate(knots, _GAP * self.unit[index])
        self.rarity.copy_(rarity)

    @torch.no_grad()
    def score(self, batch: Batch) -> Tensor:
        return self.measure_rarity(batch).mean(0)

    def measure_rarity(self, batch: Batch) -> Tensor:
        """How rare each member finds each row, in powers of ten: [members, rows]."""
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
        """What each member says for itself, in the unit of its own score."""
        return [member.contributions(batch) for member in self.members]

    def _base_rarity(self) -> Tensor:
        """The rank of each member's base score: [members]."""
        base = torch.tensor([[m.base_score()] for m in self.members], device=self.knots.device)
        return self._to_rarity(base)[:, 0]

    def _to_rarity(self, scores: Tensor) -> Tensor:
        """How rare each member's scores are: [members, rows] of scores [members, rows]."""
        place = torch.searchsorted(self.knots, scores.contiguous(), right=True)
        place = place.clamp(1, _KNOTS - 1)
        low, high = self.knots.gather(1, place - 1), self.knots.gather(1, place)
        tiny = torch.finfo(scores.dtype).tiny
        way = ((scores - low) / (high - low).clamp_min(tiny)).clamp(0, 1)
        ranks = torch.lerp(self.rarity[place - 1], self.rarity[place], way)
        excess = (scores - self.knots[:, -1:]).clamp_min(0) / self.unit[:, None]
        return ranks + excess.log1p()


def _interpolate(ascending: Tensor, place: Tensor) -> Tensor:
    """The values at fractional places of a sorted vector."""
    below = place.floor().long().to(ascending.device)
    above = (below + 1).clamp(max=len(ascending) - 1)
    way = (place.to(ascending.device) - below).to(ascending.dtype)
    return torch.lerp(ascending[below], ascending[above], way)


def _separate(knots: Tensor, gap: Tensor) -> Tensor:
    """The knots, each at least so much above the one before: a rank that jumped at a score would
    turn the rounding of that score into another rank."""
    steps = gap * torch.arange(len(knots), device=knots.device)
    return (knots - steps).cummax(0).values + steps


def combine_shares(
    explained: list[Contributions], amounts: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """(shares, maps) of all members together, as in `Contributions`: those of each are scaled so
    that its shares add up to its amount; amounts [members, rows]."""
    shares, maps = [], []
    for amount, one in zip(amounts, explained, strict=True):
        factor, rest = _fit_factor(one.shares, amount)
        shares.append(one.shares * factor[:, None] + rest[:, None])
        if one.maps:
            maps.append([_multiply_rows(part, factor) for part in one.maps])
    added = tuple(torch.stack(parts).sum(0) for parts in zip(*maps, strict=True))
    return torch.stack(shares).sum(0), added


def _fit_factor(shares: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """(factor, rest), [rows] each: shares times the factor, plus the rest on each feature, add up
    to `wanted`. The rest is 0 but where the shares cancel each other."""
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
        return torch.stack(list(tensors))[which, rows]

    return Batch(
        choose([b.numeric for b in batches]),
        choose([b.codes for b in batches]),
        None,
        tuple(map(choose, zip(*(b.signals for b in batches), strict=True))),
        tuple(map(choose, zip(*(b.tokens for b in batches), strict=True))),
    )
