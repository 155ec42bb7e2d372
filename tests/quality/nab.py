"""The scoring of the Numenta Anomaly Benchmark, standard profile.

Lavin & Ahmad, "Evaluating Real-time Anomaly Detection Algorithms", ICMLA 2015, section II: within a
labelled window only the first detection counts, the more the earlier; outside, every detection
costs, the less the sooner after a window; one threshold for the whole corpus, the best; the result
is 0 for a detector that says nothing and 100 for one that says the start of every window.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import erfc, expit

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# Weights of the standard profile (table 1 of the paper).
FALSE_POSITIVE, FALSE_NEGATIVE = 0.11, 1.0
# Past so many widths of a window, a detection is as wrong as if there were no window.
FORGOTTEN = 3.0


@dataclass(frozen=True)
class Scored:
    """One series, with a detector's score of every point."""

    scores: Floats  # [points], higher is more anomalous
    inside: Bools  # [points], whether in a labelled window
    counted: Bools  # [points], false in the probationary part


def nab_score(corpus: list[Scored]) -> float:
    """The score of a detector over the corpus, 0 to 100 (below 0 for none: see above)."""
    thresholds: list[Floats] = []
    gains: list[Floats] = []
    windows = 0
    for series in corpus:
        threshold, gain, found = _gains(series)
        thresholds.append(threshold)
        gains.append(gain)
        windows += found
    threshold, gain = np.concatenate(thresholds), np.concatenate(gains)
    order = np.argsort(-threshold, kind="stable")
    threshold, gain = threshold[order], np.cumsum(gain[order])
    # Points of one score are detected together: a threshold cannot tell them apart.
    last = np.append(threshold[1:] != threshold[:-1], True)
    best = max(0.0, float(gain[last].max()))
    return 100 * best / (windows * (1 + FALSE_NEGATIVE))


def _gains(series: Scored) -> tuple[Floats, Floats, int]:
    """What lowering the threshold to each point's score adds to the result, over the counted
    points, and how many windows there are. A window gains what its best detection yet is worth."""
    threshold = series.scores.astype(np.float64)
    gain = np.zeros(len(threshold))
    edges = np.flatnonzero(np.diff(series.inside.astype(int), prepend=0, append=0))
    starts, ends = edges[::2], edges[1::2]
    outside = np.full(len(threshold), FORGOTTEN)
    windows = 0
    for start, end in zip(starts, ends, strict=True):
        past = np.arange(len(threshold) - end) + 1
        outside[end:] = past / max(1, end - start - 1)
        place = np.arange(start, end)[series.counted[start:end]]
        if not len(place):
            continue
        windows += 1
        worth = _worth(-(end - place) / (end - start)) / _worth(np.float64(-1.0))
        order = np.argsort(-threshold[place], kind="stable")
        best = np.maximum.accumulate(worth[order])
        gain[place[order]] = np.diff(best, prepend=-FALSE_NEGATIVE)
    missed = ~series.inside
    gain[missed] = FALSE_POSITIVE * _worth(outside[missed])
    return threshold[series.counted], gain[series.counted], windows


def _worth(position: Floats | np.float64) -> Floats:
    """Of a detection by its place: -1 at the left edge of the window, 0 at the right edge, 1 one
    width past it (equation 1 of the paper)."""
    worth = 2 * expit(-5 * np.asarray(position)) - 1
    return np.where(np.asarray(position) >= FORGOTTEN, -1.0, worth)


def windowed_gaussian(values: Floats, window: int = 6400, step: int = 100) -> Floats:
    """The benchmark's own baseline: 1 - the tail probability of a point, by mean and deviation of
    the points before it, at most `window`, which moves on in steps of `step` once it is full."""
    scores = np.zeros(len(values))
    for place in range(1, len(values)):
        first = max(0, (place - window) // step * step)
        last = place if place <= window else first + window
        seen = values[first:last]
        away = abs(values[place] - seen.mean()) / max(float(seen.std()), 1e-6)
        scores[place] = 1 - 0.5 * erfc(away / np.sqrt(2))
    return scores
