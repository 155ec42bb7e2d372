"""Measures how well scores find known anomalies, with 95% bootstrap intervals.

Every measure is defined as in scikit-learn: AUROC counts a tie between an anomaly and a normal row
as half, and AUPRC is the average precision `sum (R_i - R_{i-1}) P_i` over the distinct scores.

The bootstrap is a Poisson bootstrap (Hanley & MacGibbon 2006; Chamandy et al. 2012): a resample
draws each row Poisson(1) times. The sum of m such draws is Poisson(m), so rows that no measure can
tell apart are drawn together. With 1% anomalies, a million rows need about 20,000 draws per
resample, and the result has the same distribution.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from models.refusal import Refusal

RANKS = (10, 100, 1000)  # numbers of flags that an analyst may read

Counts = NDArray[np.int64]

_NO_ANOMALIES = "no row is labelled an anomaly"
_NO_NORMALS = "every row is labelled an anomaly"
_NOTHING_FLAGGED = "no score is above the threshold"


@dataclass(frozen=True)
class Measure:
    """A value from 0 to 1 with its 95% interval, or None with a reason."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class AtK:
    """Precision and recall of the k highest scores; a tie at place k counts in proportion."""

    k: int
    precision: Measure
    recall: Measure


@dataclass(frozen=True)
class KindQuality:
    """How well one kind of anomaly is found among all normal rows."""

    kind: str
    rows: int
    recall: float  # share of its rows with a score above the threshold
    auroc: float | None  # None if no row is normal


@dataclass(frozen=True)
class Quality:
    """How well scores and a threshold find the anomalies among labelled rows."""

    rows: int
    anomalies: int
    threshold: float
    flagged: int  # scores above the threshold
    found: int  # anomalies among the flagged rows
    auroc: Measure
    auprc: Measure  # anomalies / rows by chance
    precision: Measure
    recall: Measure
    f1: Measure
    at_k: tuple[AtK, ...]
    kinds: tuple[KindQuality, ...]
    resamples: int
    seed: int

    def to_document(self) -> dict[str, Any]:
        """The measures as a JSON object."""
        return asdict(self)


def measure_auroc(normal: ArrayLike, anomalous: ArrayLike) -> float:
    """AUROC: the share of pairs of a normal and an anomalous row where the anomaly scores higher.

    A tie counts as half a pair. Both arguments are scores, [rows], with at least one row each.

    >>> measure_auroc([1.0, 2.0], [2.0, 3.0])
    0.875
    """
    low, high = np.asarray(normal), np.asarray(anomalous)
    labels = np.repeat([0, 1], [len(low), len(high)])
    steps = _rank(np.concatenate([low, high]), labels, np.inf)
    return _auroc(steps.positives, steps.negatives)


def evaluate_table(table: pa.Table, column: str, threshold: float) -> Quality | None:
    """Measure a column of scores against the columns `label` and, if there is one, `kind`.

    Rows without a label are left out. Returns None if no row has a label.
    """
    known = table.filter(pc.is_valid(table.column("label")))
    if known.num_rows == 0:
        return None
    kinds = known.column("kind").to_pylist() if "kind" in known.column_names else None
    return evaluate(
        known.column(column).to_numpy().astype(np.float32),
        known.column("label").to_numpy().astype(np.int8),
        threshold,
        kinds,
        tuple(k for k in RANKS if k <= known.num_rows),
    )


def evaluate(
    scores: NDArray[np.float32],
    labels: NDArray[np.int8],
    threshold: float,
    kinds: Iterable[str | None] | None = None,
    ks: tuple[int, ...] = (),
    seed: int = 0,
    resamples: int = 200,
) -> Quality:
    """Measure scores, [rows], against labels, [rows]: 0 is normal, 1 is an anomaly.

    `kinds`, [rows], names the kind of each anomaly; its entries for normal rows are ignored. A
    measure that is not defined is None with a reason: only one class, nothing flagged, or `k`
    above the number of rows. The same rows, seed and `resamples` give the same result, whatever
    the order of the rows.

    Raises Refusal for a score that is not finite, a label other than 0 and 1, or unequal lengths.

    >>> scores = np.array([0.1, 0.2, 0.3, 0.9], np.float32)
    >>> quality = evaluate(scores, np.array([0, 0, 1, 1], np.int8), threshold=0.5)
    >>> quality.auroc.value, quality.precision.value, quality.recall.value
    (1.0, 1.0, 0.5)
    """
    scores = np.asarray(scores)
    labels = np.asarray(labels)
    _check(scores, labels, ks)
    steps = _rank(scores, labels, threshold)
    values = _measure(steps.positives, steps.negatives, steps.above, ks)
    low, high = _find_interval(steps, ks, seed, resamples)
    anomalies = int(steps.positives.sum())
    rows = len(scores)
    found = int(steps.positives[: steps.above].sum())
    flagged = found + int(steps.negatives[: steps.above].sum())

    def measure(i: int, *reasons: str | None) -> Measure:
        reason = next((r for r in reasons if r), None)
        if reason or not np.isfinite(values[i]):
            return Measure(None, reason=reason or "not defined for these rows")
        known = bool(np.isfinite(low[i]))
        return Measure(
            float(values[i]), float(low[i]) if known else None, float(high[i]) if known else None
        )

    empty = _NO_ANOMALIES if anomalies == 0 else None
    full = _NO_NORMALS if anomalies == rows else None
    unflagged = _NOTHING_FLAGGED if flagged == 0 else None
    short = [f"there are only {rows:,} rows" if k > rows else None for k in ks]
    return Quality(
        rows=rows,
        anomalies=anomalies,
        threshold=float(threshold),
        flagged=flagged,
        found=found,
        auroc=measure(0, empty, full),
        auprc=measure(1, empty),
        precision=measure(2, unflagged),
        recall=measure(3, empty),
        f1=measure(4, empty),
        at_k=tuple(
            AtK(k, measure(5 + 2 * i, short[i]), measure(6 + 2 * i, short[i], empty))
            for i, k in enumerate(ks)
        ),
        kinds=_evaluate_kinds(labels, kinds, steps) if kinds is not None else (),
        resamples=resamples,
        seed=seed,
    )


def _check(scores: NDArray[Any], labels: NDArray[Any], ks: tuple[int, ...]) -> None:
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise Refusal(
            "expected one score and one label per row, "
            f"found scores of shape {scores.shape} and labels of shape {labels.shape}"
        )
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).sum())
        raise Refusal(
            f"expected finite scores, found {bad:,} that are not (first at row "
            f"{int(np.argmin(np.isfinite(scores))):,}); train the detector again"
        )
    if not np.isin(labels, (0, 1)).all():
        row = int(np.argmin(np.isin(labels, (0, 1))))
        raise Refusal(
            f"expected labels 0 (normal) and 1 (anomaly), found {labels[row]!s} at row {row:,}; "
            "leave unlabelled rows out"
        )
    if any(k < 1 for k in ks):
        raise Refusal(f"expected k of at least 1, found {min(ks)}")


class _Steps(NamedTuple):
    """The rows ranked by score, highest first, and gathered into steps.

    A step is all rows with one score. Neighbouring steps of only normal rows are one step, unless
    the threshold lies between them: no measure depends on the order inside a step.
    """

    positives: Counts  # [steps]: anomalies
    negatives: Counts  # [steps]: normal rows
    above: int  # number of steps above the threshold
    order: Counts  # [rows]: indices of the rows, highest score first


def _rank(scores: NDArray[Any], labels: NDArray[Any], threshold: float) -> _Steps:
    if len(scores) == 0:
        return _Steps(np.zeros(0, np.int64), np.zeros(0, np.int64), 0, np.zeros(0, np.int64))
    order = np.argsort(scores)[::-1]
    ranked = scores[order].astype(np.float64)  # float32 would round the threshold
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    positives = np.add.reduceat(labels[order].astype(np.int64), starts)
    negatives = np.diff(np.r_[starts, len(ranked)]) - positives
    above = ranked[starts] > threshold
    mixed = positives > 0
    opens = np.r_[True, mixed[1:] | mixed[:-1] | (above[1:] != above[:-1])]
    first = np.flatnonzero(opens)
    return _Steps(
        np.add.reduceat(positives, first),
        np.add.reduceat(negatives, first),
        int(above[first].sum()),
        order,
    )


def _auroc(positives: Counts, negatives: Counts) -> float:
    """AUROC of steps, highest first; NaN if one class is missing.

    The sum over steps of negatives * (positives above + half of those in the step), over P * N.
    """
    pairs = float(positives.sum()) * float(negatives.sum())
    if not pairs:
        return np.nan
    above = np.cumsum(positives, dtype=np.float64)
    return float(negatives @ (above - positives / 2) / pairs)


def _measure(
    positives: Counts, negatives: Counts, above: int, ks: tuple[int, ...]
) -> NDArray[np.float64]:
    """AUROC, AUPRC, precision, recall, F1, then precision and recall per k; NaN if undefined."""
    result = np.full(5 + 2 * len(ks), np.nan)
    result[0] = _auroc(positives, negatives)
    hits = np.r_[0.0, np.cumsum(positives, dtype=np.float64)]
    drawn = np.r_[0.0, np.cumsum(positives + negatives, dtype=np.float64)]
    total, rows = hits[-1], drawn[-1]
    if total:
        seen = positives > 0
        result[1] = positives[seen] @ (hits[1:][seen] / drawn[1:][seen]) / total
        result[3] = hits[above] / total
        result[4] = 2 * hits[above] / (drawn[above] + total)
    if drawn[above]:
        result[2] = hits[above] / drawn[above]
    for i, k in enumerate(ks):
        if k > rows:
            continue
        top = float(np.interp(k, drawn, hits))  # linear inside a tie: the expected value
        result[5 + 2 * i] = top / k
        if total:
            result[6 + 2 * i] = top / total
    return result


def _find_interval(
    steps: _Steps, ks: tuple[int, ...], seed: int, resamples: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The 2.5% and 97.5% quantiles over the resamples; NaN if half of these are undefined."""
    width = 5 + 2 * len(ks)
    if resamples == 0 or len(steps.positives) == 0:
        return np.full(width, np.nan), np.full(width, np.nan)
    rng = np.random.default_rng(seed)
    table = np.empty((resamples, width))
    for i in range(resamples):
        table[i] = _measure(
            _draw(rng, steps.positives), _draw(rng, steps.negatives), steps.above, ks
        )
    enough = np.isfinite(table).sum(axis=0) * 2 > resamples
    low, high = np.full(width, np.nan), np.full(width, np.nan)
    if enough.any():
        low[enough], high[enough] = np.nanquantile(table[:, enough], (0.025, 0.975), axis=0)
    return low, high


def _draw(rng: np.random.Generator, counts: Counts) -> Counts:
    """The rows drawn of each step, [steps]; only steps with rows cost a draw."""
    result = np.zeros_like(counts)
    filled = np.flatnonzero(counts)
    result[filled] = rng.poisson(counts[filled])
    return result


def _evaluate_kinds(
    labels: NDArray[Any], kinds: Iterable[str | None], steps: _Steps
) -> tuple[KindQuality, ...]:
    """Each kind of anomaly, the one with the most rows first; None is named "unnamed"."""
    names = [str(kind) if kind else "unnamed" for kind in kinds]
    if len(names) != len(labels):
        raise Refusal(f"expected one kind per row ({len(labels):,}), found {len(names):,}")
    sizes = steps.positives + steps.negatives
    step = np.empty(len(labels), np.int64)  # of each row
    step[steps.order] = np.repeat(np.arange(len(sizes)), sizes)
    by_name: dict[str, list[int]] = {}
    for row in np.flatnonzero(labels == 1):
        by_name.setdefault(names[row], []).append(int(step[row]))
    result = []
    for name, own in by_name.items():
        positives = np.bincount(own, minlength=len(sizes))
        auroc = _auroc(positives, steps.negatives)
        recall = int(positives[: steps.above].sum()) / len(own)
        result.append(KindQuality(name, len(own), recall, None if np.isnan(auroc) else auroc))
    return tuple(sorted(result, key=lambda k: (-k.rows, k.kind)))
