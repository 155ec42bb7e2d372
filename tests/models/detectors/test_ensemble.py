"""Ensembles beyond the contract: the order of far rows, members, refusals."""

import pytest
import torch

from models.batch import Batch
from models.contract.layouts import TABLE, table_rows
from models.detectors.catalog import CATALOG
from models.detectors.ensemble import Ensemble
from models.refusal import Refusal
from models.training.loop import learn, score_rows
from models.training.options import TrainingOptions

FITTED = [{"name": "knn", "sample_rows": 500}, {"name": "pca"}]


def fitted() -> Ensemble:
    detector = CATALOG.build("ensemble", TABLE, {"members": FITTED})
    assert isinstance(detector, Ensemble)
    learn(detector, table_rows(800, seed=1), table_rows(400, seed=2), TrainingOptions())
    return detector


def test_a_score_is_how_many_powers_of_ten_a_row_is_rare() -> None:
    held_back = score_rows(fitted(), table_rows(400, seed=2))
    assert held_back.median() == pytest.approx(0.3, abs=0.1)
    assert held_back.max() <= torch.tensor(400).log10() + 1e-6


def test_rows_beyond_all_that_were_held_back_keep_their_order() -> None:
    row = table_rows(1, seed=3)
    rows = Batch(row.numeric.repeat(6, 1), row.codes.repeat(6, 1))
    rows.numeric[:, 1] = torch.tensor([5.0, 10.0, 100.0, 1e3, 3e3, 9e3])
    found = score_rows(fitted(), rows)
    assert (found.diff() > 0).all()


def test_members_that_are_fitted_and_that_learn_are_trained_together() -> None:
    members = [{"name": "pca"}, {"name": "autoencoder", "widths": [8]}]
    detector = CATALOG.build("ensemble", TABLE, {"members": members})
    assert isinstance(detector, Ensemble)
    assert detector.learns == "both"
    before = detector.members[1].state_dict()["decoder.0.weight"].clone()
    learn(detector, table_rows(300, seed=1), table_rows(200, seed=2), TrainingOptions(epochs=1))
    assert detector.members[0].state_dict()["axes"].any()
    assert not torch.equal(detector.members[1].state_dict()["decoder.0.weight"], before)


def test_members_are_kept_with_every_option() -> None:
    config = CATALOG.build("ensemble", TABLE, {"members": [{"name": "ecod"}]}).config
    assert config.members == ({"name": "ecod", "sample_rows": 10_000},)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ({"name": "knm"}, "unknown detector 'knm'; did you mean 'knn'"),
        ({"name": "knn", "neighbour": 3}, "no option 'neighbour'"),
        ({"neighbours": 3}, r"expected \{name: knn"),
        ({"name": "classifier"}, "learns without labels"),
        ({"name": "ensemble"}, "unknown detector 'ensemble'"),
    ],
)
def test_a_member_that_cannot_be_is_refused(member: dict[str, object], message: str) -> None:
    with pytest.raises(Refusal, match=message):
        CATALOG.build("ensemble", TABLE, {"members": [member]})


def test_a_member_of_another_package_is_refused() -> None:
    with pytest.raises(Refusal, match="expected a detector of Anomaray itself, found 'my_pkg:X'"):
        CATALOG.build("ensemble", TABLE, {"members": [{"name": "my_pkg:X"}]})
