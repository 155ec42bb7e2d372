"""One input through `init`, `check`, `train` and `score`, and what becomes of its rows."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tests.formats.verbs import Said, run

Kind = Literal["scored", "set aside", "refused", "fault"]
LEARNED = ("2026-11-18", "2026-11-19", "2026-11-20")  # three: the last is held back whole
SCORED = "2026-11-21"
_OWN_ROWS = 300  # of the file beside the foreign ones
_SPEC = """\
name: beside
input: {{uri: {folder}/in, partition: day}}
columns: {{amount: {{role: numeric}}, load: {{role: numeric}}}}
detector: {{name: gaussian}}
"""


@dataclass(frozen=True)
class Outcome:
    """What became of an input. A fault is what no input may cause."""

    kind: Kind
    line: str
    name: str = ""
    seconds: float = 0.0


class Trials:
    """Tries inputs one after another, each in a folder of its own that is removed afterwards.

    `count` is the oracle: the rows of a file by another reader than ours; None where it reads none.
    """

    def __init__(self, folder: Path, count: Callable[[Path], int | None]) -> None:
        self._folder, self._count = folder, count

    def run(self, paths: Sequence[Path]) -> Outcome:
        """The outcome of files that are all days of an input of their own. Where that is refused,
        and the files are set aside beside a readable one, that is the outcome."""
        began = time.monotonic()
        folder = self._folder / "trial"
        shutil.rmtree(folder, ignore_errors=True)
        found = self._try_alone(paths, folder / "alone")
        if found.kind == "refused":
            beside = self._try_beside(paths, folder / "beside")
            if beside.kind in ("set aside", "fault"):
                found = replace(beside, line=f"{beside.line}; alone: {found.line}")
        return replace(found, name=name_inputs(paths), seconds=time.monotonic() - began)

    def _try_alone(self, paths: Sequence[Path], folder: Path) -> Outcome:
        for day in (*LEARNED, SCORED):
            _copy(paths, folder / "in" / f"day={day}")
        spec = folder / "watch.yaml"
        if len(paths) == 1:
            one = folder / "in" / f"day={SCORED}" / paths[0].name
            if (ended := _find_end(run("init", one, "--output", spec, "--force"))) and (
                ended.kind == "fault"
            ):
                return ended
        if ended := _find_end(run("init", folder / "in", "--output", spec, "--force")):
            return ended
        said = run("check", spec)
        if said.code:
            return Outcome("fault", f"init wrote what check refuses: {said.line}")
        shorten(spec)
        kept = folder / "kept.yaml"
        _keep_all(spec, kept, paths)
        wide = run("check", kept)
        if wide.fault:
            return Outcome("fault", f"check: {wide.fault}: {wide.line}")
        if wide.code == 0:
            spec = kept
        if ended := _find_end(run("train", spec, "--engine", "local")):
            return ended
        return self._score(spec, paths, 0)

    def _try_beside(self, paths: Sequence[Path], folder: Path) -> Outcome:
        shutil.copytree(self._trained, folder)
        spec = folder / "watch.yaml"
        spec.write_text(spec.read_text().replace(str(self._trained), str(folder)))
        _copy(paths, folder / "in" / f"day={SCORED}")
        return self._score(spec, paths, _OWN_ROWS)

    def _score(self, spec: Path, paths: Sequence[Path], more: int) -> Outcome:
        said = run("score", spec, "--day", SCORED, "--engine", "local", "--json")
        if ended := _find_end(said):
            return ended
        result = json.loads(said.out)
        counts = [self._count(path) for path in paths]
        return _balance(result, sum(filter(None, counts)) + more, len(paths))

    @cached_property
    def _trained(self) -> Path:
        """A watch that has learned from a readable file, and has another one to score."""
        folder = self._folder / "readable"
        for seed, day in enumerate((*LEARNED, SCORED)):
            rng = np.random.default_rng(seed)
            (folder / "in" / f"day={day}").mkdir(parents=True)
            columns = {n: rng.exponential(2.0, _OWN_ROWS) for n in ("amount", "load")}
            pq.write_table(pa.table(columns), folder / "in" / f"day={day}" / "own.parquet")
        spec = folder / "watch.yaml"
        spec.write_text(_SPEC.format(folder=folder))
        shorten(spec)
        said = run("train", spec, "--engine", "local")
        assert said.code == 0, said.err
        return folder


def name_inputs(paths: Sequence[Path]) -> str:
    """A file by its folder and name; several files by their folder and number."""
    parent = paths[0].parent.name
    return f"{parent}/{paths[0].name}" if len(paths) == 1 else f"{parent}/ ({len(paths)} files)"


def _copy(paths: Sequence[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        shutil.copyfile(path, folder / path.name)


def shorten(spec: Path) -> None:
    """Make the watch quick to train, let no gate stop it, and write beside the spec."""
    document = yaml.safe_load(spec.read_text(encoding="utf-8"))
    short = {"epochs": 1, "baselines": [], "patience": 1}
    document["training"] = {**(document.get("training") or {}), **short}
    document["output"] = {"uri": str(spec.parent / "out")}
    document["threshold"] = {"policy": "quantile", "contamination": 0.01}
    document["gates"] = {
        "flag_rate": [0, 1],
        "quarantine_rate": 1,
        "quarantined_files": 1000,
        "volume": None,
    }
    if document["detector"]["name"] in ("auto", "isolation_forest"):
        document["detector"] = {"name": "gaussian"}
    spec.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), "utf-8")


def _keep_all(spec: Path, kept: Path, paths: Sequence[Path]) -> None:
    """Write a spec that also copies the columns without a role into the flags."""
    document = yaml.safe_load(spec.read_text(encoding="utf-8"))
    columns = document["columns"]
    for path in paths:
        with suppress(Exception):  # a file that this reader cannot open
            for name in pq.read_schema(path).names:
                columns.setdefault(name, {"role": "keep"})
    kept.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), "utf-8")


def _find_end(said: Said) -> Outcome | None:
    """The outcome of a verb that did not succeed."""
    if said.fault:
        return Outcome("fault", f"{said.verb}: {said.fault}: {said.line}")
    if said.code == 2:
        return Outcome("refused", f"{said.verb}: {said.line}")
    if said.code == 1:
        gates = json.loads(said.out)["failed_gates"] if said.verb == "score" else [said.line]
        return Outcome("refused", f"{said.verb}: {'; '.join(gates)}")
    return None


def _balance(result: dict[str, Any], rows: int, files: int) -> Outcome:
    """Compare the books of a committed day with the rows that the oracle counted."""
    scored, aside, filtered = (result[n] for n in ("scored", "quarantined", "filtered"))
    rejected = result["rejected_files"]
    books = f"{scored:,} scored + {aside:,} set aside + {filtered:,} filtered of {rows:,} rows"
    named = f"{books}; {rejected:,} of {files:,} files set aside"
    if scored + aside + filtered != rows and not rejected:
        return Outcome("fault", f"the books do not balance: {named}")
    return Outcome("set aside" if aside or rejected else "scored", named)
