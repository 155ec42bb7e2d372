"""What the detectors of images reach on real ones, a class or two: the rest is the harness's."""

import json
import sys

import pytest

from models.learning import TrainingOptions
from tests.quality.images import DATA, main, measure

pytestmark = pytest.mark.skipif(
    not DATA.exists(),
    reason="../shared/data is missing: the labelled sets are not in the repository",
)


@pytest.mark.parametrize(
    ("name", "normal", "least"), [("fashion_mnist", "coat", 0.92), ("spoken_digits", "4", 0.95)]
)
def test_neighbours_by_gradients_tell_a_class_from_the_others(
    name: str, normal: str, least: float
) -> None:
    found = measure(name, normal, "hog_knn", TrainingOptions(), {})
    assert found.auroc > least
    assert found.trained < 1000


def test_the_command_prints_a_line_a_class_and_the_mean(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = "images --set mvtec_ad_resnet18 --detector pca --detector hog_knn --normal wood"
    monkeypatch.setattr(sys, "argv", asked.split())
    main()
    wood, mean, refused = map(json.loads, capsys.readouterr().out.splitlines())
    assert wood["normal"] == "wood"
    assert mean["mean_auroc"] == wood["auroc"]
    assert refused["refused"].startswith("expected a series, an image")
