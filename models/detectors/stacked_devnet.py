"""Stacked DevNet: a deviation network that also sees the scores of unsupervised detectors."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.batch import Batch, Contributions
from models.detectors.devnet import DevNet, DevNetConfig
from models.detectors.ensemble import Ensemble, EnsembleConfig, combine_shares
from models.detectors.single import SINGLE
from models.layers.dense_inputs import Inputs
from models.layers.integrated_gradients import integrated_gradients
from models.layout import Layout
from models.refusal import Refusal


@dataclass(frozen=True)
class StackedDevNetConfig(DevNetConfig):
    """Options of `stacked_devnet`: those of `devnet` and the detectors that it sees."""

    # Each has the name of a detector that learns from a sample, and options of it. These three
    # differ most: one looks at single columns, one at distances, one at linear relations.
    members: tuple[dict[str, Any], ...] = ({"name": "ecod"}, {"name": "knn"}, {"name": "pca"})

    def __post_init__(self) -> None:
        super().__post_init__()
        completed = EnsembleConfig(self.members).members
        for member in completed:
            if SINGLE.find(member["name"]).learns != "sample":
                raise Refusal(
                    "a member of stacked_devnet: expected a detector that learns from a sample, "
                    f"found '{member['name']}'; the network needs the member's scores before it "
                    "learns"
                )
        object.__setattr__(self, "members", completed)

    @property
    def sample_rows(self) -> int:
        """The most rows that any member can be fitted on."""
        return EnsembleConfig(self.members).sample_rows


class RarityInputs(Inputs):
    """The columns of a row, then how rare each member finds it: [rows, width]."""

    def __init__(self, layout: Layout, members: tuple[dict[str, Any], ...]) -> None:
        super().__init__(layout, embed=True)
        self.own = self.width  # columns that come from the row itself
        self.members = Ensemble(layout, EnsembleConfig(members))
        self.width += len(members)

    def forward(self, batch: Batch) -> Tensor:
        # Not in bfloat16, in which a GPU trains: it would change neighbours and components.
        with torch.no_grad(), torch.autocast(batch.numeric.device.type, enabled=False):
            rarities = self.members.measure_rarity(batch)
        return torch.cat([super().forward(batch), rarities.T], 1)


class StackedDevNet(DevNet):
    """A deviation network that also sees how rare unsupervised detectors find a row.

    As XGBOD (Zhao and Hryniewicki, IJCNN 2018), with `devnet` instead of boosted trees. Ten
    anomalies do not teach a network what is unusual. How rare each member finds a row, in powers of
    ten (`models.detectors.ensemble`), is learned from all rows without labels; the labels only
    weigh the members. Rarity is measured among the rows that the members were fitted on.

    The share of a member's rarity is divided among the features like the member's own shares.
    `expected` is the reference row.
    """

    Config = StackedDevNetConfig
    learns = "both"
    inputs: RarityInputs

    def make_inputs(self, layout: Layout) -> Inputs:
        return RarityInputs(layout, self.config.members)

    @torch.no_grad()
    def fit(self, sample: Batch, seed: int) -> None:
        """Fit the members, and measure how rare their scores are on the same rows."""
        self.inputs.members.fit(sample, seed)
        self.inputs.members.calibrate([sample])

    def contributions(self, batch: Batch) -> Contributions:
        inputs = self.inputs
        with torch.no_grad():
            columns = inputs(batch)
        shares = integrated_gradients(
            self.score_columns, columns, self.reference, self.config.steps
        )
        with torch.no_grad():
            own, rarities = shares[:, : inputs.own], shares[:, inputs.own :]
            member_shares, member_maps = combine_shares(
                inputs.members.explain_members(batch), rarities.T
            )
            maps = [a + b for a, b in zip(inputs.map_places(own, batch), member_maps, strict=True)]
            rows = len(columns)
            usual = self.reference[: inputs.numbers].expand(rows, -1)
            expected = inputs.make_batch(usual, self.usual_codes.expand(rows, -1))
            return Contributions(inputs.sum_by_feature(own) + member_shares, expected, tuple(maps))
