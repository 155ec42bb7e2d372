"""The walk of one split: which files a reader passes who follows one day of one split.

A small day is scored with the real `jobs.score.score`: one split, the worker called in this process
instead of in an actor. `sys.setprofile` records each function of `models`, `cluster` and `jobs` at
its first call, as a reader reads it once: the walk steps into the file of the function, and when it
returns, back to the file of its caller. Steps within a file do not count. A return is a step to a
file that was passed before.
"""

import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import CodeType, FrameType
from typing import Any
from unittest.mock import patch

import yaml

from tests.house.rooms import PACKAGES


@dataclass(frozen=True)
class Walk:
    """The files that were passed, in order; no two neighbours are the same."""

    files: tuple[str, ...]

    @property
    def distinct(self) -> int:
        """Files that were passed."""
        return len(set(self.files))

    @property
    def returns(self) -> int:
        """Steps to a file that was passed before."""
        return len(self.files) - self.distinct

    def most_visited(self) -> tuple[str, int]:
        """The file that was passed most often, and how often."""
        return Counter(self.files).most_common(1)[0]


class Recorder:
    """Records the walk while `record_block` lasts, over all threads that start meanwhile."""

    def __init__(self, root: Path) -> None:
        self._prefixes = {f"{root / name}/": name for name in PACKAGES}
        self._root = root
        self._files: dict[CodeType, str | None] = {}
        self._seen: set[CodeType] = set()
        self._entered: dict[int, bool] = {}  # frames, by id -> whether it is a first call
        self.steps: list[str] = []

    @contextmanager
    def record_block(self) -> Iterator[None]:
        threading.setprofile(self._record)
        sys.setprofile(self._record)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def make_walk(self, part: slice = slice(None)) -> Walk:
        steps = self.steps[part]
        return Walk(tuple(f for n, f in enumerate(steps) if n == 0 or steps[n - 1] != f))

    def _record(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            file = self._find_file(frame.f_code)
            if file and frame.f_code not in self._seen:
                self._seen.add(frame.f_code)
                self._entered[id(frame)] = True
                self.steps.append(file)
        elif event == "return" and self._entered.pop(id(frame), False):
            caller = frame.f_back
            while caller is not None and self._find_file(caller.f_code) is None:
                caller = caller.f_back
            if caller is not None:
                file = self._find_file(caller.f_code)
                assert file is not None
                self.steps.append(file)

    def _find_file(self, code: CodeType) -> str | None:
        """The file of a function of ours; None for others, and for bodies of modules."""
        if code not in self._files:
            ours = any(code.co_filename.startswith(prefix) for prefix in self._prefixes)
            path = Path(code.co_filename)
            named = ours and code.co_name != "<module>"
            self._files[code] = str(path.relative_to(self._root)) if named else None
        return self._files[code]


def record(root: Path) -> tuple[Walk, Walk]:
    """The walk of the whole day, and the part of it that is the worker's."""
    from cluster.splits import local_engine
    from jobs.demo import data
    from jobs.score import score
    from jobs.spec.spec import load
    from jobs.terminal.console import configure_logs
    from jobs.train import TrainRequest, train

    configure_logs()  # progress goes to stderr
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with patch.object(data, "FILES_A_DAY", 1), patch.object(data, "GROUPS_A_FILE", 1):
            days = data.write(folder, days=4, first_day=date(2026, 1, 1), scale=0.05).days
        spec = load(_write_spec(root, folder, days))
        train(spec, TrainRequest(workers=1))
        recorder, workers_part = Recorder(root), slice(0)

        def answer_here(function: Any, work: Any, *_: Any, **__: Any) -> Iterator[Any]:
            """In place of the engine's threads."""
            nonlocal workers_part
            start = len(recorder.steps)
            for one in work:
                answer = function(one)
                workers_part = slice(start, len(recorder.steps))
                yield answer

        with patch.object(local_engine, "map_in_threads", answer_here):
            score(spec, days[-2])  # what is imported late is imported here
            with recorder.record_block():
                score(spec, days[-1])
    return recorder.make_walk(), recorder.make_walk(workers_part)


def _write_spec(root: Path, folder: Path, days: Sequence[str]) -> Path:
    """The demo's flow spec, quick to train."""
    document = yaml.safe_load((root / "specs/demo_flows.yaml").read_text())
    document["input"]["uri"] = str(folder / "flows")
    document["output"] = {"uri": str(folder / "out")}
    document["detector"] = {"name": "pca"}
    document["training"] = {"days": f"{days[0]}..{days[1]}", "baselines": []}
    document["threshold"] = {"policy": "quantile", "contamination": 0.01}
    document["gates"] = {"flag_rate": [0, 1], "volume": None}
    path = folder / "watch.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path
