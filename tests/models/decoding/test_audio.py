"""Recordings from real files: spectrograms, scaling and refusals."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from models.columns import Audio
from models.decoding.audio import compute_band_edges, compute_log_mel, count_frames, read_wave
from models.encoding.fit import EncoderFit
from tests.models.flows import batch_of, fit, one_column
from tests.models.media import tone

COLUMN = Audio("a", sample_rate=8000, seconds=0.4, mels=20)


@pytest.mark.parametrize("form", ["WAV", "FLAC"])
@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_a_tone_lies_in_its_band_in_any_format_and_rate(form: str, rate: int) -> None:
    spectrum = compute_log_mel(read_wave(tone(1000, rate=rate, form=form), COLUMN), COLUMN)
    assert spectrum.shape == (20, count_frames(COLUMN)) == (20, 38)
    band = int(spectrum[:, 10].argmax())
    edges = compute_band_edges(8000, 20)
    assert edges[band] < 1000 < edges[band + 2]


def test_a_short_recording_is_padded_with_silence_and_a_long_one_is_cut() -> None:
    wave = read_wave(tone(500, seconds=0.1), COLUMN)
    assert len(wave) == 3200
    assert wave[:800].any()
    assert not wave[800:].any()
    assert len(read_wave(tone(500, seconds=3), COLUMN)) == 3200
    assert compute_log_mel(wave, COLUMN)[:, -1].max() == pytest.approx(math.log(1e-10))


def test_a_spectrogram_is_scaled_band_by_band() -> None:
    calls = [tone(hertz) for hertz in range(200, 2200, 100)]
    encoder = one_column(calls, COLUMN)
    (signal,) = encoder.layout.signals
    assert (signal.kind, signal.shape) == ("spectrogram", (1, 20, 38))
    encoded = encoder(encoder.extract(batch_of(pa.table({"a": calls})))).signals[0]
    torch.testing.assert_close(encoded.mean((0, 1, 3)), torch.zeros(20), atol=1e-3, rtol=0)
    torch.testing.assert_close(encoded.std((0, 1, 3)), torch.ones(20), atol=0.05, rtol=0)


def declared(data: bytes, rate: int) -> bytes:
    """The WAV file with another sample rate in its header."""
    return data[:24] + rate.to_bytes(4, "little") + data[28:]


HOSTILE: dict[str, Any] = {
    "empty": b"",
    "text": b"RIFF of a guitar",
    "truncated wav": tone(500)[:3000],
    "truncated flac": tone(500, form="FLAC")[:900],
    "no samples": tone(500, seconds=0),
    "absurd rate": declared(tone(500), 2_000_000_000),
    "another format": tone(500, form="AIFF"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_bytes_that_are_not_a_recording_are_a_problem(name: str) -> None:
    encoder = one_column([tone(500), tone(700)], COLUMN)
    found = encoder.extract(batch_of(pa.table({"a": [tone(500), HOSTILE[name]]})))
    assert [(p.row, p.rule) for p in found.problems] == [(1, "unparsable")]


def test_a_null_recording_becomes_zeros_and_an_indicator_if_training_had_nulls() -> None:
    encoder = one_column([tone(500), None, tone(900)], COLUMN)
    encoded = encoder(encoder.extract(batch_of(pa.table({"a": [None, tone(500)]}))))
    assert encoded.numeric.tolist() == [[1.0], [0.0]]
    assert not encoded.signals[0][0].any()
    assert encoded.signals[0][1].any()


def test_merging_the_fits_of_two_halves_equals_fitting_all_recordings() -> None:
    table = pa.table({"a": [tone(float(hertz)) for hertz in np.linspace(100, 2000, 10)]})
    parts = [EncoderFit((COLUMN,), table.schema) for _ in range(2)]
    for part, rows in zip(parts, (table.slice(4), table.slice(0, 4)), strict=True):
        part.update(batch_of(rows))
    parts[0].merge(EncoderFit.from_bytes(parts[1].to_bytes()))
    left, right = parts[0].finish().state_dict(), fit(table, (COLUMN,)).state_dict()
    for name, tensor in right.items():
        torch.testing.assert_close(left[name], tensor, msg=name)
