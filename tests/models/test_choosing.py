"""`detector: auto`: candidates, the budget, the judge; and the anomalies that are planted."""

import pytest
import torch

from models.choosing import AutoConfig, Tried, auroc, candidates, choose
from models.learning import TrainingOptions
from models.planted import KINDS
from models.refusal import Refusal
from tests.models.test_detector_contract import LAYOUT, far_rows, joined, normal_rows

BRIEFLY = TrainingOptions(epochs=1)
HURRIED = AutoConfig(budget_seconds=1e-9)


def test_labels_decide_which_candidates_there_are() -> None:
    def names(anomalies: int) -> list[str]:
        return [c.name for c in candidates(LAYOUT, anomalies, 1000)]

    assert not {"devnet", "classifier"} & set(names(4))
    assert names(5)[0] == "devnet"
    assert names(50)[0] == "classifier"


def test_the_best_by_held_back_labels_wins() -> None:
    rows = joined(normal_rows(400, seed=1), far_rows(20, seed=2))
    held_back = joined(normal_rows(200, seed=3), far_rows(10, seed=4))
    seen: list[Tried] = []
    choice = choose(LAYOUT, rows, held_back, AutoConfig(), BRIEFLY, seen.append)
    assert choice.tried == tuple(seen)
    figures = {one.candidate: one.auroc for one in choice.tried if one.auroc is not None}
    assert figures[choice.winner.text] == max(figures.values())
    assert "labels of 10" in choice.criterion


def test_without_labels_planted_anomalies_decide_and_the_budget_is_kept() -> None:
    rows = normal_rows(300, seed=1)._replace(label=torch.full((300,), torch.nan))
    choice = choose(LAYOUT, rows, rows, HURRIED, BRIEFLY)
    assert "planted" in choice.criterion
    first, *others = choice.tried
    assert choice.winner.text == first.candidate
    assert all(one.note == "not tried: the budget was used up" for one in others)


def test_a_choice_by_no_row_at_all_is_refused() -> None:
    nothing = normal_rows(0, seed=1)
    with pytest.raises(Refusal, match="found 0 to learn from and 50 held back"):
        choose(LAYOUT, nothing, normal_rows(50, seed=2), HURRIED, BRIEFLY)


@pytest.mark.parametrize("kind", KINDS)
def test_planted_rows_fit_the_layout_and_each_differs_from_its_own(kind: str) -> None:
    rows = normal_rows(300, seed=1)
    planted = KINDS[kind](rows, LAYOUT, torch.Generator().manual_seed(0))
    LAYOUT.check(planted)
    differs = (planted.numeric != rows.numeric).any(1) | (planted.codes != rows.codes).any(1)
    assert differs.float().mean() > 0.8
    again = KINDS[kind](rows, LAYOUT, torch.Generator().manual_seed(0))
    assert torch.equal(again.numeric, planted.numeric)
    assert kind != "shuffled" or torch.isin(planted.numeric, rows.numeric).all()


def test_ties_count_half() -> None:
    assert auroc(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0])) == 0.875
