"""Turns recordings into log-mel spectrograms. The files may come from an attacker."""

import io
import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import soundfile

from models.columns import Audio
from models.decoding.scalars import Cells, find_nulls
from models.masking import describe

Floats = npt.NDArray[np.float32]

# From speech recognition (Davis & Mermelstein 1980): a window of 25 ms every 10 ms.
WINDOW_S, HOP_S = 0.025, 0.010
QUIET = 1e-10  # power of silence: 100 dB below a full-scale sine
RATES = (1_000, 384_000)  # Hz that a file may declare; others would cost gigabytes to resample
MOST_CHANNELS = 32
# Sizes in a WAV file whose writer could not go back to fill in the size.
_UNKNOWN_SIZES = (0, 0xFFFF_FFFF)


class NotARecording(ValueError):
    """Raised if the bytes are not a whole WAV or FLAC file."""


def count_frames(column: Audio) -> int:
    """The number of steps of the spectrogram."""
    window, hop = _count_steps(column.sample_rate)
    return 1 + max(0, _count_samples(column) - window) // hop


def decode_audio(array: pa.Array, column: Audio) -> Cells:
    """The logarithm of the power, float32 [rows, mels, frames]. Rule: unparsable."""
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
    """Read float32 [samples]: the mean of the channels, resampled, cut or padded with silence.

    Only the samples that are used are decoded, whatever length the file declares. Raises
    NotARecording.
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
        raise NotARecording(describe(error)) from error
    if not len(kept) or not np.isfinite(kept).all():
        raise NotARecording("expected samples that are finite numbers")
    mixed = kept.mean(1)
    if rate != column.sample_rate:
        # Imported late: it takes half a second and 36 MB, and few recordings need it.
        import scipy.signal

        common = math.gcd(rate, column.sample_rate)
        mixed = scipy.signal.resample_poly(mixed, column.sample_rate // common, rate // common)
    wave = np.zeros(_count_samples(column), np.float32)
    wave[: len(mixed)] = mixed[: len(wave)]
    return wave


def compute_log_mel(wave: Floats, column: Audio) -> Floats:
    """The logarithm of the power in each band, float32 [mels, frames]; 0 for a full-scale sine."""
    window, hop = _count_steps(column.sample_rate)
    pieces = np.lib.stride_tricks.sliding_window_view(wave, window)[::hop]
    taper = np.hanning(window)
    scaled = (taper / (taper.sum() / 2)).astype(np.float32)
    # Single precision takes half the time, and its noise is below QUIET.
    spectrum = np.fft.rfft(pieces * scaled, _count_points(window))
    power = _make_bands(column.sample_rate, column.mels) @ (np.abs(spectrum) ** 2).T
    logs: Floats = np.log(np.maximum(power, np.float32(QUIET)))
    return logs


def compute_band_edges(sample_rate: int, mels: int) -> npt.NDArray[np.float64]:
    """The frequencies where the triangular bands begin, peak and end, in Hz: [mels + 2].

    The mel scale is m = 2595 log10(1 + f / 700) (O'Shaughnessy 1987).
    """
    highest = 2595 * math.log10(1 + sample_rate / 2 / 700)
    edges: npt.NDArray[np.float64] = 700 * (10 ** (np.linspace(0, highest, mels + 2) / 2595) - 1)
    return edges


def _is_whole_wav(data: bytes) -> bool:
    """Whether a WAV file has its declared size: libsndfile accepts truncated files."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return False
    size = int.from_bytes(data[4:8], "little")
    return size in _UNKNOWN_SIZES or size + 8 <= len(data)


def _count_samples(column: Audio) -> int:
    return max(_count_steps(column.sample_rate)[0], round(column.seconds * column.sample_rate))


def _count_steps(sample_rate: int) -> tuple[int, int]:
    """The samples of a window and of a hop."""
    return round(WINDOW_S * sample_rate), round(HOP_S * sample_rate)


def _count_points(window: int) -> int:
    """The points of the Fourier transform: twice the next power of two.

    With fewer points the lowest bands would lie between two points and be empty.
    """
    return 2 << (window - 1).bit_length()


@lru_cache
def _make_bands(sample_rate: int, mels: int) -> Floats:
    """The bands as triangles of height 1, [mels, points of the spectrum]."""
    window = _count_steps(sample_rate)[0]
    at = np.fft.rfftfreq(_count_points(window), 1 / sample_rate)
    edges = compute_band_edges(sample_rate, mels)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (at - low) / (middle - low), (high - at) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
