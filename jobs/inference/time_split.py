"""Proposes a moment that divides the rows of a single day: earlier ones to learn from."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from cluster.lake.input import limits
from cluster.lake.input.folder_columns import ParquetInFolders
from cluster.lake.input.input_file import InputFile
from cluster.lake.input.snapshot import Snapshot
from cluster.lake.input.unreadable import UnreadableFile, content_errors
from cluster.lake.storage.opening import open_store
from models.columns import TimeUnit
from models.decoding.times import decode_times

LEARNED = 0.8  # share of the rows to learn from
MOST_GROUPS = 16  # row groups whose times are read, evenly over the files
MOST_TIMES = 4_096  # of a row group
# Shares of rows that a moment may divide: with others there is one moment, or hardly any.
LEAST, MOST = 0.5, 0.95
_BATCH = 65_536
# A moment is rounded to a unit that is short beside the whole time.
_ROUND = [timedelta(days=1), timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)]
_SHORT = 20


@dataclass(frozen=True)
class TimeSplit:
    """Rows before `moment` are learned from."""

    column: str
    moment: str | int | float  # text in ISO 8601, or a number of steps
    share: float  # of the rows, before it


def propose_split(
    taken: Snapshot, column: str, unit: TimeUnit | None, steps: bool = False
) -> TimeSplit | None:
    """The moment before which `LEARNED` of the day's rows are; None where none divides them.

    `steps` says that the column counts steps, and holds no time since 1970.
    """
    parts = [_read_times(taken, file, index, column) for file, index in _choose_groups(taken)]
    known = [part for part in parts if part is not None and len(part)]
    if not known:
        return None
    values = [_count(part, unit, steps) for part in known]
    times = np.sort(np.concatenate(values))
    if not len(times):
        return None
    if steps:
        number = float(times[int(len(times) * LEARNED)])
        moment: str | int | float = int(number) if number.is_integer() else number
        share = float((times < number).mean())
    else:
        cut = _round(times)
        share = float((times < cut.timestamp() * 1e6).mean())
        moment = cut.isoformat().replace("+00:00", "Z")
    return TimeSplit(column, moment, share) if LEAST <= share <= MOST else None


def _choose_groups(taken: Snapshot) -> list[tuple[InputFile, int]]:
    groups = [
        (file, index)
        for file in taken.files
        for index, group in enumerate(file.row_groups)
        if group.rows
    ]
    places = np.linspace(0, len(groups) - 1, min(MOST_GROUPS, len(groups))).astype(int)
    return [groups[place] for place in dict.fromkeys(places.tolist())]


def _read_times(taken: Snapshot, file: InputFile, index: int, column: str) -> pa.Array | None:
    """Values of a row group, evenly over its rows; None where it cannot be read."""
    step = max(1, file.row_groups[index].rows // MOST_TIMES)
    found = []
    try:
        with (
            content_errors(file.key),
            open_store(taken.uri).open_parquet(file.key, file.version) as opened,
        ):
            parquet = ParquetInFolders(limits.open_parquet(opened), file.path)
            if column not in parquet.schema_arrow.names:
                return None
            for batch in parquet.iter_batches(
                _BATCH, row_groups=[index], columns=[column], use_threads=False
            ):
                found.append(batch.column(column).take(pa.array(range(0, len(batch), step))))
    except UnreadableFile:  # a night sets it aside
        return None
    return pa.concat_arrays(found).drop_null() if found else None


def _count(values: pa.Array, unit: TimeUnit | None, steps: bool) -> np.ndarray:
    """float64: steps, or microseconds since 1970."""
    if steps:
        numbers = np.asarray(values.cast(pa.float64(), safe=False))
        finite: np.ndarray = numbers[np.isfinite(numbers)]
        return finite
    instants = decode_times(values, unit).instants.drop_null()
    micros: np.ndarray = instants.cast(pa.int64()).to_numpy().astype(np.float64)
    return micros


def _round(times: np.ndarray) -> datetime:
    """The moment before which `LEARNED` of the sorted times are, to a round unit."""
    span = timedelta(microseconds=float(times[-1] - times[0]))
    start = datetime(1970, 1, 1, tzinfo=UTC)
    moment = start + timedelta(microseconds=float(times[int(len(times) * LEARNED)]))
    for unit in _ROUND:
        if unit * _SHORT <= span:
            return moment - (moment - start) % unit
    return moment
