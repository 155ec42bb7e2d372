"""A small lake for the trials: made and trained once, then copied for each trial."""

import copy
import json
import math
import os
import random
import shutil
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import torch
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from cluster.lake.days import DayRange
from cluster.lake.output.schemas import FLAGS, QUARANTINE, REGISTRY, SCORES
from cluster.lake.registry.registry import Registry
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store
from jobs import registry as bundles
from jobs.demo import data as demo
from jobs.nightly import backfill
from jobs.spec.spec import load
from jobs.train import TrainRequest, train
from models.bundle import Bundle, make_bundle, open_bundle
from models.scores.threshold import Threshold
from tests.conftest import S3Server
from tests.night.conftest import DAYS, write_spec
from tests.night.oracle import flagged_ids

# Neither is a day that the threshold was chosen on: there a row lies on the threshold itself, and
# the last bit of its score decides.
DAY, OTHER_DAY = DAYS[5], DAYS[3]
ID = "uid"
_SPOILT = "duration"  # the column of the rows that go to the quarantine
# A split is one file here: enough of them to be killed between two, few enough for a short trial.
FILES, OTHER_FILES = 14, 4
# Files of the day that are kept back, to be added in the middle of a run.
SPARE = 2
# One flag in ten rows, so that every split has some to lose.
_CONTAMINATION = 0.1
# The same arithmetic in batches of another size may differ in a float32's last bits.
_TOLERANCE = 1e-4

TABLES = (FLAGS, SCORES, QUARANTINE)
Flags = dict[str, float]  # score by id
Day = dict[str, Flags]  # the rows of a day by table; of the quarantine by file and row
Row = tuple[str, float]  # id and score; of the quarantine file and row, and 0


@dataclass(frozen=True)
class Base:
    """The lake that all trials are copied from, and what is to be found in it."""

    folder: Path
    champion: str  # bundles by id
    other: str  # another detector for the same data
    broken: str  # one whose every score is NaN
    # By bundle and day, over all files with the spare ones.
    flags: dict[str, dict[str, Flags]]
    scores: dict[str, dict[str, Flags]]

    @property
    def spare(self) -> Path:
        return self.folder / "spare"


def build(folder: Path) -> Base:
    """Write the data, train, and score it undisturbed, checked against the oracle; or reuse it."""
    made = folder / "base.json"
    if not made.exists():
        shutil.rmtree(folder, ignore_errors=True)
        _write_data(folder)
        spec = _spec(folder, folder / "flows", folder / "out")
        train(load(spec), TrainRequest(engine="local"))
        names = _add_bundles(folder / "out")
        found = {names["champion"]: _undisturbed(folder, spec)}
        bundles.promote(load(spec), names["other"])
        found[names["other"]] = _undisturbed(folder, spec)
        bundles.rollback(load(spec))
        _keep_back(folder)
        tables = {
            name: {bundle: tables[name] for bundle, tables in found.items()}
            for name in (FLAGS, SCORES)
        }
        made.write_text(json.dumps({**names, **tables}))
    return Base(folder, **json.loads(made.read_text()))


def _write_data(folder: Path) -> None:
    demo.write(folder, days=6, first_day=date(2026, 1, 1), scale=0.08)
    for day, files in ((DAY, FILES), (OTHER_DAY, OTHER_FILES)):
        _cut(folder / "flows" / f"day={day}", files)


def _cut(folder: Path, files: int) -> None:
    """Write the rows of the folder's files anew, into so many."""
    rows = pa.concat_tables(pq.read_table(p, partitioning=None) for p in sorted(folder.iterdir()))
    shutil.rmtree(folder)
    folder.mkdir()
    edges = [len(rows) * n // files for n in range(files + 1)]
    for n in range(files):
        part = _spoil(rows.slice(edges[n], edges[n + 1] - edges[n]))
        pq.write_table(part, folder / f"part-{n:03}.parquet", write_page_checksum=True)


def _spoil(rows: pa.Table) -> pa.Table:
    """The rows, of which the second cannot be scored."""
    place = rows.column_names.index(_SPOILT)
    cells = rows.column(place).to_pylist()
    cells[1] = float("nan")
    return rows.set_column(place, _SPOILT, pa.array(cells, rows.column(place).type))


def _list_bad_rows(path: Path) -> list[int]:
    cells = pq.read_table(path, columns=[_SPOILT], partitioning=None)[_SPOILT].to_pylist()
    return [row for row, cell in enumerate(cells) if cell is not None and math.isnan(cell)]


def _list_bad_ids(path: Path) -> list[str]:
    ids: list[str] = pq.read_table(path, columns=[ID], partitioning=None)[ID].to_pylist()
    return [ids[row] for row in _list_bad_rows(path)]


def _keep_back(folder: Path) -> None:
    (folder / "spare").mkdir()
    for path in sorted((folder / "flows" / f"day={DAY}").iterdir())[-SPARE:]:
        path.rename(folder / "spare" / path.name)


def _spec(folder: Path, source: str | Path, target: str | Path, **changes: Any) -> Path:
    sections = {
        "threshold": {"policy": "quantile", "contamination": _CONTAMINATION},
        "output": {"uri": str(target), "scores": "all"},
        "gates": {"flag_rate": [0, 0.5], "volume": None, "quarantine_rate": 0.05},
    }
    return write_spec(folder, source, target, **{**sections, **changes})


def plain_environment() -> dict[str, str]:
    """The environment without what this process and its Ray have put into it."""
    return {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}


def _add_bundles(output: Path) -> dict[str, str]:
    """Another detector, and a broken one, beside the trained champion."""
    registry = Registry(open_store(str(output)).child(REGISTRY))
    champion = registry.require_champion().bundle
    bundle = open_bundle(registry.read_bundle(champion), champion)
    other = registry.add_bundle(_with_weights(bundle, lambda w: w * 1.05).files)
    broken = registry.add_bundle(_with_weights(bundle, lambda w: w * float("nan")).files)
    return {"champion": champion, "other": other, "broken": broken}


def _with_weights(bundle: Bundle, change: Callable[[torch.Tensor], torch.Tensor]) -> Bundle:
    detector = copy.deepcopy(bundle.detector)
    with torch.no_grad():
        for weights in detector.parameters():
            weights.copy_(change(weights))
    return make_bundle(
        bundle.encoder, detector, bundle.detector_name, bundle.calibration, bundle.metadata
    )


def _undisturbed(folder: Path, spec: Path) -> dict[str, dict[str, Flags]]:
    """By day the flags, and all scores, of a run that nothing befell; the oracle found the same.

    The oracle says which rows are flagged; the bits of a score are those of this run, since a
    product of matrices may differ in its last bits with the number of rows.
    """
    for name in TABLES:
        shutil.rmtree(folder / "out" / name, ignore_errors=True)
    night = backfill(load(spec), DayRange(OTHER_DAY, DAY), engine="local")
    if not night.ok:
        raise RuntimeError(f"an undisturbed run failed: {night.to_document()}")
    registry = Registry(open_store(str(folder / "out")).child(REGISTRY))
    entry = registry.require_champion()
    bundle = open_bundle(registry.read_bundle(entry.bundle), entry.bundle)
    threshold = Threshold.from_json(registry.read_threshold(entry.threshold)).value
    found: dict[str, dict[str, Flags]] = {FLAGS: {}, SCORES: {}}
    for day in (OTHER_DAY, DAY):
        where = folder / "flows" / f"day={day}"
        bad = {i for path in where.iterdir() for i in _list_bad_ids(path)}
        for name, least in ((FLAGS, threshold), (SCORES, -math.inf)):
            rows = read_flags(DeltaTable(str(folder / "out" / name)), day)
            found[name][day] = dict(rows)
            expected = flagged_ids(bundle, least, where, ID)
            _compare(day, rows, {i: s for i, s in expected.items() if i not in bad})
    return found


def _compare(day: str, rows: list[tuple[str, float]], expected: Flags) -> None:
    found = dict(rows)
    if len(rows) != len(found) or found.keys() != expected.keys():
        raise RuntimeError(
            f"{day}: an undisturbed run has {len(rows)} flags of {len(found)} ids, the oracle "
            f"{len(expected)}; {len(found.keys() ^ expected.keys())} are in one of them only"
        )
    far = [i for i, s in expected.items() if abs(found[i] - s) > _TOLERANCE * (1 + abs(s))]
    if far:
        raise RuntimeError(f"{day}: {len(far)} scores differ from the oracle's by {_TOLERANCE}")


def difference(rows: list[Row], expected: Flags) -> tuple[int, int, int]:
    """(lost, doubled, different) rows; a row that should not be there is a different one."""
    times = Counter(i for i, _ in rows)
    lost = len(expected.keys() - times.keys())
    doubled = sum(n - 1 for n in times.values())
    different = len({i for i, score in rows if expected.get(i) != score})
    return lost, doubled, different


def read_flags(table: DeltaTable, day: str) -> list[tuple[str, float]]:
    """(id, score) of each committed flag of the day, in this version of the table."""
    rows = table.to_pyarrow_dataset().to_table(columns=[ID, "score"], filter=ds.field("day") == day)
    return list(zip(rows.column(ID).to_pylist(), rows.column("score").to_pylist(), strict=True))


def read_day(lake: "Lake", version: int | None = None) -> dict[str, list[Row]]:
    """The rows of the day in all tables, as a reader sees them at a version of the flags: the other
    tables at the versions that the commit of the flags names. It uses nothing of the product."""
    try:
        flags = lake.table(version)
    except TableNotFoundError:
        return {name: [] for name in TABLES}
    rows = {FLAGS: read_flags(flags, DAY)}
    for name in (SCORES, QUARANTINE):
        named = flags.transaction_version(f"day={DAY}/{name}")
        rows[name] = [] if named is None else read_table(lake.table(named, name), name, DAY)
    return rows


def read_table(table: DeltaTable, name: str, day: str) -> list[Row]:
    """The committed rows of a table, in this version of it."""
    if name != QUARANTINE:
        return read_flags(table, day)
    rows = table.to_pyarrow_dataset().to_table(["file", "row"], filter=ds.field("day") == day)
    return [(f"{row['file']} {row['row']}", 0.0) for row in rows.to_pylist()]


class Lake:
    """A trial's own copy of the base; it knows at any time what a whole day is."""

    def __init__(self, base: Base, folder: Path, server: S3Server | None = None) -> None:
        self.base, self.folder, self.server = base, folder, server
        self._files = folder / "flows"  # on S3, a mirror of what is there
        self.bundle = base.champion
        self.uri = str(folder)
        if server:
            bucket = f"lake-{uuid.uuid4().hex[:12]}"
            make = urllib.request.Request(f"{server.endpoint}/{bucket}", method="PUT")
            urllib.request.urlopen(make).close()
            self.uri = f"s3://{bucket}/lake"
        self._copy()
        self.spec = self.write_spec()
        self._whole: list[Day] = []
        self._left_out: set[str] = set()
        self.remember()

    def write_spec(self, **changes: Any) -> Path:
        self.spec = _spec(self.folder, f"{self.uri}/flows", f"{self.uri}/out", **changes)
        return self.spec

    @property
    def output(self) -> Store:
        return open_store(f"{self.uri}/out")

    @property
    def output_folder(self) -> Path:
        """Where the output of a local lake is."""
        return self.folder / "out"

    def table(self, version: int | None = None, name: str = FLAGS) -> DeltaTable:
        """A committed table, past the product's own code. TableNotFoundError before a commit."""
        store = self.output.child(name)
        return DeltaTable(store.delta_uri, version=version, storage_options=store.delta_options)

    def files(self, day: str = DAY) -> list[Path]:
        return sorted((self._files / f"day={day}").glob("*.parquet"))

    def expected(self, day: str) -> Flags:
        """What the day's flags are, by the files that are there and the champion in force."""
        return self._select(self.base.flags, day)

    def _select(self, of: dict[str, dict[str, Flags]], day: str, without: str = "") -> Flags:
        names = [p for p in self.files(day) if p.name != without and p.name not in self._left_out]
        ids = {i for p in names for i in pq.read_table(p, columns=[ID])[ID].to_pylist()}
        return {i: s for i, s in of[self.bundle][day].items() if i in ids}

    def difference(self, name: str) -> tuple[int, int, int]:
        """(lost, doubled, different) rows of the day in the newest version of a table."""
        try:
            rows = read_table(self.table(name=name), name, DAY)
        except TableNotFoundError:
            rows = []
        return difference(self.judged(rows), self._expect_day()[name])

    def judged(self, rows: Iterable[Row]) -> list[Row]:
        """The rows without those of the quarantine that are of files which are left out."""
        left_out = tuple(f"day={DAY}/{file} " for file in self._left_out)
        return [row for row in rows if not (left_out and row[0].startswith(left_out))]

    def _expect_day(self, without: str = "") -> Day:
        bad = {
            f"day={DAY}/{path.name} {row}": 0.0
            for path in self.files()
            if path.name not in {without, *self._left_out}
            for row in _list_bad_rows(path)
        }
        sources = {FLAGS: self.base.flags, SCORES: self.base.scores}
        chosen = {name: self._select(of, DAY, without) for name, of in sources.items()}
        return {**chosen, QUARANTINE: bad}

    def remember(self, without: str = "") -> None:
        """What the day is now may be committed: a reader may see it from here on."""
        self._whole.append(self._expect_day(without))

    @property
    def whole_days(self) -> list[Day]:
        """All that a reader may have seen: nothing, or the day as it was at some time."""
        return [{name: {} for name in TABLES}, *self._whole]

    def leave_out(self, name: str) -> None:
        """The rows of this file are to be quarantined, whatever happens."""
        self._left_out.add(name)
        self.remember()

    def promote(self, bundle: str) -> None:
        bundles.promote(load(self.spec), bundle)
        self.bundle = bundle
        if bundle != self.base.broken:
            self.remember()

    def rollback(self) -> None:
        """Make the first champion the champion again, after `promote`."""
        bundles.rollback(load(self.spec))
        self.bundle = self.base.champion

    def add_file(self, chance: random.Random) -> str:
        path = chance.choice(sorted(self.base.spare.iterdir()))
        return self._put(path.name, path.read_bytes())

    def change_file(self, chance: random.Random) -> str:
        """Write one of the day's files anew, without its first half."""
        path = chance.choice(self.files())
        rows = pq.read_table(path, partitioning=None)
        sink = pa.BufferOutputStream()
        pq.write_table(rows.slice(len(rows) // 2), sink, write_page_checksum=True)
        return self._put(path.name, sink.getvalue().to_pybytes())

    def drop_checksums(self) -> None:
        """Write the day's files anew, with the same rows, as writers do that know no checksums."""
        for path in self.files():
            sink = pa.BufferOutputStream()
            pq.write_table(pq.read_table(path, partitioning=None), sink)
            self._put(path.name, sink.getvalue().to_pybytes())

    def remove_file(self, chance: random.Random) -> str:
        path = chance.choice(self.files())
        if self.server:
            open_store(self.uri).delete(f"flows/day={DAY}/{path.name}")
        path.unlink()
        self.remember()
        return path.name

    def _put(self, name: str, data: bytes) -> str:
        path = self._files / f"day={DAY}" / name
        unfinished = path.with_name(f".{name}")
        unfinished.write_bytes(data)
        unfinished.replace(path)
        self.remember()
        if self.server:
            open_store(self.uri).put(f"flows/day={DAY}/{name}", data)
        return name

    def _copy(self) -> None:
        for day in (DAY, OTHER_DAY):
            name = f"day={day}"
            shutil.copytree(self.base.folder / "flows" / name, self._files / name)
        registry = self.base.folder / "out" / REGISTRY
        if not self.server:
            shutil.copytree(registry, self.folder / "out" / REGISTRY)
            return
        store = open_store(self.uri)
        for root, target in ((self._files, "flows"), (registry, f"out/{REGISTRY}")):
            for path in sorted(p for p in root.rglob("*") if p.is_file()):
                store.put(f"{target}/{path.relative_to(root).as_posix()}", path.read_bytes())


@contextmanager
def using(server: S3Server) -> Iterator[None]:
    """This process as a client of the server, for as long as the block lasts."""
    before = {k: v for k, v in os.environ.items() if k.startswith("AWS_")}
    for name in before:
        del os.environ[name]
    os.environ.update(server.environment)
    try:
        yield
    finally:
        for name in server.environment:
            os.environ.pop(name, None)
        os.environ.update(before)
