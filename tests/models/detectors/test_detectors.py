"""Single detectors beyond the contract, and how options are checked."""

import numpy as np
import pytest
import sklearn.ensemble
import torch

from models.batch import Batch
from models.detectors.autoencoder import Autoencoder
from models.detectors.catalog import CATALOG
from models.detectors.classifier import Classifier
from models.detectors.isolation_forest import IsolationForest
from models.layers.dense_inputs import MAX_ONEHOT, Inputs
from models.layout import CategoryInput, Layout, NumericInput
from models.refusal import Refusal

NUMBERS = Layout(tuple(NumericInput(f"x{i}", "real") for i in range(4)), ())
MIXED = Layout((NumericInput("x", "real"), NumericInput("b", "binary")), (CategoryInput("c", 4),))


def numbers(rows: int, seed: int) -> Batch:
    g = torch.Generator().manual_seed(seed)
    codes = torch.zeros(rows, 0, dtype=torch.int64)
    return Batch(torch.randn(rows, 4, generator=g), codes, torch.zeros(rows))


# --- options ---------------------------------------------------------------------------------


def test_an_unknown_detector_is_refused_with_the_nearest_name_and_all_names() -> None:
    with pytest.raises(Refusal, match=r"'autoencodr'; did you mean 'autoencoder'\?.*isolation_fo"):
        CATALOG.build("autoencodr", NUMBERS, {})


def test_an_unknown_option_is_refused_with_the_nearest_name_and_all_names() -> None:
    with pytest.raises(Refusal, match=r"no option 'dropuot'; did you mean 'dropout'\?.*widths"):
        CATALOG.build("autoencoder", NUMBERS, {"dropuot": 0.1})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("widths", 64),
        ("widths", ["64"]),
        ("widths", [True]),
        ("latent", 2.5),
        ("noise", "0.1"),
        ("dropout", None),
        ("floor", {}),
    ],
)
def test_an_option_of_the_wrong_type_is_refused(option: str, value: object) -> None:
    with pytest.raises(Refusal, match=f"option '{option}' of detector 'autoencoder': expected"):
        CATALOG.configure("autoencoder", {option: value})


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("autoencoder", "widths", []),
        ("autoencoder", "widths", [64, 0]),
        ("autoencoder", "latent", 0),
        ("autoencoder", "noise", -1.0),
        ("autoencoder", "noise", float("nan")),
        ("autoencoder", "mask", 1.0),
        ("autoencoder", "dropout", 1.0),
        ("autoencoder", "floor", 0.0),
        ("classifier", "imbalance", "smote"),
        ("classifier", "gamma", -1),
        ("classifier", "max_weight", 0.5),
        ("classifier", "steps", 0),
        ("isolation_forest", "trees", 0),
        ("isolation_forest", "rows_per_tree", 1),
        ("pca", "variance", 1.0),
        ("pca", "components", 0),
        ("pca", "sample_rows", 1),
    ],
)
def test_an_option_out_of_range_is_refused_with_its_name(
    name: str, option: str, value: object
) -> None:
    with pytest.raises(Refusal, match=option):
        CATALOG.configure(name, {option: value})


def test_options_are_taken_as_yaml_and_json_give_them() -> None:
    config = CATALOG.configure("autoencoder", {"widths": [64, 8], "noise": 1, "latent": None})
    assert config.widths == (64, 8)
    assert config.noise == 1.0
    assert config == CATALOG.configure("autoencoder", {"widths": (64, 8), "noise": 1.0})


# --- inputs ----------------------------------------------------------------------------------


def test_rare_codes_of_a_large_vocabulary_join_other_in_one_hot_form() -> None:
    layout = Layout((), (CategoryInput("user", 10_000, embedding=8),))
    inputs = Inputs(layout, embed=False)
    rows = Batch(torch.zeros(3, 0), torch.tensor([[0], [MAX_ONEHOT], [MAX_ONEHOT - 1]]))
    columns = inputs(rows)
    assert columns.shape == (3, MAX_ONEHOT)
    assert columns.argmax(1).tolist() == [0, 0, MAX_ONEHOT - 1]


def test_the_matrix_holds_numbers_then_each_category_in_the_layouts_order() -> None:
    layout = Layout(
        (NumericInput("x", "real"),),
        (CategoryInput("a", 3), CategoryInput("b", 5, embedding=2), CategoryInput("c", 3)),
    )
    inputs = Inputs(layout, embed=True)
    columns = inputs(Batch(torch.tensor([[7.0]]), torch.tensor([[1, 4, 2]])))
    embedding = inputs.embeddings[0].weight[4].tolist()  # type: ignore[index]
    assert columns[0].tolist() == [7.0, 0, 1, 0, *embedding, 0, 0, 1]
    assert inputs.sum_by_feature(torch.ones(1, 9)).tolist() == [[1, 3, 2, 3]]


# --- autoencoder -----------------------------------------------------------------------------


def test_an_unseen_category_is_surprising_and_named_as_the_reason() -> None:
    torch.manual_seed(0)
    detector = CATALOG.build("autoencoder", MIXED, {"widths": [16]})
    rows = Batch(torch.zeros(512, 2), torch.full((512, 1), 2))
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        detector(rows).mean().backward()
        optimizer.step()
    detector.calibrate([rows])
    row = Batch(torch.zeros(1, 2), torch.tensor([[0]]))
    found = detector.contributions(row)
    assert detector.score(row) > detector.score(Batch(row.numeric, torch.tensor([[2]])))
    assert int(found.shares[0].argmax()) == 2
    assert found.expected.codes.tolist() == [[2]]


def test_expected_binaries_are_probabilities() -> None:
    detector = CATALOG.build("autoencoder", MIXED, {})
    rows = Batch(torch.full((5, 2), 50.0), torch.zeros(5, 1, dtype=torch.int64))
    chances = detector.contributions(rows).expected.numeric[:, 1]
    assert ((chances >= 0) & (chances <= 1)).all()


def test_calibration_weighs_a_feature_by_its_usual_error() -> None:
    detector = CATALOG.build("autoencoder", NUMBERS, {})
    assert isinstance(detector, Autoencoder)
    rows = numbers(400, seed=0)
    wide = Batch(rows.numeric * torch.tensor([1.0, 1.0, 1.0, 9.0]), rows.codes)
    detector.calibrate([wide])
    assert detector.variance[3] > 10 * detector.variance[:3].max()
    constant = Batch(torch.zeros(400, 4), rows.codes)
    for parameter in detector.parameters():
        torch.nn.init.zeros_(parameter)
    detector.calibrate([constant])
    assert torch.equal(detector.variance, torch.full((4,), 1e-3))
    with pytest.raises(Refusal, match="held-back rows"):
        detector.calibrate([])


def test_denoising_and_dropout_are_for_training_only() -> None:
    detector = CATALOG.build("autoencoder", MIXED, {"noise": 0.5, "mask": 0.3, "dropout": 0.3})
    rows = Batch(torch.ones(64, 2), torch.ones(64, 1, dtype=torch.int64))
    detector.train()
    assert not torch.equal(detector.loss(rows), detector.loss(rows))
    assert torch.equal(detector.score(rows), detector.score(rows))
    detector.eval()
    assert torch.equal(detector.loss(rows), detector.loss(rows))


# --- classifier ------------------------------------------------------------------------------


def test_positive_weight_gives_both_classes_the_same_say() -> None:
    detector = CATALOG.build("classifier", NUMBERS, {"dropout": 0, "max_weight": 100})
    assert isinstance(detector, Classifier)
    detector.prepare(positive=10, rows=1000)
    normal, anomaly = detector.class_weight.tolist()
    assert normal * 990 == pytest.approx(anomaly * 10)
    assert normal * 990 + anomaly * 10 == pytest.approx(1000)


def test_an_anomaly_weighs_at_most_max_weight() -> None:
    detector = CATALOG.build("classifier", NUMBERS, {"max_weight": 5})
    assert isinstance(detector, Classifier)
    detector.prepare(positive=1, rows=1_000_000)
    assert float(detector.class_weight[1] / detector.class_weight[0]) == pytest.approx(5)


def test_without_a_max_weight_every_row_weighs_the_same() -> None:
    detector = CATALOG.build("classifier", NUMBERS, {})
    assert isinstance(detector, Classifier)
    detector.prepare(positive=10, rows=1000)
    assert detector.class_weight.tolist() == [1.0, 1.0]


def test_focal_loss_starts_at_the_prior_and_fades_for_easy_rows() -> None:
    torch.manual_seed(0)
    rows = numbers(200, seed=0)
    plain, focal = (
        CATALOG.build("classifier", NUMBERS, {"imbalance": "focal", "gamma": gamma}).eval()
        for gamma in (0, 2)
    )
    focal.load_state_dict(plain.state_dict())
    for detector in (plain, focal):
        detector.prepare(positive=2, rows=200)
    entropy, faded = plain.loss(rows), focal.loss(rows)
    missed = -torch.expm1(-entropy)  # 1 - p of the true class
    torch.testing.assert_close(faded, entropy * missed.square())
    assert float(plain.score(rows).detach().mean()) == pytest.approx(np.log(2 / 198), abs=0.5)


@pytest.mark.parametrize(("positive", "rows"), [(0, 100), (100, 100), (0, 0)])
def test_labels_of_one_class_alone_are_refused(positive: int, rows: int) -> None:
    with pytest.raises(Refusal, match="both classes"):
        CATALOG.build("classifier", NUMBERS, {}).prepare(positive, rows)


def test_rows_without_a_label_cannot_train_the_classifier() -> None:
    with pytest.raises(Refusal, match="label"):
        CATALOG.build("classifier", NUMBERS, {}).loss(numbers(3, seed=0)._replace(label=None))


def test_the_reference_row_is_the_mean_of_the_normal_rows_only() -> None:
    detector = CATALOG.build("classifier", MIXED, {})
    assert isinstance(detector, Classifier)
    numeric = torch.tensor([[1.0, 0.0], [3.0, 1.0], [99.0, 1.0]])
    rows = Batch(numeric, torch.tensor([[2], [2], [3]]), torch.tensor([0.0, 0.0, 1.0]))
    detector.calibrate([rows])
    expected = detector.contributions(rows).expected
    assert expected.numeric.tolist() == [[2.0, 0.5]] * 3
    assert expected.codes.tolist() == [[2]] * 3


# --- isolation forest ------------------------------------------------------------------------


def test_the_forest_scores_as_scikit_learn_does() -> None:
    sample, rows = numbers(1000, seed=0), numbers(500, seed=1)
    rows = Batch(rows.numeric * 3, rows.codes)
    ours = CATALOG.build("isolation_forest", NUMBERS, {})
    ours.fit(sample, seed=3)
    theirs = sklearn.ensemble.IsolationForest(max_samples=256, random_state=3)
    theirs.fit(sample.numeric.numpy())
    found = 2.0 ** (ours.score(rows).double().numpy() - 1)
    np.testing.assert_allclose(found, -theirs.score_samples(rows.numeric.numpy()), atol=1e-6)


def test_a_forest_of_fewer_rows_than_a_tree_wants_scores_as_scikit_learn_does() -> None:
    sample = numbers(40, seed=0)
    ours = CATALOG.build("isolation_forest", NUMBERS, {})
    assert isinstance(ours, IsolationForest)
    ours.fit(sample, seed=3)
    theirs = sklearn.ensemble.IsolationForest(random_state=3).fit(sample.numeric.numpy())
    found = 2.0 ** (ours.score(sample).double().numpy() - 1)
    np.testing.assert_allclose(found, -theirs.score_samples(sample.numeric.numpy()), atol=1e-6)
