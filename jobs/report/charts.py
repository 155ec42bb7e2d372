"""The charts of the run card as plain values, which `templates/chart.svg` draws as inline SVG.

Places across are in percent of the chart's width and places down in pixels, so that one drawing is
readable on a phone and on a wide screen. Charts carry only our own words and numbers: no log field
ever enters one. Colours are names of the page's CSS variables, which differ between its themes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from jobs.report.document import Card, Epoch, FlagsOverTime, Histogram, ProfileFacts, Training
from jobs.report.formats import format_count, format_number
from jobs.report.profile import IDLE, OTHER, WAIT

# A count of 0 is drawn at half a row, below the tick for 1: a log axis has no 0.
_FLOOR = 0.5
# Scores that span more than two decades get a log axis.
_DECADES = 100.0
# Labels of this many fit side by side; a narrow screen shows every second one.
_ACROSS, _DOWN = 9, 5
# Pixels: of a panel, of the line above it for its unit, of the labels below a chart.
_TALL, _LOW, _ROW, _ABOVE, _BELOW = 230, 80, 42, 24, 44
# Outlines are drawn in a box of this width, which is stretched to the chart's.
BOX = 1000
# Pixels of a letter, and of the chart on a narrow and on a wide screen.
_LETTER, _NARROW, _WIDE = 8, 300, 850

# A hue for each kind of work; the stage that usually takes longest has full opacity.
_HUES: dict[str, tuple[str, float]] = {
    "start": ("quiet", 1.0),
    "list": ("accent", 0.3),
    "open": ("accent", 0.6),
    "read": ("accent", 1.0),
    "plan": ("good", 1.0),
    "encode": ("good", 1.0),
    "copy": ("good", 0.5),
    "score": ("plum", 1.0),
    "filter": ("plum", 0.6),
    "reasons": ("plum", 0.3),
    "write": ("ochre", 1.0),
    "record": ("ochre", 0.5),
    "commit": ("ochre", 1.0),
    "card": ("ochre", 0.5),
    WAIT: ("track", 1.0),
    IDLE: ("track", 1.0),
    OTHER: ("rule", 1.0),
}


@dataclass(frozen=True)
class Tick:
    """A label of an axis: percent from the left, or pixels from the top."""

    at: float
    text: str
    spare: bool = False  # left out on a narrow screen


@dataclass(frozen=True)
class Line:
    """An outline, as the path of an SVG in a box of `BOX` by the height of its panel."""

    name: str
    colour: str
    path: str
    filled: bool = False


@dataclass(frozen=True)
class Bar:
    """A box with a hint for who points at it; without a colour it is there only for its hint."""

    left: float  # percent
    width: float  # percent
    top: float  # pixels from the top of the panel
    height: float  # pixels
    hint: str
    colour: str = ""
    opacity: float = 1.0
    label: str = ""
    label_colour: str = ""
    spare: bool = False  # the label is left out on a narrow screen


@dataclass(frozen=True)
class Dot:
    """A point of a line."""

    x: float  # percent
    y: float  # pixels
    colour: str
    hint: str


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    unit: str
    height: int  # pixels
    ticks: Sequence[Tick]
    lines: Sequence[Line] = ()
    bars: Sequence[Bar] = ()
    dots: Sequence[Dot] = ()
    top: int = _ABOVE  # pixels from the top of the chart


@dataclass(frozen=True)
class Rule:
    """A dotted line from top to bottom, with a label on the side that has more room."""

    x: float  # percent
    text: str
    colour: str


@dataclass(frozen=True)
class Chart:
    """Panels above each other with one axis across."""

    title: str
    description: str  # what the chart shows, in words
    unit: str  # of the axis across
    ticks: Sequence[Tick]
    panels: Sequence[Panel]
    rules: Sequence[Rule] = ()
    legend: Sequence[tuple[str, str]] = ()  # name and colour

    @property
    def height(self) -> int:
        return self.foot + _BELOW

    @property
    def foot(self) -> int:
        """Pixels from the top to the axis across."""
        return self.panels[-1].top + self.panels[-1].height


@dataclass(frozen=True)
class Scale:
    """Places of numbers on an axis, from 0 to 1."""

    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(max(at, low * 1e-9, 1e-300))
        return min(max((at - low) / (high - low), 0.0), 1.0) if high > low else 0.5

    def list_ticks(self, most: int) -> list[float]:
        """At most `most` round numbers of the scale."""
        if self.log:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            each = max(1, math.ceil((last - first + 1) / (most + 2)))
            return [10.0**power for power in range(first, last + 1, each)]
        if self.high <= self.low:
            return [self.low]
        step = _choose_step(self.high - self.low, most)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def _choose_step(span: float, most: int) -> float:
    """The distance of at most `most` ticks: 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(span / most))
    return next(s * power for s in (1, 2, 5, 10, 20) if span / (s * power) <= most - 1)


def _count_up(counts: Sequence[int], most: int = _DOWN) -> Scale:
    """A scale from 0 to the first tick that no count is above."""
    highest = max(2, *counts)
    step = max(1.0, _choose_step(highest, most))
    return Scale(0, step * math.ceil(highest / step))


def choose_hue(stage: str) -> tuple[str, float]:
    """The page's colour variable for a stage, and its opacity."""
    return _HUES.get(stage, _HUES[OTHER])


def draw_charts(card: Card) -> dict[str, Chart]:
    """Charts by the id of their place on the page, without those that have no data."""
    result: dict[str, Chart] = {}
    histogram, over_time, training = (
        card["score_histogram"],
        card["flags_over_time"],
        card["training"],
    )
    if histogram and sum(histogram["counts"]):
        result["scores"] = _draw_scores(histogram, card["threshold"]["value"])
    if over_time and over_time["bins"]:
        result["over-time"] = _draw_over_time(over_time)
    if training and len(training["epochs"]) > 1 and _list_losses(training):
        result["training"] = _draw_losses(training)
    if profile := card.get("profile"):
        result["stages"] = _draw_stages(profile)
    return result


def _draw_scores(histogram: Histogram, threshold: float) -> Chart:
    """Rows by score, with log counts; the calibration is scaled to the rows of the day."""
    edges, counts = histogram["edges"], histogram["counts"]
    wide = edges[0] > 0 and edges[-1] / edges[0] > _DECADES
    across = Scale(edges[0], edges[-1], log=wide)
    down = Scale(_FLOOR, max(10.0, *counts), log=True)
    lines = [Line("rows of this day", "accent", _outline(edges, counts, across, down), filled=True)]
    calibration = histogram["calibration_counts"]
    if calibration and sum(calibration):
        ratio = sum(counts) / sum(calibration)
        path = _outline(edges, [c * ratio for c in calibration], across, down)
        lines.append(Line("calibration, scaled to these rows", "quiet", path))
    hints = [
        f"score {format_number(low)} to {format_number(high)}: {_say(count, 'row')}"
        for low, high, count in zip(edges, edges[1:], counts, strict=False)
    ]
    return Chart(
        title="Rows by score",
        description=f"{_say(sum(counts), 'row')} with scores from {format_number(edges[0])} to "
        f"{format_number(edges[-1])}; the threshold is {format_number(threshold)}.",
        unit="score, log scale" if wide else "score",
        ticks=_label_across(across),
        panels=[
            Panel(
                "rows, log scale",
                _TALL,
                _label_down(down, _TALL),
                lines,
                _point_at(edges, hints, across, _TALL),
            )
        ],
        rules=[Rule(100 * across.place(threshold), "threshold", "alarm")],
        legend=[(line.name, line.colour) for line in lines],
    )


def _draw_over_time(over_time: FlagsOverTime) -> Chart:
    """Flags as bars, and below them the rows of the same hours, if they are known."""
    starts = [datetime.fromisoformat(b).astimezone(UTC) for b in over_time["bins"]]
    width = starts[1] - starts[0] if len(starts) > 1 else timedelta(hours=1)
    flags, rows = over_time["flags"], over_time["rows"]
    down, step = _count_up(flags), 100 / len(starts)
    bars = [
        Bar(
            left=step * (i + 0.08),
            width=step * 0.84,
            top=_TALL * (1 - down.place(n)),
            height=_TALL * down.place(n),
            hint=f"{_minute(start)}: {_say(n, 'flag')}",
            colour="alarm",
        )
        for i, (start, n) in enumerate(zip(starts, flags, strict=True))
    ]
    panels = [Panel("flags", _TALL, _label_down(down, _TALL, whole=True), bars=bars)]
    words = f"{_say(sum(flags), 'flag')} from {_minute(starts[0])} in UTC"
    if rows:
        down, across = _count_up(rows, most=3), Scale(0, len(rows))
        edges = [float(i) for i in range(len(rows) + 1)]
        hints = [
            f"{_minute(start)}: {_say(n, 'row')}" for start, n in zip(starts, rows, strict=True)
        ]
        panels.append(
            Panel(
                "rows read",
                _LOW,
                _label_down(down, _LOW, most=3, whole=True),
                [Line("rows read", "accent", _outline(edges, rows, across, down, _LOW), True)],
                _point_at(edges, hints, across, _LOW),
                top=2 * _ABOVE + _TALL + 8,
            )
        )
        words += f", among {_say(sum(rows), 'row')}"
    unit, ticks = _label_times(starts, width * len(starts))
    return Chart("Flags over time", f"{words}.", unit, ticks, panels)


def _list_losses(training: Training) -> list[float]:
    """Every loss that is a number: a page has None for others."""
    every = [loss for e in training["epochs"] for loss in (e["train_loss"], e["validation_loss"])]
    return [loss for loss in every if loss is not None]


def _draw_losses(training: Training) -> Chart:
    """Loss of training and validation by epoch, and the epoch that was kept."""
    epochs, losses = training["epochs"], _list_losses(training)
    across = Scale(epochs[0]["epoch"], epochs[-1]["epoch"])
    margin = 0.05 * (max(losses) - min(losses)) or 1.0
    down = Scale(min(losses) - margin, max(losses) + margin)
    curves = [
        _trace_losses("training", "quiet", [e["train_loss"] for e in epochs], epochs, across, down),
        _trace_losses(
            "validation", "accent", [e["validation_loss"] for e in epochs], epochs, across, down
        ),
    ]
    drawn = [(line, dots) for line, dots in curves if dots]
    best = training["best_epoch"]
    words = f"Loss by epoch over {len(epochs)} epochs, from {format_number(losses[0])} to "
    words += f"{format_number(losses[-1])}" + (f"; epoch {best} was kept." if best else ".")
    return Chart(
        title="Loss by epoch",
        description=words,
        unit="epoch",
        ticks=_label_across(across, whole=True),
        panels=[
            Panel(
                "loss",
                _TALL,
                _label_down(down, _TALL),
                [line for line, _ in drawn],
                dots=[dot for _, dots in drawn for dot in dots],
            )
        ],
        rules=[] if best is None else [Rule(100 * across.place(best), "kept", "good")],
        legend=[(line.name, line.colour) for line, _ in drawn],
    )


def _trace_losses(
    name: str,
    colour: str,
    losses: Sequence[float | None],
    epochs: Sequence[Epoch],
    across: Scale,
    down: Scale,
) -> tuple[Line, list[Dot]]:
    """The curve of one loss. It has a gap where a loss is no number."""
    dots, path, pen = [], [], "M"
    for one, loss in zip(epochs, losses, strict=True):
        if loss is None:
            pen = "M"
            continue
        x, y = across.place(one["epoch"]), _TALL * (1 - down.place(loss))
        hint = f"epoch {one['epoch']}, {name}: {format_number(loss)}"
        dots.append(Dot(100 * x, y, colour, hint))
        path.append(f"{pen}{BOX * x:.1f} {y:.1f}")
        pen = "L"
    return Line(name, colour, " ".join(path)), dots


def _draw_stages(profile: ProfileFacts) -> Chart:
    """Stacked bars of the driver's time by stage, and of the mean thread of the actors.

    Both bars are as long as the run, so that they can be compared.
    """
    rows = [("driver", profile["driver"], 1)]
    if profile["actors"]:
        rows.append(("actors", profile["actors"], max(1, profile["threads"])))
    longest = max(sum(stages.values()) / threads for _, stages, threads in rows) or 1.0
    bars, ticks = [], []
    for i, (name, stages, threads) in enumerate(rows):
        ticks.append(Tick(_ROW * (i + 0.5), name))
        left = 0.0
        for stage, seconds in stages.items():
            width = 100 * seconds / threads / longest
            if seconds > 0:
                bars.append(_draw_stage(stage, seconds, left, width, _ROW * i + 5))
            left += width
    return Chart(
        title="Seconds by stage",
        description="The same figures are in the tables below.",
        unit="seconds",
        ticks=_label_across(Scale(0, longest)),
        panels=[Panel("", _ROW * len(rows), ticks, bars=bars, top=0)],
    )


def _draw_stage(stage: str, seconds: float, left: float, width: float, top: float) -> Bar:
    colour, opacity = choose_hue(stage)
    pale = opacity < 1 or colour in ("track", "rule")
    room, letters = width / 100, _LETTER * (len(stage) + 1)
    return Bar(
        left,
        width,
        top,
        _ROW - 10,
        f"{stage}: {seconds:,.2f} s",
        colour,
        opacity,
        stage if room * _WIDE > letters else "",
        "ink" if pale else "paper",
        spare=room * _NARROW < letters,
    )


# Parts of charts.


def _outline(
    edges: Sequence[float],
    counts: Sequence[float],
    across: Scale,
    down: Scale,
    height: int = _TALL,
) -> str:
    """The steps of a histogram."""
    parts = []
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        y = f"{height * (1 - down.place(max(float(count), down.low))):.1f}"
        parts += [f"{BOX * across.place(low):.1f} {y}", f"{BOX * across.place(high):.1f} {y}"]
    return "M" + "L".join(parts)


def _point_at(
    edges: Sequence[float], hints: Sequence[str], across: Scale, height: int
) -> list[Bar]:
    """Bars that are not drawn, for the hints of a histogram."""
    places = [100 * across.place(edge) for edge in edges]
    return [
        Bar(left, right - left, 0, height, hint)
        for left, right, hint in zip(places, places[1:], hints, strict=False)
    ]


def _label_across(scale: Scale, whole: bool = False) -> list[Tick]:
    numbers = [n for n in scale.list_ticks(_ACROSS) if not whole or n == round(n)]
    return _spare([Tick(100 * scale.place(n), format_number(n)) for n in numbers])


def _label_down(scale: Scale, height: int, most: int = _DOWN, whole: bool = False) -> list[Tick]:
    numbers = [n for n in scale.list_ticks(most) if not whole or n == round(n)]
    return [Tick(height * (1 - scale.place(n)), _shorten(n)) for n in numbers]


def _shorten(number: float) -> str:
    """A number that fits beside an axis: 20,000 is 20k."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= max(size, 1e4):
            return format_number(number / size) + letter
    return format_number(number)


_HOURS = (1, 2, 3, 6, 12, 24, 48, 168)


def _label_times(starts: Sequence[datetime], span: timedelta) -> tuple[str, list[Tick]]:
    """The unit of an axis of times in UTC, and its labels at round hours or days.

    None comes after the last start: the end of its bin may lie after the year 9999.
    """
    start = starts[0]
    hours = span / timedelta(hours=1)
    each = next((h for h in _HOURS if hours / h <= _ACROSS), 168 * math.ceil(hours / 168 / _ACROSS))
    zero = start.replace(hour=0, minute=0, second=0, microsecond=0)
    first = math.ceil((start - zero) / timedelta(hours=each))
    last = math.floor((starts[-1] - zero) / timedelta(hours=each)) + 1
    days = each >= 24
    ticks = [
        Tick(
            100 * ((when - start) / span),
            when.date().isoformat() if hours > 300 * 24 else f"{when:%b} {when.day}",
        )
        if days
        else Tick(100 * ((when - start) / span), f"{when:%H:%M}")
        for when in (zero + timedelta(hours=each * i) for i in range(first, last))
    ]
    return "day, UTC" if days else f"time, UTC, from {start.date().isoformat()}", _spare(ticks)


def _minute(when: datetime) -> str:
    """Date and time. (`strftime` writes years below 1000 without their zeros.)"""
    return when.replace(tzinfo=None).isoformat(" ", "minutes")


def _spare(ticks: Sequence[Tick]) -> list[Tick]:
    """The ticks, with every second one spare where there are many."""
    many = len(ticks) > _ACROSS // 2
    return [replace(tick, spare=many and i % 2 == 1) for i, tick in enumerate(ticks)]


def _say(count: float, noun: str) -> str:
    return f"{format_count(count)} {noun}{'' if count == 1 else 's'}"
