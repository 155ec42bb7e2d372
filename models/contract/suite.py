"""The contract: what every detector promises, whatever it has learned.

To test a detector, inherit from `DetectorContract` in a file of tests:

    class TestSliding(DetectorContract):
        subjects = (Subject("sliding", Sliding, {"trees": 10}),)

Each test runs on every layout of `models.contract.layouts` that fits the detector: on the CPU, and
on CUDA where there is a GPU. The options only make training short.
"""

import copy
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

from models.batch import Batch, join
from models.contract.layouts import GIVEN, TABLE, Given, far_table_rows, table_rows
from models.detectors.detector import Detector
from models.detectors.options import Catalog
from models.layout import Layout, NumericInput
from models.refusal import Refusal

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@dataclass(frozen=True, eq=False)
class Subject:
    """A detector to test."""

    name: str  # in the ids of the tests
    kind: type[Detector]
    options: dict[str, Any] = field(default_factory=dict)
    least_auroc: float = 0.9  # of anomalies planted far away against normal rows

    def build(self, layout: Layout, options: dict[str, Any] | None = None) -> Detector:
        """Build it as a training does, with its own options or with those that a bundle keeps."""
        own = self.options if options is None else options
        return Catalog({self.name: self.kind}).build(self.name, layout, own)

    def list_givens(self) -> list[Given]:
        """What it is tested on. A series without other columns is for detectors that take nothing
        else."""
        fitting = [given for given in GIVEN.values() if self.kind.unfit(given.layout) is None]
        others = [given for given in fitting if given.name != "lone"]
        return others or fitting


class Case(NamedTuple):
    """A detector, trained on rows of a layout that fits it, on a device."""

    given: Given
    subject: Subject
    device: str

    @property
    def detector(self) -> Detector:
        return moved(self.given.name, self.subject, self.device)

    @property
    def rows(self) -> Batch:
        """Normal rows and some far ones, none of which were trained on."""
        return held_out(self.given.name).to(self.device)

    def normal(self, rows: int, seed: int) -> Batch:
        return self.given.normal(rows, seed).to(self.device)

    def far(self, rows: int, seed: int) -> Batch:
        return self.given.far(rows, seed).to(self.device)


def train(detector: Detector, batch: Batch, given: Given, epochs: int) -> Detector:
    """A short training in one process, as `cluster.training.trainer` does it."""
    torch.manual_seed(0)
    if detector.learns != "gradient":
        sample = batch.take(slice(0, detector.config.sample_rows))
        detector.fit(sample._replace(label=None), seed=0)
    if detector.learns == "sample":
        return detector.eval()
    if detector.labels == "all":
        assert batch.label is not None
        detector.prepare(int(batch.label.sum()), len(batch.label))
    if detector.labels == "some":
        assert batch.label is not None
        detector.show(batch.take(batch.label > 0.5))
    optimizer = torch.optim.AdamW(detector.parameters(), lr=3e-3)
    detector.train()
    for _ in range(epochs):
        order = torch.randperm(len(batch.numeric)).to(batch.numeric.device)
        for rows in torch.split(order, 128):
            loss = detector(batch.take(rows)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    detector.eval()
    device = batch.numeric.device
    detector.calibrate([given.normal(300, 7).to(device), given.normal(200, 8).to(device)])
    return detector


@cache
def trained(given_name: str, subject: Subject) -> Detector:
    """A trained detector; one that needs labels sees some anomalies too."""
    given = GIVEN[given_name]
    torch.manual_seed(0)
    detector = subject.build(given.layout)
    rows = given.normal(given.rows, 1)
    if detector.labels != "none":
        rows = join([rows, given.far(100, 2)])
    return train(detector, rows, given, given.epochs)


@cache
def moved(given_name: str, subject: Subject, device: str) -> Detector:
    """The detector trained on the CPU, on another device."""
    detector = trained(given_name, subject)
    return detector if device == "cpu" else copy.deepcopy(detector).to(device)


@cache
def held_out(given_name: str) -> Batch:
    given = GIVEN[given_name]
    return join([given.normal(given.rows // 4, 3), given.far(50, 4)])


@torch.inference_mode()
def scores(detector: Detector, batch: Batch) -> Tensor:
    return detector.score(batch)


def padded_scores(detector: Detector, batch: Batch, padded: int) -> Tensor:
    """Scores in pieces of `padded` rows, the last filled with zeros, as the scorer does."""
    out = []
    for start in range(0, len(batch.numeric), padded):
        piece = batch.take(slice(start, start + padded))._replace(label=None)
        rows = len(piece.numeric)
        zeros = piece.map(lambda t: t.new_zeros(padded, *t.shape[1:]))
        filled = join([piece, zeros]).take(slice(0, padded))
        out.append(scores(detector, filled)[:rows])
    return torch.cat(out)


def assert_close(found: Tensor, expected: Tensor, device: str, atol: float = 5e-5) -> None:
    """The same but for rounding. A GPU adds up in another order, and multiplies in TensorFloat-32
    in convolutions and cells."""
    rtol, atol = (1e-5, atol) if device == "cpu" else (5e-3, 5e-3)
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def drawn_rows(data: st.DataObject, case: Case, most: int) -> Tensor:
    places = st.integers(0, len(case.rows.numeric) - 1)
    drawn = data.draw(st.lists(places, min_size=1, max_size=most))
    return torch.tensor(drawn).to(case.device)


class DetectorContract:
    """The tests of the contract, for the `subjects` that a subclass names."""

    subjects: ClassVar[Sequence[Subject]] = ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run a test for each subject, or for each layout that fits a subject."""
        if "subject" in metafunc.fixturenames:
            names = [subject.name for subject in self.subjects]
            metafunc.parametrize("subject", self.subjects, ids=names)
        if "case" in metafunc.fixturenames:
            cases = [
                Case(given, subject, device)
                for subject in self.subjects
                for given in subject.list_givens()
                for device in DEVICES
            ]
            names = [f"{case.given.name}-{case.subject.name}-{case.device}" for case in cases]
            metafunc.parametrize("case", cases, ids=names)

    def test_a_score_is_one_finite_float32_a_row(self, case: Case) -> None:
        found = scores(case.detector, case.rows)
        assert found.dtype == torch.float32
        assert found.shape == (len(case.rows.numeric),)
        assert torch.isfinite(found).all()
        assert found.std() > 0

    def test_no_rows_give_no_scores_and_no_reasons(self, case: Case) -> None:
        empty = case.rows.take(slice(0, 0))
        assert scores(case.detector, empty).shape == (0,)
        found = case.detector.contributions(empty)
        assert found.shares.shape == (0, len(case.given.layout.features))
        assert case.detector.loss(empty).shape == (0,)

    @pytest.mark.parametrize("value", [1e3, 1e15, -1e15, 3.4e38])
    def test_a_huge_number_scores_finite_and_above_normal_rows(
        self, case: Case, value: float
    ) -> None:
        if case.detector.labels != "none":
            pytest.skip("a classifier knows only the anomalies that it was shown")
        if case.given.huge is None:
            pytest.skip("tokens are codes: none of them is huge")
        row = case.rows.take(slice(0, 1))
        huge = case.given.huge(row, value)
        found = scores(case.detector, huge)
        assert torch.isfinite(found).all()
        assert found[0] > scores(case.detector, row)[0]
        assert torch.isfinite(case.detector.contributions(huge).shares).all()

    @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def test_a_row_scores_the_same_in_any_batch_and_order(
        self, case: Case, data: st.DataObject
    ) -> None:
        every = scores(case.detector, case.rows)
        chosen = drawn_rows(data, case, 300)
        # BLAS rounds a product by about 1e-6 differently for another number of rows, and the
        # autoencoder's log(1 + r^2 / v) has a slope of up to 1 / sqrt(v) = 32 in r.
        assert_close(scores(case.detector, case.rows.take(chosen)), every[chosen], case.device)

    @settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def test_padded_batches_score_a_row_to_the_same_bit(
        self, case: Case, data: st.DataObject
    ) -> None:
        padded = case.given.padded
        every = padded_scores(case.detector, case.rows, padded)
        chosen = drawn_rows(data, case, padded + padded // 2)
        again = padded_scores(case.detector, case.rows.take(chosen), padded)
        assert torch.equal(again, every[chosen])

    def test_padded_batches_score_the_same_to_the_bit_with_one_thread_and_two(
        self, case: Case
    ) -> None:
        with threads(1):
            one = padded_scores(case.detector, case.rows, case.given.padded)
        with threads(2):
            two = padded_scores(case.detector, case.rows, case.given.padded)
        assert torch.equal(one, two)

    def test_the_mode_of_the_module_does_not_change_a_score(self, case: Case) -> None:
        before = scores(case.detector, case.rows)
        case.detector.train()
        try:
            assert torch.equal(scores(case.detector, case.rows), before)
        finally:
            case.detector.eval()

    def test_shares_and_the_base_add_up_to_the_score(self, case: Case) -> None:
        found = case.detector.contributions(case.rows)
        assert found.shares.dtype == torch.float32
        assert found.shares.shape == (len(case.rows.numeric), len(case.given.layout.features))
        score = scores(case.detector, case.rows)
        total = case.detector.base_score() + found.shares.sum(1)
        assert_close(total, score, case.device, atol=1e-4)

    def test_the_map_of_a_signal_adds_up_to_its_share(self, case: Case) -> None:
        found = case.detector.contributions(case.rows)
        layout = case.given.layout
        shapes = [*(s.shape for s in layout.signals), *((t.length,) for t in layout.tokens)]
        rows = len(case.rows.numeric)
        assert [tuple(m.shape) for m in found.maps] == [(rows, *shape) for shape in shapes]
        first = len(layout.numeric) + len(layout.categories)
        for j, signal in enumerate(layout.signals):
            share = found.shares[:, first + j]
            # The sum of thousands of float32 of both signs rounds by more than the last bit.
            torch.testing.assert_close(
                found.maps[j].flatten(1).sum(1), share, rtol=1e-4, atol=1e-4, msg=signal.name
            )

    def test_contributions_are_the_same_in_inference_mode(self, case: Case) -> None:
        rows = case.rows.take(slice(0, 20))
        with torch.inference_mode():
            quiet = case.detector.contributions(rows)
        assert torch.equal(quiet.shares, case.detector.contributions(rows).shares)

    def test_the_expected_row_has_the_shape_and_types_of_a_batch(self, case: Case) -> None:
        expected = case.detector.contributions(case.rows).expected
        expected.map(lambda tensor: tensor.contiguous()).check(case.given.layout)
        assert len(expected.numeric) == len(case.rows.numeric)
        for numbers in (expected.numeric, *expected.signals):
            assert torch.isfinite(numbers).all()

    def test_a_feature_that_is_off_has_a_larger_share_than_in_normal_rows(self, case: Case) -> None:
        if case.detector.labels != "none" and case.given.name != "table":
            pytest.skip("a classifier knows only the anomalies that it was shown")
        rows = case.normal(500, 5)
        usual = case.detector.contributions(rows).shares[:, case.given.odd_feature]
        odd = case.detector.contributions(case.given.odd(rows)).shares[:, case.given.odd_feature]
        assert odd.median() > usual.quantile(0.99)

    def test_a_detector_is_saved_and_loaded_to_the_bit_without_pickle(self, case: Case) -> None:
        # A bundle keeps all options, as JSON; it is opened with a sketch that takes no memory.
        options = json.loads(json.dumps(asdict(case.detector.config)))
        state = load(save(case.detector.state_dict()))
        with torch.device("meta"):
            sketch = case.subject.build(case.given.layout, options)
        shapes = {name: tensor.shape for name, tensor in sketch.state_dict().items()}
        assert shapes == {name: tensor.shape for name, tensor in state.items()}
        loaded = case.subject.build(case.given.layout, options)
        loaded.load_state_dict(state)
        loaded.to(case.device).eval()
        assert torch.equal(scores(loaded, case.rows), scores(case.detector, case.rows))
        ours, theirs = case.detector.contributions(case.rows), loaded.contributions(case.rows)
        assert torch.equal(ours.shares, theirs.shares)
        assert torch.equal(ours.expected.codes, theirs.expected.codes)
        assert loaded.base_score() == case.detector.base_score()

    def test_anomalies_planted_far_away_score_above_normal_rows(self, case: Case) -> None:
        usual = scores(case.detector, case.normal(700, 3))
        planted = scores(case.detector, case.far(50, 4))
        auroc = (planted[:, None] > usual).float().mean()
        assert auroc >= case.subject.least_auroc

    def test_training_twice_with_the_same_seed_gives_the_same_scores(self, case: Case) -> None:
        rows = join([case.normal(256, 1), case.far(16, 2)])
        found = []
        for _ in range(2):
            torch.manual_seed(0)
            fresh = case.subject.build(case.given.layout).to(case.device)
            found.append(scores(train(fresh, rows, case.given, epochs=1), case.rows))
        if case.device == "cpu":
            assert torch.equal(*found)
        else:  # a GPU adds up gradients in any order
            assert_close(found[1], found[0], case.device)

    @pytest.mark.parametrize("method", ["score", "contributions", "loss"])
    def test_a_batch_of_another_layout_is_refused(self, subject: Subject, method: str) -> None:
        if lacking := subject.kind.unfit(TABLE):
            pytest.skip(lacking)
        rows = held_out("table")
        wrong = {
            "found 4 ": rows._replace(numeric=rows.numeric[:, :4]),
            "found 5 .* and 1 ": rows._replace(codes=rows.codes[:, :1]),
            "float64": rows._replace(numeric=rows.numeric.double()),
            "int32": rows._replace(codes=rows.codes.int()),
            "codes of 'protocol' from 0 to 4": rows._replace(codes=rows.codes + 3),
        }
        for message, batch in wrong.items():
            with pytest.raises(Refusal, match=message):
                getattr(trained("table", subject), method)(batch)

    @pytest.mark.parametrize("method", ["score", "contributions", "loss"])
    def test_signals_and_tokens_of_another_shape_are_refused(self, case: Case, method: str) -> None:
        shorter = [
            case.rows._replace(signals=tuple(s[..., 1:] for s in case.rows.signals)),
            case.rows._replace(tokens=tuple(t[..., 1:] for t in case.rows.tokens)),
        ]
        for rows, part in zip(shorter, (case.rows.signals, case.rows.tokens), strict=True):
            if part:
                with pytest.raises(Refusal, match="expected signals and tokens"):
                    getattr(case.detector, method)(rows)

    def test_the_state_of_another_layout_is_refused(self, case: Case) -> None:
        layout = case.given.layout
        renamed = replace(layout, numeric=(NumericInput("elapsed", "real"), *layout.numeric[1:]))
        if not layout.numeric:
            renamed = replace(layout, signals=(replace(layout.signals[0], name="elapsed"),))
        fresh = case.subject.build(renamed, asdict(case.detector.config))
        # The same shapes: only the name tells them apart.
        with pytest.raises(Refusal, match="another layout"):
            fresh.load_state_dict(case.detector.state_dict())

    @pytest.mark.parametrize(
        "layout",
        [
            Layout(TABLE.numeric, ()),
            Layout((), TABLE.categories),
            Layout(TABLE.numeric[:1], TABLE.categories[1:]),
        ],
        ids=["numbers only", "categories only", "one of each"],
    )
    def test_a_table_of_numbers_or_of_categories_alone_will_do(
        self, subject: Subject, layout: Layout
    ) -> None:
        if lacking := subject.kind.unfit(layout):
            pytest.skip(lacking)
        rows = join([table_rows(300, 1), far_table_rows(20, 2)])
        n, c = len(layout.numeric), len(layout.categories)
        rows = Batch(rows.numeric[:, :n], rows.codes[:, 2 - c :], rows.label)
        detector = subject.build(layout)
        if detector.learns != "gradient":
            detector.fit(rows, seed=0)
        if detector.learns != "sample":
            detector.prepare(20, 320)
            detector.show(rows.take(slice(300, 320)))
            detector(rows).mean().backward()
            detector.calibrate([rows])
        detector.eval()
        assert torch.isfinite(scores(detector, rows)).all()
        found = detector.contributions(rows)
        assert found.shares.shape == (320, n + c)
        assert found.expected.codes.shape == (320, c)

    @pytest.mark.parametrize("given_name", GIVEN)
    def test_a_layout_that_does_not_fit_is_refused_by_name(
        self, subject: Subject, given_name: str
    ) -> None:
        if subject.kind.unfit(GIVEN[given_name].layout) is None:
            return
        message = f"'{subject.name}' does not fit these columns: expected .*found"
        with pytest.raises(Refusal, match=message):
            subject.build(GIVEN[given_name].layout)

    def test_every_parameter_gets_a_gradient(self, case: Case) -> None:
        """DDP waits for ever for a parameter that the loss does not use."""
        detector = case.detector
        if detector.learns == "sample":
            assert not list(detector.parameters())
            return
        detector.zero_grad()
        detector(case.rows).mean().backward()
        assert [n for n, p in detector.named_parameters() if p.grad is None] == []

    def test_loss_is_one_finite_float32_a_row(self, case: Case) -> None:
        found = case.detector.loss(case.rows)
        assert found.shape == (len(case.rows.numeric),)
        assert found.dtype == torch.float32
        assert torch.isfinite(found).all()
