"""The charts of the run card, as plotly figures in plain JSON. No log field ever enters one.

Plotly reads links and tags in its labels, so charts carry only our own words and numbers. Colours
are names of the page's CSS variables, which differ between its light and dark themes.
"""

import math
from typing import Any

from jobs.report.document import Card, FlagsOverTime, Histogram, ProfileFacts, Training
from jobs.report.profile import IDLE, OTHER, WAIT

Figure = dict[str, Any]

# A count of 0 is drawn at half a row, below the tick for 1: a log axis has no 0.
_FLOOR = 0.5
# Scores that span more than two decades get a log axis.
_DECADES = 100.0

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


def choose_hue(stage: str) -> tuple[str, float]:
    """The page's colour variable for a stage, and its opacity."""
    return _HUES.get(stage, _HUES[OTHER])


def draw_charts(card: Card) -> dict[str, Figure]:
    """Figures by the id of their place on the page, without those that have no data."""
    result: dict[str, Figure] = {}
    histogram, over_time, training = (
        card["score_histogram"],
        card["flags_over_time"],
        card["training"],
    )
    if histogram and sum(histogram["counts"]):
        result["scores"] = _draw_scores(histogram, card["threshold"]["value"])
    if over_time and over_time["bins"]:
        result["over-time"] = _draw_over_time(over_time)
    if training and len(training["epochs"]) > 1:
        result["training"] = _draw_losses(training)
    if profile := card.get("profile"):
        result["stages"] = _draw_stages(profile)
    return result


def _make_axis(title: str = "", **more: Any) -> dict[str, Any]:
    return {
        "title": {"text": title, "standoff": 10},
        "gridcolor": "var(--rule)",
        "linecolor": "var(--rule)",
        "zeroline": False,
        "fixedrange": True,  # a finger that scrolls the page must not zoom the chart
        "automargin": True,
        **more,
    }


def _make_layout(**more: Any) -> dict[str, Any]:
    return {
        "margin": {"l": 8, "r": 8, "t": 34, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "var(--quiet)", "size": 12},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hovermode": "x unified",
        "hoverlabel": {
            "bgcolor": "var(--sheet)",
            "bordercolor": "var(--rule)",
            "font": {"color": "var(--ink)"},
        },
        **more,
    }


def _mark_line(x: float, place: float, text: str, colour: str) -> dict[str, Any]:
    """A dotted line at x. Its label is on the side with more room; place 0 is left, 1 right."""
    return {
        "type": "line",
        "x0": x,
        "x1": x,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"color": colour, "width": 1.5, "dash": "dot"},
        "label": {
            "text": text,
            "textposition": "end",
            "textangle": 0,
            "xanchor": "left" if place < 0.7 else "right",
            "yanchor": "top",
            "padding": 5,
            "font": {"color": colour},
        },
    }


def _draw_scores(histogram: Histogram, threshold: float) -> Figure:
    """Rows by score, with log counts; the calibration is scaled to the rows of the day."""
    edges, counts = histogram["edges"], histogram["counts"]
    traces = [_draw_steps("rows of this day", edges, counts, "var(--accent)", fill=True)]
    calibration = histogram["calibration_counts"]
    if calibration and sum(calibration):
        scale = sum(counts) / sum(calibration)
        scaled = [c * scale for c in calibration]
        traces.append(_draw_steps("calibration, scaled", edges, scaled, "var(--quiet)", fill=False))
    wide = edges[0] > 0 and edges[-1] / edges[0] > _DECADES
    low, high, at = edges[0], edges[-1], threshold
    if wide and threshold > 0:
        low, high, at = math.log(low), math.log(high), math.log(at)
    place = (at - low) / (high - low) if high > low else 1.0
    return {
        "data": traces,
        "layout": _make_layout(
            xaxis=_make_axis("score", type="log" if wide else "linear", dtick=1 if wide else None),
            yaxis=_make_axis("rows", type="log", dtick=1, tickformat=","),
            shapes=[_mark_line(threshold, place, "threshold", "var(--alarm)")],
        ),
    }


def _draw_steps(
    name: str, edges: list[float], counts: list[Any], colour: str, fill: bool
) -> Figure:
    """The outline of a histogram. (Plotly draws bars of uneven width wrong on a log axis.)"""
    drawn = [max(float(c), _FLOOR) for c in counts]
    trace: Figure = {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": edges,
        "y": [*drawn, drawn[-1]],
        "customdata": [*counts, counts[-1]],
        "line": {"shape": "hv", "color": colour, "width": 1.5 if fill else 1},
        "hovertemplate": "%{customdata:,.0f}",
    }
    return trace | ({"fill": "tozeroy"} if fill else {})


def _draw_over_time(over_time: FlagsOverTime) -> Figure:
    """Flags as bars, and below them the rows of the same hours, if they are known."""
    flags: Figure = {
        "type": "bar",
        "name": "flags",
        "x": over_time["bins"],
        "y": over_time["flags"],
        "marker": {"color": "var(--alarm)"},
        "hovertemplate": "%{y:,}",
    }
    layout = _make_layout(
        xaxis=_make_axis(type="date"), yaxis=_make_axis("flags", rangemode="tozero"), bargap=0.15
    )
    if not over_time["rows"]:
        return {"data": [flags], "layout": layout}
    rows: Figure = {
        "type": "scatter",
        "mode": "lines",
        "name": "rows read",
        "x": over_time["bins"],
        "y": over_time["rows"],
        "yaxis": "y2",
        "line": {"color": "var(--accent)", "shape": "hvh", "width": 1.5},
        "fill": "tozeroy",
        "hovertemplate": "%{y:,}",
    }
    layout["yaxis"]["domain"] = [0.42, 1]
    layout["yaxis2"] = _make_axis("rows", rangemode="tozero", domain=[0, 0.32], nticks=3)
    layout["xaxis"]["anchor"] = "y2"
    return {"data": [flags, rows], "layout": layout}


def _draw_losses(training: Training) -> Figure:
    """Loss of training and validation by epoch, and the epoch that was kept."""
    epochs = [e["epoch"] for e in training["epochs"]]
    curves: list[tuple[str, list[float | None], str]] = [
        ("training", [e["train_loss"] for e in training["epochs"]], "var(--quiet)"),
        ("validation", [e["validation_loss"] for e in training["epochs"]], "var(--accent)"),
    ]
    traces: list[Figure] = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": name,
            "x": epochs,
            "y": losses,
            "line": {"color": colour, "width": 2},
            "marker": {"size": 5},
            "hovertemplate": "%{y:.5g}",
        }
        for name, losses, colour in curves
        if any(loss is not None for loss in losses)
    ]
    shapes = []
    if training["best_epoch"] is not None:
        place = (training["best_epoch"] - epochs[0]) / (epochs[-1] - epochs[0])
        shapes.append(_mark_line(training["best_epoch"], place, "kept", "var(--good)"))
    return {
        "data": traces,
        "layout": _make_layout(
            xaxis=_make_axis("epoch", tickformat="d", nticks=12),
            yaxis=_make_axis("loss"),
            shapes=shapes,
        ),
    }


def _draw_stages(profile: ProfileFacts) -> Figure:
    """Stacked bars of the driver's time by stage, and of the mean thread of the actors.

    Both bars are as long as the run, so that they can be compared.
    """
    lines = [("driver", profile["driver"], 1)]
    if profile["actors"]:
        lines.append(("actors", profile["actors"], max(1, profile["threads"])))
    longest = max(sum(stages.values()) / threads for _, stages, threads in lines)
    traces = [
        _draw_segment(name, stage, seconds, seconds / threads)
        for name, stages, threads in lines
        for stage, seconds in stages.items()
        if seconds > 0
    ]
    return {
        "data": traces,
        "layout": _make_layout(
            barmode="stack",
            bargap=0.28,
            showlegend=False,
            hovermode="closest",
            margin={"l": 8, "r": 8, "t": 8, "b": 8},
            uniformtext={"mode": "hide", "minsize": 12},
            xaxis=_make_axis("seconds", range=[0, longest], nticks=10, showgrid=False),
            yaxis=_make_axis(autorange="reversed", showgrid=False, ticksuffix=" "),
        ),
    }


def _draw_segment(line: str, stage: str, seconds: float, length: float) -> Figure:
    colour, opacity = choose_hue(stage)
    pale = opacity < 1 or colour in ("track", "rule")
    return {
        "type": "bar",
        "orientation": "h",
        "name": stage,
        "x": [length],
        "y": [line],
        "text": [stage],
        "textposition": "inside",
        "insidetextanchor": "middle",
        "textangle": 0,
        "insidetextfont": {"color": "var(--ink)" if pale else "var(--paper)"},
        "marker": {
            "color": f"var(--{colour})",
            "opacity": opacity,
            "line": {"color": "var(--paper)", "width": 1},
        },
        "customdata": [seconds],
        "hovertemplate": "%{customdata:,.2f} s",
    }
