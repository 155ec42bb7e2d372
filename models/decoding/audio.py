"""Recordings as log-mel spectrograms, from the bytes of files that anybody may have written."""

import io
import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import soundfile

from models.columns import Audio
from models.decoding.scalars import Cells, find_nulls

Floats = npt.NDArray[np.float32]

# Of speech recognition (Davis & Mermelstein 1980): a window of 25 ms every 10 ms.
WINDOW_S, HOP_S = 0.025, 0.010
QUIET = 1e-10  # power below which all is silence: 100 dB below a full-scale sine
RATES = (1_000, 384_000)  # Hz that a file may declare; outside, a resampler would need gigabytes
MOST_CHANNELS = 32
# A writer that cannot go back to fill in the size of a WAV file leaves one of these.
_UNKNOWN_SIZES = (0, 0xFFFF_FFFF)


class NotARecording(ValueError):
    """The bytes are no WAV or FLAC file, or a part of one."""


def count_frames(column: Audio) -> int:
    """Steps of the spectrogram."""
    window, hop = _steps(column.sample_rate)
    return 1 + max(0, _samples(column) - window) // hop


def decode_audio(array: pa.Array, column: Audio) -> Cells:
    """float32 [rows, mels, frames], the logarithm of the power; rule: unparsable."""
    spectra = np.zeros((len(array), column.mels, count_frames(column)), np.float32)
    wrong = np.zeros(len(array), bool)
    for row, raw in enumerate(array):
        if raw.is_valid:
            try:
                spectra[row] = compute_log_mel(read_wave(raw.as_py(), column), column)
            except NotARecording:
                wrong[row] = True
    problems = ((wrong, "unparsable"),) if wrong.any() else ()
    return Cells((), find_nulls(array), problems, signal=spectra)


def read_wave(data: bytes, column: Audio) -> Floats:
    """float32 [samples]: the mean of the channels, resampled, cut or padded with silence.

    Only what is kept is decoded, whatever length the file declares. Raises `NotARecording`.
    """
    if not _is_whole_wav(data) and not data.startswith(b"fLaC"):
        raise NotARecording("expected the bytes of a whole WAV or FLAC file")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate = file.samplerate
            if not RATES[0] <= rate <= RATES[1] or file.channels > MOST_CHANNELS:
                raise NotARecording(f"{file.channels} channels at {rate} Hz")
            kept = file.read(math.ceil(column.seconds * rate), "float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise NotARecording(str(error)) from error
    if not len(kept) or not np.isfinite(kept).all():
        raise NotARecording("no samples, or some that are no numbers")
    mixed = kept.mean(1)
    if rate != column.sample_rate:
        # Half a second of start-up and 36 MB a process, which only such a recording needs.
        import scipy.signal

        common = math.gcd(rate, column.sample_rate)
        mixed = scipy.signal.resample_poly(mixed, column.sample_rate // common, rate // common)
    wave = np.zeros(_samples(column), np.float32)
    wave[: len(mixed)] = mixed[: len(wave)]
    return wave


def compute_log_mel(wave: Floats, column: Audio) -> Floats:
    """float32 [mels, frames]: the logarithm of the power in each band, 0 for a full-scale sine."""
    window, hop = _steps(column.sample_rate)
    pieces = np.lib.stride_tricks.sliding_window_view(wave, window)[::hop]
    taper = np.hanning(window)
    scaled = (taper / (taper.sum() / 2)).astype(np.float32)
    # In single precision, which takes half the time: its noise lies below QUIET.
    spectrum = np.fft.rfft(pieces * scaled, _points(window))
    power = _bands(column.sample_rate, column.mels) @ (np.abs(spectrum) ** 2).T
    logs: Floats = np.log(np.maximum(power, np.float32(QUIET)))
    return logs


def compute_band_edges(sample_rate: int, mels: int) -> npt.NDArray[np.float64]:
    """Hz at which the triangular bands begin, peak and end, [mels + 2]; the scale of O'Shaughnessy
    (1987), m = 2595 log10(1 + f / 700)."""
    highest = 2595 * math.log10(1 + sample_rate / 2 / 700)
    edges: npt.NDArray[np.float64] = 700 * (10 ** (np.linspace(0, highest, mels + 2) / 2595) - 1)
    return edges


def _is_whole_wav(data: bytes) -> bool:
    """libsndfile reads what is left of a truncated WAV file as if it were whole."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return False
    size = int.from_bytes(data[4:8], "little")
    return size in _UNKNOWN_SIZES or size + 8 <= len(data)


def _samples(column: Audio) -> int:
    return max(_steps(column.sample_rate)[0], round(column.seconds * column.sample_rate))


def _steps(sample_rate: int) -> tuple[int, int]:
    return round(WINDOW_S * sample_rate), round(HOP_S * sample_rate)


def _points(window: int) -> int:
    """Of the transform: twice the next power of two, or the lowest bands would lie between two
    points and hold nothing."""
    return 2 << (window - 1).bit_length()


@lru_cache
def _bands(sample_rate: int, mels: int) -> Floats:
    """[mels, points of the spectrum]: triangles of height 1."""
    window = _steps(sample_rate)[0]
    at = np.fft.rfftfreq(_points(window), 1 / sample_rate)
    edges = compute_band_edges(sample_rate, mels)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (at - low) / (middle - low), (high - at) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
