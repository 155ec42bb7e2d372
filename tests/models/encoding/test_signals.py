"""All kinds of signals in one encoder: bundles, chunks, independent rows, sizes."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch

from models.bundle import make_bundle, open_bundle
from models.columns import Audio, FeatureColumn, Image, Sequence, Text, Vector, Video
from models.detectors.catalog import CATALOG
from models.encoding.encoder import Encoder
from models.layout import CHUNK, Layout, SignalInput, TokenInput, count_chunk_rows
from models.refusal import Refusal
from models.scores.sketch import ScoreSketch
from models.scores.threshold import Calibration
from tests.models.flows import batch_of, encode, fit
from tests.models.media import mixed

# Not in alphabetical order, in which JSON sorts keys.
COLUMNS: tuple[FeatureColumn, ...] = (
    Video("clip", 2, 8),
    Text("message", 32, 16),
    Sequence("series"),
    Image("picture", 8),
    Audio("call", seconds=0.3, mels=8),
    Vector("embedding"),
    Sequence("events"),
)


def with_nulls(table: pa.Table) -> pa.Table:
    """The first row of each column is null."""
    columns = [
        pa.array([None, *table.column(i).to_pylist()[1:]], table.schema.types[i])
        for i in range(table.num_columns)
    ]
    return pa.table(columns, table.column_names)


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return with_nulls(mixed(24))


@pytest.fixture(scope="module")
def encoder(table: pa.Table) -> Encoder:
    return fit(table, COLUMNS)


def test_the_layout_has_the_order_of_the_columns(encoder: Encoder) -> None:
    names = ["clip", "message n-grams", "series", "picture", "call", "embedding"]
    assert [signal.name for signal in encoder.layout.signals] == names
    assert [tokens.name for tokens in encoder.layout.tokens] == ["message", "events"]
    assert [i.name for i in encoder.layout.numeric] == [f"{c.name} is null" for c in COLUMNS]


def test_a_batch_has_the_shapes_and_types_of_the_layout(encoder: Encoder, table: pa.Table) -> None:
    encoded = encode(encoder, table)
    encoded.check(encoder.layout)
    assert all(signal.isfinite().all() for signal in encoded.signals)
    assert all(not signal[0].any() for signal in encoded.signals)
    assert encoded.numeric[0].all()
    nothing = encoder(encoder.make_empty())
    nothing.check(encoder.layout)
    assert len(nothing.numeric) == 0


def test_a_row_does_not_depend_on_the_others_of_its_batch(
    encoder: Encoder, table: pa.Table
) -> None:
    whole = encode(encoder, table)
    for row in (0, 7, 23):
        alone = encode(encoder, table.slice(row, 1))
        one = whole.take(slice(row, row + 1))
        for left, right in zip(alone.signals + alone.tokens, one.signals + one.tokens, strict=True):
            assert torch.equal(left, right)


def test_raw_rows_have_the_size_that_the_encoder_says(encoder: Encoder, table: pa.Table) -> None:
    extracted = encoder.extract(batch_of(table))
    assert [signal.dtype for signal in extracted.signals].count(np.dtype(np.uint8)) == 2
    encoded = encoder(extracted)
    tensors = (encoded.numeric, encoded.codes, *encoded.signals, *encoded.tokens)
    both = extracted.nbytes + sum(tensor.nbytes for tensor in tensors)
    assert encoder.bytes_per_row == both / len(table)


@pytest.mark.parametrize("name", ["pca", "autoencoder"])
def test_an_opened_bundle_gives_the_same_bits(encoder: Encoder, table: pa.Table, name: str) -> None:
    detector = CATALOG.build(name, encoder.layout, {})
    batch = encode(encoder, table)
    if detector.learns == "sample":
        detector.fit(batch, seed=0)
    scores = ScoreSketch()
    scores.update(detector.eval().score(batch).detach().numpy())
    saved = make_bundle(encoder, detector, name, Calibration(scores), {})
    opened = open_bundle(saved.files, expected=saved.id)
    assert opened.files == saved.files
    again = encode(opened.encoder, table)
    for left, right in zip(batch.signals + batch.tokens, again.signals + again.tokens, strict=True):
        assert torch.equal(left, right)
    assert torch.equal(opened.detector.score(again), detector.score(batch))


def test_tensors_of_another_encoder_are_refused(encoder: Encoder) -> None:
    document = json.loads(json.dumps(encoder.to_document()))
    tensors = encoder.state_dict()
    with pytest.raises(Refusal, match=r"expected the encoder's tensors"):
        Encoder.from_document(
            document, {n: t for n, t in tensors.items() if n != "signals.2.centre"}
        )
    with pytest.raises(Refusal, match=r"expected scales for 'picture' of shape \(1, 8, 8\)"):
        Encoder.from_document(document, {**tensors, "signals.3.centre": torch.zeros(2, 1, 1)})


def test_the_elements_of_a_vector_share_one_deviation_and_keep_their_means() -> None:
    loud, quiet = [-30.0, 10.0, 50.0], [1.0, 3.0, 2.0]
    vectors = [[a, b, 7.0] for a, b in zip(loud, quiet, strict=True)]
    table = pa.table({"x": pa.array(vectors, pa.list_(pa.float32()))})
    encoder = fit(table, (Vector("x"),))
    found = encode(encoder, table).signals[0]
    torch.testing.assert_close(found.mean(0), torch.zeros(3), rtol=0, atol=1e-6)
    spread = found.std(0, correction=0)
    assert spread[0] / spread[1] == pytest.approx(np.std(loud) / np.std(quiet), rel=1e-5)
    assert found.var(0, correction=0).mean() == pytest.approx(1, rel=1e-5)
    assert (found[:, 2] == 0).all()


def test_a_chunk_is_a_power_of_two_that_fits_the_widest_rows() -> None:
    assert Layout((), ()).chunk_rows == CHUNK
    picture = SignalInput("p", "image", (3, 32, 32))
    assert Layout((), (), (picture,)).chunk_rows == 256
    assert Layout((), (), (), (TokenInput("t", 258, 256),)).chunk_rows == 2048
    assert count_chunk_rows(1 << 40) == 1
    assert np.log2(count_chunk_rows(12_345)) % 1 == 0
