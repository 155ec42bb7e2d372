"""What was asked of Anomaray, as ratios of measured figures."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.bench.results import MIB, Growth, Line, Results, growth

_LIMITS = ("limit", "limit_torch")
_LARGE = ("W4-16M", "W4-64M")


@dataclass(frozen=True)
class Verdict:
    """One bar, what was found, and whether it holds."""

    asked: str
    bound: str
    found: str
    holds: bool


@dataclass(frozen=True)
class _Ratio:
    asked: str
    workload: str
    against: str
    bound: float
    speed: bool  # True: our speed over theirs, at least; False: our time over theirs, at most


_RATIOS = (
    _Ratio("W1: wall time over Daft's", "W1", "daft_udf", 1.0, False),
    _Ratio("W1: wall time over PySpark's", "W1", "spark", 0.30, False),
    _Ratio("W1: wall time over tuned Ray Data's", "W1", "ray_tuned", 0.50, False),
    _Ratio("W1: wall time over the tutorial's", "W1", "ray_tutorial", 0.20, False),
    _Ratio("W3: speed over the limit's", "W3", "limit", 0.95, True),
    _Ratio("64 million rows: speed over the limit's", "W4-64M", "limit", 0.75, True),
)


def verdicts(results: Results) -> list[Verdict]:
    """Every bar that the results have figures for."""
    checks: tuple[Callable[[Results], Iterator[Verdict]], ...] = (
        _ratios,
        _start,
        _small_files,
        _from_s3,
        _memory,
        _growth,
        _flat,
    )
    return [verdict for check in checks for verdict in check(results)]


def growth_of(results: Results, contender: str, sizes: tuple[str, ...] = ()) -> Growth | None:
    """The line through a contender's W4 sizes, or through some of them."""
    found = [
        line
        for line in results.lines
        if line.contender == contender and line.place == "local" and line.workload[:2] == "W4"
    ]
    return growth([line for line in found if not sizes or line.workload in sizes])


def _at_least(asked: str, found: float, bound: float) -> Verdict:
    return Verdict(asked, f"at least {bound:.2f}", f"{found:.2f}", found >= bound)


def _at_most(asked: str, found: float, bound: float, unit: str = "") -> Verdict:
    digits = 1 if unit else 2
    text = f"{found:.{digits}f}{unit}"
    return Verdict(asked, f"at most {bound:.{digits}f}{unit}", text, found <= bound)


def _ratios(results: Results) -> Iterator[Verdict]:
    for ratio in _RATIOS:
        ours = results.find("anomaray", ratio.workload)
        theirs = results.find(ratio.against, ratio.workload)
        if ours and theirs:
            if ratio.speed:
                yield _at_least(ratio.asked, theirs.wall / ours.wall, ratio.bound)
            else:
                yield _at_most(ratio.asked, ours.wall / theirs.wall, ratio.bound)


def _start(results: Results) -> Iterator[Verdict]:
    ours, floor = results.find("anomaray", "W2"), results.find("floor", "W2")
    if ours and floor:
        asked = "W2: wall time beyond Ray's start and stop and torch's import"
        yield _at_most(asked, ours.wall - floor.wall, 2.0, " s")


def _small_files(results: Results) -> Iterator[Verdict]:
    small, whole = results.find("anomaray", "W5"), results.find("anomaray", "W1")
    if small and whole:
        yield _at_least("W5: speed over W1's", whole.wall / small.wall, 0.80)


def _from_s3(results: Results) -> Iterator[Verdict]:
    for workload, place in results.cases:
        far, near = results.find("anomaray", workload, place), results.find("anomaray", workload)
        if place == "s3" and far and near:
            yield _at_least(f"{workload}: speed from S3 over local", near.wall / far.wall, 0.85)


def _memory(results: Results) -> Iterator[Verdict]:
    line = results.find("anomaray", "W1")
    if line:
        found = line.median("peak_private_bytes") / 1e9
        yield _at_most("W1: peak private memory of the tree", found, 1.2, " GB")


def _growth(results: Results) -> Iterator[Verdict]:
    ours = growth_of(results, "anomaray", _LARGE)
    for name in _LIMITS:
        limit = growth_of(results, name, _LARGE)
        if ours and limit:
            found = ours.rows_per_second / limit.rows_per_second
            yield _at_least(f"steady state, 16 to 64 million rows: speed over {name}", found, 0.90)
    if ours:
        yield _at_most("fixed cost, the intercept of that line", ours.fixed_seconds, 9.0, " s")
    every = growth_of(results, "anomaray")
    if every and len(_sizes(results)) > 2:
        yield _at_most("W4: distance of a size's time from the line", every.furthest, 0.10)


def _flat(results: Results) -> Iterator[Verdict]:
    peaks = [
        line.median("peak_private_bytes") / MIB
        for line in _sizes(results)
        if line.workload != "W4-1M"
    ]
    if len(peaks) > 1:
        found = max(peaks) / min(peaks)
        yield _at_most("W4: peak memory, largest over smallest from 4 million rows", found, 1.15)


def _sizes(results: Results) -> list[Line]:
    return [
        x for x in results.lines if x.contender == "anomaray" and x.workload[:2] == "W4" and x.runs
    ]
