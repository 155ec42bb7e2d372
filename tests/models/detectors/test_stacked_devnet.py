"""The stacked deviation network beyond the contract."""

import pytest
import torch

from models.batch import join
from models.contract.layouts import TABLE, far_table_rows, table_rows
from models.detectors.catalog import CATALOG
from models.detectors.stacked_devnet import StackedDevNet
from models.refusal import Refusal
from models.training.loop import learn, score_rows
from models.training.options import TrainingOptions

MEMBERS = [{"name": "ecod"}, {"name": "knn", "sample_rows": 500}, {"name": "pca"}]


def learned() -> StackedDevNet:
    detector = CATALOG.build("stacked_devnet", TABLE, {"members": MEMBERS})
    assert isinstance(detector, StackedDevNet)
    rows = join([table_rows(600, seed=1), far_table_rows(10, seed=2)])
    learn(detector, rows, table_rows(200, seed=3), TrainingOptions(epochs=2))
    return detector


@pytest.mark.thorough
def test_the_network_sees_how_rare_each_member_finds_a_row() -> None:
    detector = learned()
    usual, far = (detector.inputs(rows) for rows in (table_rows(200, 4), far_table_rows(20, 5)))
    assert usual.shape[1] == detector.inputs.own + len(MEMBERS)
    rare = slice(detector.inputs.own, None)
    assert (far[:, rare].min(0).values > usual[:, rare].median(0).values).all()


@pytest.mark.thorough
def test_ten_labelled_anomalies_are_enough_to_find_others_like_them() -> None:
    detector = learned()
    usual, far = (
        score_rows(detector, table_rows(300, 6)),
        score_rows(detector, far_table_rows(50, 7)),
    )
    assert (far > usual.quantile(0.99)).all()


@pytest.mark.thorough
def test_members_keep_what_they_were_fitted_to_while_the_network_learns() -> None:
    detector = learned()
    other = CATALOG.build("stacked_devnet", TABLE, {"members": MEMBERS})
    assert isinstance(other, StackedDevNet)
    rows = join([table_rows(600, seed=1), far_table_rows(10, seed=2)])
    other.fit(rows, seed=0)
    ours, theirs = (d.inputs.members.measure_rarity(table_rows(50, 8)) for d in (detector, other))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ({"name": "autoencoder"}, "learns from a sample, found 'autoencoder'"),
        ({"name": "devnet"}, "learns without labels"),
    ],
)
def test_a_member_that_cannot_score_before_the_network_learns_is_refused(
    member: dict[str, str], message: str
) -> None:
    with pytest.raises(Refusal, match=message):
        CATALOG.build("stacked_devnet", TABLE, {"members": [member]})
