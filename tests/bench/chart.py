"""A bar chart as SVG that can be read on a light and on a dark page."""

from dataclasses import dataclass
from xml.etree import ElementTree as ET

_WIDTH, _LEFT, _RIGHT = 760, 250, 120
_ROW, _BAR, _TOP = 34, 20, 46
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f; }
.title { font-weight: 600; font-size: 15px; }
.quiet { fill: #57606a; }
.bar { fill: #8c959f; }
.ours { fill: #0969da; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .quiet { fill: #9198a1; }
  .bar { fill: #6e7681; }
  .ours { fill: #4493f8; }
}
"""


@dataclass(frozen=True)
class Bar:
    """One bar: its label, its length in the chart's unit, and the words at its end."""

    label: str
    value: float
    text: str
    ours: bool = False


def bars(title: str, unit: str, values: list[Bar]) -> str:
    """Horizontal bars from zero, in the given order."""
    height = _TOP + _ROW * len(values) + 12
    attributes = {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": f"0 0 {_WIDTH} {height}",
        "role": "img",
        "aria-label": f"{title}, {unit}",
    }
    svg = ET.Element("svg", attributes)
    ET.SubElement(svg, "style").text = _STYLE
    _text(svg, 8, 22, title, "title")
    _text(svg, _WIDTH - 8, 22, unit, "quiet", anchor="end")
    longest = max((bar.value for bar in values), default=0.0) or 1.0
    for i, bar in enumerate(values):
        y = _TOP + i * _ROW
        width = (_WIDTH - _LEFT - _RIGHT) * bar.value / longest
        _text(svg, _LEFT - 10, y + 15, bar.label, "", anchor="end")
        shape = {"x": _LEFT, "y": y, "width": round(max(width, 1), 1), "height": _BAR, "rx": 2}
        kind = {"class": "bar ours" if bar.ours else "bar"}
        ET.SubElement(svg, "rect", {key: str(n) for key, n in shape.items()} | kind)
        _text(svg, _LEFT + width + 8, y + 15, bar.text, "quiet")
    ET.indent(svg)
    return ET.tostring(svg, encoding="unicode") + "\n"


def _text(
    parent: ET.Element, x: float, y: float, text: str, kind: str, anchor: str = "start"
) -> None:
    attributes = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
    if kind:
        attributes["class"] = kind
    ET.SubElement(parent, "text", attributes).text = text
