"""A compiled detector gives the scores, flags and evidence of torch, whatever the detector."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.columns import (
    Boolean,
    Categorical,
    FeatureColumn,
    Image,
    Numeric,
    Sequence,
    Text,
    Vector,
    Video,
)
from models.compiled import CompiledModel, Graphs
from models.detectors.catalog import CATALOG
from models.detectors.detector import Detector
from models.eager import EagerModel
from models.encoding.encoder import Encoder
from models.evidence import Evidence, join_evidence
from models.exporting import TOLERANCE, compile_detector
from models.refusal import Refusal
from models.searching import search_sorted
from tests.models.detectors.test_contract import OPTIONS
from tests.models.flows import COLUMNS as FLOWS
from tests.models.flows import batch_of, fit, flows
from tests.models.media import mixed

WIDE: dict[str, tuple[FeatureColumn, ...]] = {
    "image": (Image("picture", 8),),
    "series": (Sequence("series", length=5),),
    "events": (Sequence("events", length=5),),
    "text": (Text("message", 32, 16),),
    "vector": (Vector("embedding"),),
    "signals": (
        *(Image("picture", 8), Text("message", 32, 16), Vector("embedding")),
        *(Sequence("series", length=5), Sequence("events", length=5), Video("clip", 2, 8)),
    ),
}


NARROW: dict[str, tuple[FeatureColumn, ...]] = {
    "number": (Numeric("x"),),
    "categories": (Categorical("proto"), Categorical("port", encoding="embedding")),
    "ranks": (Numeric("x", scale="quantile"), Boolean("flag")),
}
RNG = np.random.default_rng(0)
PLAIN = pa.table(
    {
        "x": [*RNG.exponential(size=59).tolist(), None],
        "proto": ["tcp", "udp", "udp", None] * 15,
        "port": RNG.choice([str(port) for port in range(40)], 60).tolist(),
        "flag": RNG.random(60) < 0.1,
    }
)
TABLES = {
    "table": flows(400),
    **dict.fromkeys(NARROW, PLAIN),
    **dict.fromkeys(WIDE, mixed(60)),
}
ENCODERS = {
    kind: fit(table, {"table": FLOWS, **NARROW, **WIDE}[kind]) for kind, table in TABLES.items()
}
# Elsewhere than on a table, those that fit no table, and one of each way to compute.
QUICK = ("autoencoder", "deep_svdd", "ecod", "ensemble", "gaussian", "knn")


def is_quick(kind: str, name: str) -> bool:
    fits_tables = CATALOG[name].unfit(ENCODERS["table"].layout) is None
    return kind == "table" or (
        kind in ("image", "series", "categories") and (name in QUICK or not fits_tables)
    )


CASES = [
    pytest.param(kind, name, marks=[] if is_quick(kind, name) else [pytest.mark.slow])
    for kind in ENCODERS
    for name in sorted(CATALOG)
    if CATALOG[name].unfit(ENCODERS[kind].layout) is None
]

# Detectors whose scores may depend on the last bits of their inputs: distances to rows that are
# equal, and ranks among values that are. Their graphs are not taken for every table.
ROUNDED = ("ecod", "ensemble", "knn", "matrix_profile", "stacked_devnet")


UNNAMED: dict[str, Any] = dict.fromkeys(("numeric", "codes", "signals", "tokens"), ())


def find_gap(scores: Any) -> float:
    """A threshold as far from all scores as there is."""
    ordered = np.sort(scores.astype(np.float64))
    place = int(np.argmax(np.diff(ordered)))
    return float(ordered[place : place + 2].mean())


def build(kind: str, name: str) -> tuple[Encoder, Detector, Any]:
    encoder = ENCODERS[kind]
    raw = encoder.extract(batch_of(TABLES[kind]))
    torch.manual_seed(0)
    detector = CATALOG.build(name, encoder.layout, OPTIONS.get(name, {}))
    batch = encoder(raw)
    if detector.learns != "gradient":
        detector.fit(batch, seed=0)
    detector.eval()
    with torch.no_grad():
        detector.calibrate([batch])
    return encoder, detector, raw


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_compiled_detector_has_the_scores_and_the_evidence_of_torch(kind: str, name: str) -> None:
    encoder, detector, raw = build(kind, name)
    eager = EagerModel(encoder, detector, "cpu")
    wanted = eager.score(raw)
    compiled = compile_detector(encoder, detector, raw, find_gap(wanted))
    if detector.eager:
        assert compiled.reason == detector.eager
        return
    if name in ROUNDED and kind not in ("image", "vector") and compiled.reason:
        assert compiled.reason.startswith("its scores differ by")
        return
    assert compiled.reason is None
    assert compiled.graphs is not None
    assert compiled.difference is not None
    assert compiled.difference <= TOLERANCE
    assert (compiled.graphs.explainer is None) == detector.explains_by_gradients
    model = CompiledModel(encoder, compiled.graphs, lambda: eager)
    whole = model.score(raw)
    parts = [model.score(raw.take(slice(a, b))) for a, b in ((0, 7), (7, raw.rows))]
    assert whole.tobytes() == np.concatenate(parts).tobytes()
    explained = flatten(join_evidence([evidence for _, evidence in model.explain(raw)]))
    moved = flatten(join_evidence([one for _, one in model.explain(raw.take(slice(7, None)))]))
    for all_rows, some in zip(explained, moved, strict=True):
        assert all_rows[7:].tobytes() == some.tobytes()
    for (rows, ours), (_, theirs) in zip(model.explain(raw), eager.explain(raw), strict=True):
        assert rows.rows == len(ours.shares)
        if name == "ensemble":  # which member names what it expected is a matter of rounding
            ours, theirs = ours._replace(**UNNAMED), theirs._replace(**UNNAMED)
        for found, known in zip(flatten(ours), flatten(theirs), strict=True):
            size = np.abs(known).max(initial=1e-3)
            np.testing.assert_allclose(found, known, rtol=2e-3, atol=1e-3 * size)


def flatten(evidence: Evidence) -> list[Any]:
    groups = (one if isinstance(one, tuple) else (one,) for one in evidence)
    return [array for group in groups for array in group]


def test_a_detector_whose_compiled_scores_would_differ_stays_with_torch() -> None:
    encoder, detector, raw = build("table", "pca")

    class Shifted(type(detector)):  # type: ignore[misc]
        def score(self, batch: Any) -> Any:
            return super().score(batch) * (1.001 if torch.onnx.is_in_onnx_export() else 1.0)

    detector.__class__ = Shifted
    compiled = compile_detector(encoder, detector, raw, 0.0)
    assert compiled.graphs is None
    assert compiled.reason == "its scores differ by 0.001 when compiled"


def test_a_detector_that_cannot_be_exported_stays_with_torch() -> None:
    encoder, detector, raw = build("table", "pca")

    class Odd(type(detector)):  # type: ignore[misc]
        def score(self, batch: Any) -> Any:
            return super().score(batch) + torch.linalg.svdvals(batch.numeric).sum()

    detector.__class__ = Odd
    compiled = compile_detector(encoder, detector, raw, 0.0)
    assert compiled.graphs is None
    assert compiled.reason == "it cannot be exported (UnsupportedOperatorError)"


@pytest.mark.parametrize("data", [b"", b"rubbish", b"\x08\x0a" * 100])
def test_graphs_that_are_none_are_refused(data: bytes) -> None:
    encoder = ENCODERS["table"]
    with pytest.raises(Refusal, match=r"expected scorer.onnx to be a model that onnxruntime"):
        CompiledModel(encoder, Graphs(data, None), lambda: pytest.fail("not asked"))
    with pytest.raises(Refusal, match="with its weights in it; found names of other files"):
        CompiledModel(encoder, Graphs(data + b"location", None), lambda: pytest.fail("not asked"))


def test_the_graph_of_another_encoder_is_refused() -> None:
    _, _, raw = build("table", "pca")
    encoder, other, other_raw = build("series", "pca")
    graphs = compile_detector(encoder, other, other_raw, 0.0).graphs
    assert graphs is not None
    model = CompiledModel(ENCODERS["table"], graphs, lambda: pytest.fail("not asked"))
    with pytest.raises(Refusal, match=r"expected scorer.onnx of this encoder; found another"):
        model.score(raw)


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=70), st.booleans())
def test_the_search_that_is_exported_finds_what_torch_finds(
    points: list[float], right: bool
) -> None:
    table = torch.tensor(sorted(points))[None].contiguous()
    values = torch.tensor([[*points, -6.0, 6.0, 0.0, 0.5]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
        found = search_sorted(table, values, right)
    assert torch.equal(found, torch.searchsorted(table, values, right=right))
