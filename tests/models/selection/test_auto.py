"""`detector: auto`: candidates, budget, ranking; and planted anomalies."""

import pytest
import torch

from models.batch import join
from models.refusal import Refusal
from models.selection.auto import AutoConfig, Scores, choose, list_candidates, pick_beyond_doubt
from models.selection.ranking import measure_agreement
from models.selection.synthetic_anomalies import KINDS
from models.training.options import TrainingOptions
from tests.models.layouts import TABLE, far_table_rows, table_rows

BRIEFLY = TrainingOptions(epochs=1)
HURRIED = AutoConfig(budget_seconds=1e-9)


def test_labels_decide_which_candidates_there_are() -> None:
    def names(anomalies: int) -> list[str]:
        return [c.name for c in list_candidates(TABLE, anomalies, 1000)]

    assert not {"stacked_devnet", "classifier"} & set(names(4))
    assert names(5)[0] == "stacked_devnet"
    assert names(50)[0] == "classifier"


def test_the_best_by_held_back_labels_wins() -> None:
    rows = join([table_rows(400, seed=1), far_table_rows(20, seed=2)])
    held_back = join([table_rows(200, seed=3), far_table_rows(10, seed=4)])
    seen: list[str] = []
    choice = choose(
        TABLE, rows, held_back, HURRIED, BRIEFLY, lambda tried: seen.append(tried.candidate)
    )
    assert seen == [one.candidate for one in choice.tried]
    figures = {one.candidate: one.figure for one in choice.tried if one.figure is not None}
    assert figures[choice.winner.text] == max(figures.values())
    assert "labels of 10" in choice.criterion


def test_of_a_table_that_may_hold_anomalies_robust_candidates_agree_or_not() -> None:
    rows = table_rows(300, seed=1)._replace(label=torch.full((300,), torch.nan))
    choice = choose(TABLE, rows, rows, AutoConfig(), BRIEFLY)
    assert choice.criterion == "rank correlation with all candidates"
    figures = {one.candidate: one.figure or 0.0 for one in choice.tried}
    assert choice.winner.text == max(figures, key=lambda text: figures[text])
    assert any(text.startswith("ensemble (members: [{name: ecod") for text in figures)
    assert not any("autoencoder" in text for text in figures)


def test_a_few_labels_that_cannot_judge_are_learned_from() -> None:
    rows = join([table_rows(300, seed=1), far_table_rows(8, seed=2)])
    assert rows.label is not None
    unknown = rows.label.where(rows.label > 0.5, torch.nan)
    held_back = table_rows(100, seed=3)._replace(label=torch.full((100,), torch.nan))
    choice = choose(TABLE, rows._replace(label=unknown), held_back, HURRIED, BRIEFLY)
    assert choice.winner.name == "stacked_devnet"
    assert choice.tried[0].figure is None


def test_where_all_rows_are_labelled_normal_planted_anomalies_decide() -> None:
    rows = table_rows(300, seed=1)
    choice = choose(TABLE, rows, rows, HURRIED, BRIEFLY)
    assert "planted" in choice.criterion
    tried, others = choice.tried[:3], choice.tried[3:]
    assert all(one.figure is not None for one in tried)
    assert all(one.note == "not tried: the budget was used up" for one in others)


def test_what_stands_gives_way_to_a_gain_beyond_doubt_only() -> None:
    usual, far, near = torch.arange(100.0), torch.full((50,), 200.0), torch.full((50,), 60.0)
    standing = Scores(usual, (near, near, near))
    once = Scores(usual, (far, near - 20, near))
    always = Scores(usual, (near + 20, near + 20, near + 21))
    assert pick_beyond_doubt({0: standing, 1: once}, 0) == 0
    assert pick_beyond_doubt({0: standing, 1: once, 2: always}, 0) == 2


def test_the_one_that_ranks_as_the_others_do_agrees_most() -> None:
    common = torch.arange(100.0)
    jitter = 30 * torch.randn(3, 100, generator=torch.Generator().manual_seed(0))
    figures = measure_agreement([common, *(common + jitter), torch.zeros(100), -common])
    assert max(figures) == figures[0]
    assert figures[4] == 0
    assert figures[5] < 0


def test_a_choice_by_no_row_at_all_is_refused() -> None:
    nothing = table_rows(0, seed=1)
    with pytest.raises(Refusal, match="found 0 to learn from and 50 held back"):
        choose(TABLE, nothing, table_rows(50, seed=2), HURRIED, BRIEFLY)


@pytest.mark.parametrize("kind", KINDS)
def test_planted_rows_fit_the_layout_and_each_differs_from_its_own(kind: str) -> None:
    rows = table_rows(300, seed=1)
    planted = KINDS[kind](rows, TABLE, torch.Generator().manual_seed(0))
    TABLE.check(planted)
    differs = (planted.numeric != rows.numeric).any(1) | (planted.codes != rows.codes).any(1)
    assert differs.float().mean() > 0.8
    again = KINDS[kind](rows, TABLE, torch.Generator().manual_seed(0))
    assert torch.equal(again.numeric, planted.numeric)
