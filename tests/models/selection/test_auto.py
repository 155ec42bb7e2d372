"""`detector: auto`: candidates, budget, ranking; and planted anomalies."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from models.batch import Batch, join
from models.contract.layouts import SERIES, TABLE, far_table_rows, series_rows, table_rows
from models.detectors.catalog import CATALOG
from models.layout import CategoryInput, Layout, SignalInput, TokenInput
from models.refusal import Refusal
from models.selection.auto import (
    AutoConfig,
    CandidateResult,
    Scores,
    choose,
    list_candidates,
    pick_beyond_doubt,
)
from models.selection.documented import DOCUMENTED
from models.selection.ranking import measure_agreement
from models.selection.standing import find_modality, find_standing
from models.selection.synthetic_anomalies import KINDS, PLANTINGS
from models.training.options import TrainingOptions

ROOT = Path(__file__).parents[3]
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
    seen: list[list[str]] = []

    def show(tried: Sequence[CandidateResult], of: int) -> None:
        seen.append([one.candidate for one in tried])
        assert len(tried) <= of

    choice = choose(TABLE, rows, held_back, HURRIED, BRIEFLY, show)
    names = [one.candidate for one in choice.tried]
    assert seen == [names[:count] for count in range(len(names) + 1)]
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
    planted.check(TABLE)
    differs = (planted.numeric != rows.numeric).any(1) | (planted.codes != rows.codes).any(1)
    assert differs.float().mean() > 0.8
    again = KINDS[kind](rows, TABLE, torch.Generator().manual_seed(0))
    assert torch.equal(again.numeric, planted.numeric)


CODES = Layout((), (CategoryInput("user", 6),))
VECTORS = Layout((), (), (SignalInput("embedding", "vector", (8,)),))
IMAGES = Layout((), (), (SignalInput("photo", "image", (1, 8, 8)),))
SOUNDS = Layout((), (), (SignalInput("sound", "spectrogram", (1, 8, 6)),))
ONE_SERIES = Layout((), (), (SignalInput("load", "series", (2, 12), masked=True),))
EVENTS = Layout((), (), (), (TokenInput("events", 9, 6),))
TEXTS = Layout(
    (), (), (SignalInput("line n-grams", "vector", (16,), restates="line"),), EVENTS.tokens
)
WITHOUT_NUMBERS = {
    "categories": CODES,
    "vectors": VECTORS,
    "images": IMAGES,
    "sounds": SOUNDS,
    "one series": ONE_SERIES,
    "events": EVENTS,
    "texts": TEXTS,
}


def draw_rows(layout: Layout, rows: int, seed: int) -> Batch:
    """Rows labelled normal, of a layout without numeric columns; sequences end in padding."""
    g = torch.Generator().manual_seed(seed)
    kept = torch.randint(4, 12, (rows, 1, 1), generator=g)
    signals = []
    for signal in layout.signals:
        values = torch.randn(rows, *signal.shape, generator=g)
        if signal.masked:
            values[:, -1:] = (torch.arange(signal.shape[1]) < kept).float()
            values = values * values[:, -1:]
        signals.append(values)
    tokens = []
    for token_input in layout.tokens:
        codes = torch.randint(2, token_input.size - 2, (rows, token_input.length), generator=g)
        tokens.append(torch.where(torch.arange(token_input.length) < kept[:, 0], codes, 0))
    known = [torch.randint(2, c.size, (rows,), generator=g) for c in layout.categories]
    codes = torch.stack(known, 1) if known else torch.zeros(rows, 0, dtype=torch.int64)
    return Batch(torch.zeros(rows, 0), codes, torch.zeros(rows), tuple(signals), tuple(tokens))


@pytest.mark.parametrize("modality", WITHOUT_NUMBERS)
def test_auto_learns_from_rows_labelled_normal_of_every_modality(modality: str) -> None:
    layout = WITHOUT_NUMBERS[modality]
    rows, held_back = draw_rows(layout, 120, seed=1), draw_rows(layout, 40, seed=2)
    choice = choose(layout, rows, held_back, HURRIED, BRIEFLY)
    assert "planted" in choice.criterion
    figures = [one.figure for one in choice.tried if one.figure is not None]
    assert len(figures) >= 3
    assert all(0 <= figure <= 1 for figure in figures)
    assert CATALOG[choice.winner.name].unfit(layout) is None


@pytest.mark.parametrize("layout", [*WITHOUT_NUMBERS.values(), SERIES, TABLE])
def test_planted_rows_keep_the_form_of_their_layout(layout: Layout) -> None:
    rows = draw_rows(layout, 100, seed=1) if not layout.numeric else None
    rows = rows or (table_rows(100, 1) if layout is TABLE else series_rows(100, 1))
    for make in PLANTINGS:
        planted = make(rows, layout, torch.Generator().manual_seed(0))
        planted.check(layout)
        pairs = [
            *zip(rows.signals, planted.signals, strict=True),
            *zip(rows.tokens, planted.tokens, strict=True),
        ]
        for signal, own, new in zip(layout.signals, rows.signals, planted.signals, strict=True):
            if signal.masked:
                assert torch.equal(own[:, -1], new[:, -1])
                assert not (new * (1 - new[:, -1:])).any()
        for own, new in zip(rows.tokens, planted.tokens, strict=True):
            assert torch.equal(own > 0, new > 0)
        for j, column in enumerate(layout.numeric):
            if column.kind == "binary":
                assert set(planted.numeric[:, j].tolist()) <= {0.0, 1.0}
        changed = [(own != new).flatten(1).any(1) for own, new in pairs]
        changed.append((rows.numeric != planted.numeric).any(1))
        changed.append((rows.codes != planted.codes).any(1))
        # A drawn code may be the row's own; a short sequence may lie in what was kept.
        assert torch.stack(changed).any(0).float().mean() > 0.5


@pytest.mark.parametrize("modality", [name for name in WITHOUT_NUMBERS if name != "categories"])
def test_without_labels_the_documented_detector_of_a_modality_stands(modality: str) -> None:
    layout = WITHOUT_NUMBERS[modality]
    rows = draw_rows(layout, 100, seed=1)._replace(label=None)
    choice = choose(layout, rows, rows, AutoConfig(), BRIEFLY)
    assert choice.winner.name == find_standing(layout)
    assert all("nothing overrules" in one.note for one in choice.tried[1:])


def test_the_documentation_starts_with_the_detectors_that_stand() -> None:
    page = (ROOT / "docs" / "detectors.md").read_text().partition("## Where to start")[2]
    lines = page.partition("###")[0].splitlines()
    cells = {line.split("|")[1].strip(): line.split("|")[2] for line in lines if "|" in line}
    start = {
        "table": cells["tables"],
        "vectors": cells["embeddings (vectors)"],
        "images": cells["images"],
        "sounds": cells["sounds"],
        "one series": cells["series"].split(";")[0],
        "series": cells["series"].split(";")[1],
        "events": cells["events, texts"],
    }
    for name, detector in DOCUMENTED.items():
        assert f"`{detector}`" in start[name], name


@pytest.mark.parametrize(
    ("layout", "modality"),
    [
        (TABLE, "table"),
        (SERIES, "series"),
        (ONE_SERIES, "one series"),
        (TEXTS, "events"),
        (Layout(TABLE.numeric, (), VECTORS.signals), "vectors"),
        (Layout(TABLE.numeric, (), IMAGES.signals + VECTORS.signals), "images"),
    ],
)
def test_the_modality_is_the_widest_of_the_columns(layout: Layout, modality: str) -> None:
    assert find_modality(layout) == modality


def test_a_vector_too_wide_for_its_documented_detector_gets_one_that_fits() -> None:
    wide = Layout((), (), (SignalInput("embedding", "vector", (5000,)),))
    assert find_standing(wide) == "pca"


def test_knn_is_tried_as_long_as_rows_times_inputs_allow() -> None:
    wide = Layout((), (), (SignalInput("embedding", "vector", (4000,)),))
    assert "knn" in [one.name for one in list_candidates(wide, rows=5_000)]
    assert "knn" not in [one.name for one in list_candidates(wide, rows=20_000)]


def test_every_kind_of_columns_has_gaussian_among_its_candidates() -> None:
    for layout in (TABLE, SERIES, *WITHOUT_NUMBERS.values()):
        assert "gaussian" in [one.name for one in list_candidates(layout)]
