"""How well scores find known anomalies: measures with 95% bootstrap intervals.

Definitions are those of scikit-learn: AUROC counts a tie between an anomaly and a normal row as
half, AUPRC is the average precision `sum (R_i - R_{i-1}) P_i` over the distinct scores.

The bootstrap is Poisson's (Hanley & MacGibbon 2006; Chamandy et al. 2012): each row is drawn
Poisson(1) times. The sum over m rows is Poisson(m), so neighbours in the ranking that cannot be
told apart by any measure are drawn as one. With 1% anomalies, a million rows become about 20,000
draws a resample, and the result has the same distribution.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.refusal import Refusal
from models.scores import quality as metrics

# Ranks at which an analyst stops reading.
RANKS = (10, 100, 1000)


Counts = NDArray[np.int64]

_NO_ANOMALIES = "no row is labelled an anomaly"
_NO_NORMALS = "every row is labelled an anomaly"
_NOTHING_FLAGGED = "no score is above the threshold"


@dataclass(frozen=True)
class Measure:
    """A value in [0, 1] with its 95% interval, or None and the reason why there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class AtK:
    """The k highest scores; a tie across the k-th place counts in proportion."""

    k: int
    precision: Measure
    recall: Measure


@dataclass(frozen=True)
class KindQuality:
    """One kind of anomaly against all normal rows."""

    kind: str
    rows: int
    recall: float  # share with a score above the threshold
    auroc: float | None  # None when there is no normal row


@dataclass(frozen=True)
class Quality:
    """How scores and a threshold did on labelled rows."""

    rows: int
    anomalies: int
    threshold: float
    flagged: int  # scores above the threshold
    found: int  # anomalies among them
    auroc: Measure
    auprc: Measure  # chance level is anomalies / rows
    precision: Measure
    recall: Measure
    f1: Measure
    at_k: tuple[AtK, ...]
    kinds: tuple[KindQuality, ...]
    resamples: int
    seed: int

    def to_document(self) -> dict[str, Any]:
        """Plain JSON values: what the run card reads."""
        return asdict(self)


def evaluate(
    scores: NDArray[np.float32],
    labels: NDArray[np.int8],
    threshold: float,
    kinds: Iterable[str | None] | None = None,
    ks: tuple[int, ...] = (),
    seed: int = 0,
    resamples: int = 200,
) -> Quality:
    """Measure scores [rows] against labels [rows] of 0 (normal) and 1 (anomaly).

    `kinds` [rows] names the kind of each anomaly; what it says of normal rows is not used. A
    measure that is not defined (one class only, nothing flagged, k above the number of rows) is
    None with a reason. The order of the rows does not matter: the same rows, seed and
    `resamples` give the same result.

    Raises Refusal for a non-finite score, another label than 0 and 1, or unequal lengths.
    """
    scores = np.asarray(scores)
    labels = np.asarray(labels)
    _check(scores, labels, ks)
    steps = _steps(scores, labels, threshold)
    point = _measure(steps.positives, steps.negatives, steps.above, ks)
    low, high = _interval(steps, ks, seed, resamples)
    anomalies = int(steps.positives.sum())
    rows = len(scores)
    flagged = int(steps.positives[: steps.above].sum() + steps.negatives[: steps.above].sum())

    def measure(i: int, *reasons: str | None) -> Measure:
        reason = next((r for r in reasons if r), None)
        if reason or not np.isfinite(point[i]):
            return Measure(None, reason=reason or "not defined for these rows")
        known = bool(np.isfinite(low[i]))
        return Measure(
            float(point[i]), float(low[i]) if known else None, float(high[i]) if known else None
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
        found=int(steps.positives[: steps.above].sum()),
        auroc=measure(0, empty, full),
        auprc=measure(1, empty),
        precision=measure(2, unflagged),
        recall=measure(3, empty),
        f1=measure(4, empty),
        at_k=tuple(
            AtK(k, measure(5 + 2 * i, short[i]), measure(6 + 2 * i, short[i], empty))
            for i, k in enumerate(ks)
        ),
        kinds=_by_kind(scores, labels, threshold, kinds) if kinds is not None else (),
        resamples=resamples,
        seed=seed,
    )


def _check(scores: NDArray[Any], labels: NDArray[Any], ks: tuple[int, ...]) -> None:
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise Refusal(
            "expected one score and one label a row, "
            f"found scores of shape {scores.shape} and labels of shape {labels.shape}"
        )
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).sum())
        raise Refusal(
            f"expected finite scores, found {bad:,} that are not (first at row "
            f"{int(np.argmin(np.isfinite(scores))):,}); nothing is measured on a broken detector"
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
    """The ranking, highest score first, in steps whose inner order no measure can see.

    A step is all rows of one score; neighbouring steps of normal rows only are one step, unless
    the threshold lies between them.
    """

    positives: Counts  # [steps] anomalies
    negatives: Counts  # [steps] normal rows
    above: int  # this many steps lie above the threshold


def _steps(scores: NDArray[Any], labels: NDArray[Any], threshold: float) -> _Steps:
    if len(scores) == 0:
        return _Steps(np.zeros(0, np.int64), np.zeros(0, np.int64), 0)
    order = np.argsort(scores)[::-1]
    ranked = scores[order].astype(np.float64)  # a float32 threshold would round the cut-off
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
    )


def _measure(
    positives: Counts, negatives: Counts, above: int, ks: tuple[int, ...]
) -> NDArray[np.float64]:
    """AUROC, AUPRC, precision, recall, F1, then precision and recall for each k; NaN if undefined.

    AUROC = sum over steps of negatives * (positives above + half the tied ones), over P * N.
    """
    result = np.full(5 + 2 * len(ks), np.nan)
    hits = np.r_[0.0, np.cumsum(positives, dtype=np.float64)]
    drawn = np.r_[0.0, np.cumsum(positives + negatives, dtype=np.float64)]
    total, rows = hits[-1], drawn[-1]
    if total and rows > total:
        result[0] = negatives @ (hits[1:] - positives / 2) / (total * (rows - total))
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
        top = float(np.interp(k, drawn, hits))  # linear inside a tie: its expected value
        result[5 + 2 * i] = top / k
        if total:
            result[6 + 2 * i] = top / total
    return result


def _interval(
    steps: _Steps, ks: tuple[int, ...], seed: int, resamples: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """2.5% and 97.5% quantiles over the resamples; NaN where over half of them are undefined."""
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
    """How often each step is drawn; empty steps cost nothing."""
    result = np.zeros_like(counts)
    filled = np.flatnonzero(counts)
    result[filled] = rng.poisson(counts[filled])
    return result


def _by_kind(
    scores: NDArray[Any], labels: NDArray[Any], threshold: float, kinds: Iterable[str | None]
) -> tuple[KindQuality, ...]:
    """Each kind of anomaly, most rows first. Anomalies without a kind are "unnamed"."""
    names = np.array([str(k) if k else "unnamed" for k in kinds], dtype=object)
    if len(names) != len(scores):
        raise Refusal(f"expected one kind a row ({len(scores):,}), found {len(names):,}")
    anomalous = labels == 1
    normal = np.sort(scores[~anomalous])
    by_name: dict[str, list[int]] = {}
    for row in np.flatnonzero(anomalous):
        by_name.setdefault(names[row], []).append(int(row))
    result = []
    for name, rows in by_name.items():
        own = scores[rows]
        below = np.searchsorted(normal, own, "left") + np.searchsorted(normal, own, "right")
        auroc = float(below.mean() / (2 * len(normal))) if len(normal) else None
        recall = float((own.astype(np.float64) > threshold).mean())
        result.append(KindQuality(name, len(rows), recall, auroc))
    return tuple(sorted(result, key=lambda k: (-k.rows, k.kind)))


def evaluate_table(table: pa.Table, column: str, threshold: float) -> Quality | None:
    """Measure a column of scores against `label` and `kind`; None without a labelled row."""
    known = table.filter(pc.is_valid(table.column("label")))
    if known.num_rows == 0:
        return None
    kinds = known.column("kind").to_pylist() if "kind" in known.column_names else None
    return metrics.evaluate(
        known.column(column).to_numpy().astype(np.float32),
        known.column("label").to_numpy().astype(np.int8),
        threshold,
        kinds,
        tuple(k for k in RANKS if k <= known.num_rows),
    )
