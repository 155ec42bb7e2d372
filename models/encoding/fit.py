"""Fits an encoder in one pass. The statistics merge, so every worker can read its own splits."""

import json
import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pyarrow as pa

from models.columns import Categorical, FeatureColumn, Numeric, SignalColumn, Timestamp
from models.decoding.decoder import Decoder
from models.decoding.scalars import Bools
from models.encoding.bins import list_binned
from models.encoding.column_statistics import Statistics, choose_vocabulary_size
from models.encoding.encoder import Encoder
from models.encoding.layout import SPECIAL, list_raw_inputs
from models.encoding.scale import SMALLEST, NumberRange, Scale, VocabularyUse
from models.encoding.scaling import WIDEST_SCORE, Scaling
from models.encoding.signal_scaling import SignalScaling
from models.encoding.signals import LearnedInputs, bound_bytes, learn_inputs
from models.layout import count_chunk_rows
from models.refusal import Refusal
from models.schema import Source, check_types, find_sources, refuse

FORMAT = 4  # of `EncoderFit.to_bytes`
KNOTS = 121  # a knot every 0.05 normal scores
# Above 1,000 widths from zero, float32 resolves steps of 1/16,000 of a width at best. The centre is
# then subtracted in float64 first. Examples are epoch seconds and a pressure of 101,325 Pa.
FAR = 1e3
# A column with an IQR below this share of its standard deviation is almost constant. Dividing by
# the IQR would make every other value huge.
TINY_IQR = 1e-6
QUARTILES_APART = 1.349  # IQR of the standard normal distribution, in standard deviations
NORMAL = NormalDist()


class EncoderFit:
    """Statistics of the training rows, in memory that does not grow with the number of rows.

    The order of `update` and `merge` changes only the rounding of floats and, beyond 2,048 rows,
    the rank error of a sketch.

    >>> rows = pa.record_batch({"bytes": [10.0, 20.0, 30.0]})
    >>> fit = EncoderFit((Numeric("bytes"),), rows.schema)
    >>> fit.update(rows)
    >>> encoder = fit.finish()
    >>> encoder(encoder.extract(rows)).numeric
    tensor([[-1.2247],
            [ 0.0000],
            [ 1.2247]])
    """

    def __init__(self, columns: tuple[FeatureColumn, ...], schema: pa.Schema) -> None:
        """Raises Refusal if a column is missing, is there twice or has an unusable type."""
        self._start(find_sources(columns, schema))

    def _start(self, sources: tuple[Source, ...]) -> None:
        self.sources = sources
        self.rows = 0  # counted in the statistics
        self.rows_left_out = 0  # rows with a problem in any column
        self._statistics = [Statistics.for_source(source) for source in sources]
        self._checked: pa.Schema | None = None

    @property
    def chunk_rows(self) -> int:
        """Rows to decode at once, so that their signals and tokens fit the cache."""
        return count_chunk_rows(sum(bound_bytes(source) for source in self.sources))

    def update(self, batch: pa.RecordBatch) -> None:
        """Add the rows of a batch. Rows with problems are left out, as in scoring.

        Raises SchemaMismatch if the columns do not have the types of the schema.
        """
        if self._checked is None or not batch.schema.equals(self._checked):
            check_types(self.sources, batch.schema)
            self._checked = batch.schema
        decoder = Decoder(batch)
        decoded = [decoder.decode(source) for source in self.sources]
        broken = [rows for cells in decoded for rows, _ in cells.problems]
        good: Bools | None = ~np.logical_or.reduce(broken) if broken else None
        counted = batch.num_rows if good is None else int(good.sum())
        self.rows += counted
        self.rows_left_out += batch.num_rows - counted
        for source, statistics, cells in zip(self.sources, self._statistics, decoded, strict=True):
            statistics.add(source.column, cells, good)

    def merge(self, other: "EncoderFit") -> None:
        """Add the statistics of another fit. Raises Refusal for other columns or types."""
        mine = [(source.column, source.signature) for source in self.sources]
        if mine != [(source.column, source.signature) for source in other.sources]:
            raise Refusal(
                "expected a fit of the same columns and types, found another; "
                "fit all splits with one spec and one schema"
            )
        self.rows += other.rows
        self.rows_left_out += other.rows_left_out
        for ours, theirs in zip(self._statistics, other._statistics, strict=True):
            ours.merge(theirs)

    def to_bytes(self) -> bytes:
        """The statistics as JSON, with the sketches in base64."""
        document = {
            "format": FORMAT,
            "rows": self.rows,
            "rows_left_out": self.rows_left_out,
            "sources": [source.to_document() for source in self.sources],
            "statistics": [statistics.to_document() for statistics in self._statistics],
        }
        return json.dumps(document).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "EncoderFit":
        """The statistics that `to_bytes` wrote. Raises Refusal for another format."""
        document = json.loads(data)
        if document.get("format") != FORMAT:
            raise Refusal(
                f"expected encoder statistics of format {FORMAT}, found "
                f"{document.get('format')!r}; fit again with this version"
            )
        fit = cls.__new__(cls)
        fit._start(tuple(Source.from_document(source) for source in document["sources"]))
        fit.rows, fit.rows_left_out = document["rows"], document["rows_left_out"]
        fit._statistics = [Statistics.from_document(one) for one in document["statistics"]]
        return fit

    def finish(self) -> Encoder:
        """Make the encoder. Raises Refusal if no row could be used."""
        if not self.rows:
            raise Refusal(
                f"expected rows to fit the encoder on, found none without problems "
                f"({self.rows_left_out:,} rows had one); check the training days, the filter and "
                "the declared ranges"
            )
        self._refuse_unknown_columns()
        sources = [
            replace(source, nullable=statistics.nulls > 0)
            for source, statistics in zip(self.sources, self._statistics, strict=True)
        ]
        scales: list[Scale] = []
        nulls: list[int] = []
        ranges: dict[str, NumberRange] = {}
        vocabularies: dict[str, tuple[str, ...]] = {}
        uses: dict[str, VocabularyUse] = {}
        bins: dict[str, tuple[int, ...]] = {}
        learned: dict[str, LearnedInputs] = {}
        signals: list[SignalScaling] = []
        for source, statistics in zip(sources, self._statistics, strict=True):
            column = source.column
            if not source.feature:
                continue
            if statistics.texts is not None:
                most = choose_vocabulary_size(source)
                kept = statistics.vocabulary[:most]
                vocabularies[column.name] = tuple(text for text, _ in kept)
                uses[column.name] = VocabularyUse(
                    self.rows, kept[0][1] if kept else 0, statistics.knows_all(most)
                )
            if statistics.signal is not None:
                size = len(vocabularies.get(column.name, ())) + SPECIAL
                found = learned[column.name] = learn_inputs(source, statistics.signal, size)
                if found.signal:
                    signals.append(
                        SignalScaling.from_statistics(column, found.signal, statistics.signal)
                    )
            inputs = list_raw_inputs(column, source.signature)
            for name, counts in zip(list_binned(column, inputs), statistics.bins, strict=True):
                bins[name] = tuple(counts.tolist())
            first = len(scales)
            if isinstance(column, Numeric):
                scale, ranges[column.name] = scale_number(column, statistics)
                scales.append(scale)
            else:
                scales.extend(_list_fixed_scales(source))
            if statistics.nulls and len(scales) > first and statistics.signal is None:
                nulls.append(first)
        scaling = Scaling.from_scales(scales, nulls)
        return Encoder(tuple(sources), vocabularies, ranges, scaling, learned, signals, uses, bins)

    def _refuse_unknown_columns(self) -> None:
        """Refuse features without a single value. For a category null is a value of its own."""
        refuse(
            [
                f"column '{source.column.name}': expected values in the training rows, found null "
                f"in all {self.rows:,} of them; train on days that have values, give the column "
                "the role keep, or remove it from the spec"
                for source, statistics in zip(self.sources, self._statistics, strict=True)
                if statistics.nulls == self.rows and not isinstance(source.column, Categorical)
            ]
        )


def _list_fixed_scales(source: Source) -> list[Scale]:
    """The scales that need no fit: flags stay 0 and 1, sines and cosines get unit variance."""
    if isinstance(source.column, SignalColumn):
        return [Scale()] if source.nullable else []
    width = math.sqrt(0.5) if isinstance(source.column, Timestamp) else 1.0
    return [Scale(width=width) for _ in list_raw_inputs(source.column, source.signature)]


def scale_number(column: Numeric, statistics: Statistics) -> tuple[Scale, NumberRange]:
    """The scale and range of a numeric column."""
    moments = statistics.moments
    centre, width = moments.mean, moments.deviation
    knots: tuple[tuple[float, float], ...] = ()
    if column.scale == "robust":
        lower, centre, upper = statistics.quantiles.get_quantiles([0.25, 0.5, 0.75])
        spread = (upper - lower) / QUARTILES_APART
        width = spread if spread > max(TINY_IQR * width, SMALLEST) else width
    elif column.scale == "quantile":
        knots = find_knots(statistics)
    low, high, median = moments.low, moments.high, statistics.quantiles.get_quantile(0.5)
    if column.log1p:
        low, high, median = (math.copysign(math.expm1(abs(x)), x) for x in (low, high, median))
        offset = 0.0
    else:
        offset = centre if abs(centre) > FAR * width else 0.0
    shifted = tuple((point - offset, score) for point, score in knots)
    scale = Scale(centre - offset, width, column.log1p, column.clip, shifted)
    return scale, NumberRange(offset, low, high, median)


def find_knots(statistics: Statistics) -> tuple[tuple[float, float], ...]:
    """Points and their normal scores. Both increase strictly.

    The score of a value is Φ⁻¹ of its mid-rank: a tie, such as 90% zeros, has the middle of its
    ranks.
    """
    sketch, moments = statistics.quantiles, statistics.moments
    grid = np.linspace(-WIDEST_SCORE, WIDEST_SCORE, KNOTS)
    points = sketch.get_quantiles([NORMAL.cdf(score) for score in grid])
    edge = 1 / (2 * moments.count)  # half a row: the rank of the smallest value
    knots: list[tuple[float, float]] = []
    for point in sorted({*points, moments.low, moments.high}):
        rank = (sketch.get_rank(point, False) + sketch.get_rank(point, True)) / 2
        score = NORMAL.inv_cdf(min(max(rank, edge), 1 - edge))
        if not knots or score > knots[-1][1]:
            knots.append((point, score))
    return tuple(knots)
