"""The picture of the house: a box for each room, in rows by layer, and arrows for imports.

Under a room's name stand all rooms that it imports. An arrow is drawn where no longer way of
arrows leads to the same room; all of them, some 250, could not be read.
"""

import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from xml.etree import ElementTree

import numpy as np
from sklearn.isotonic import isotonic_regression

from tests.house.rooms import PACKAGES, House, Rank, Room

Arrow = tuple[Room, Room]

_TITLE, _TEXT = 14, 10.5  # font sizes; a letter is about 0.56 of its size wide
_LETTERS = 46  # of a line of uses
_GAP, _ROW_GAP, _MARGIN = 22, 36, 24
_HEAD = 48  # above the first row of a floor, for its name
_SWEEPS = 40
_COLOURS = {"jobs": "#b3541e", "cluster": "#1f6f8b", "models": "#4a7c2f"}
_SENTENCES = {
    "jobs": "what is run tonight: one file a verb",
    "cluster": "where it runs: the lake without Ray or torch, then workers",
    "models": "what is learned: torch and Arrow, no Ray and no URI",
}


@dataclass(eq=False)
class _Spot:
    """A room, or a place where a long arrow passes a row (no room)."""

    row: int
    room: Room | None = None
    uses: list[str] = field(default_factory=list)  # lines of text
    x: float = 0.0  # of the centre
    y: float = 0.0  # of the upper edge
    height: float = 0.0
    above: list["_Spot"] = field(default_factory=list)
    below: list["_Spot"] = field(default_factory=list)

    @property
    def width(self) -> float:
        if self.room is None:
            return 4.0
        lines = [len(self.room.title) * _TITLE, *(len(line) * _TEXT for line in self.uses)]
        return 0.56 * max(lines) + 20


def draw(house: House) -> str:
    """The picture as SVG."""
    arrows = house.list_arrows()
    rooms = sorted(set(house.rooms.values()), key=lambda room: (room.rank, room.name))
    rows = _number_rows(rooms)
    spots = {room: _Spot(rows[room.rank], room, _list_uses(room, arrows)) for room in rooms}
    ways = [_make_way(spots[source], spots[target]) for source, target in _drop_implied(arrows)]
    grid = [[] for _ in range(max(rows.values()) + 1)]  # type: list[list[_Spot]]
    for spot in dict.fromkeys([*spots.values(), *(spot for way in ways for spot in way)]):
        grid[spot.row].append(spot)
    _arrange(grid)
    return _render(arrows, grid, ways)


def read_uses(svg: str) -> Mapping[str, frozenset[str]]:
    """What each room of a picture imports, by their names."""
    boxes = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}g")
    return {
        box.attrib["data-room"]: frozenset(filter(None, box.attrib["data-uses"].split("; ")))
        for box in boxes
        if "data-room" in box.attrib
    }


def _number_rows(rooms: Iterable[Room]) -> Mapping[Rank, int]:
    """The row of each rank; a floor's outer layer shares the row of its first inner one."""
    ranks = sorted({room.rank for room in rooms})
    longest = max(map(len, ranks))
    padded = {rank: (*rank, *[0] * (longest - len(rank))) for rank in ranks}
    numbers = {rank: number for number, rank in enumerate(sorted(set(padded.values())))}
    return {rank: numbers[padded[rank]] for rank in ranks}


def _list_uses(room: Room, arrows: Iterable[Arrow]) -> list[str]:
    lines = []
    for floor in PACKAGES:
        names = [t.short_title for s, t in arrows if s == room and t.floor == floor]
        if names:
            text = f"{floor}: {', '.join(sorted(names))}"
            lines += textwrap.wrap(text, _LETTERS, subsequent_indent="  ")
    return lines


def _drop_implied(arrows: Iterable[Arrow]) -> list[Arrow]:
    """The arrows that no longer way replaces."""
    targets: dict[Room, set[Room]] = {}
    for source, target in arrows:
        targets.setdefault(source, set()).add(target)

    def reached(room: Room) -> set[Room]:
        direct = targets.get(room, set())
        return direct.union(*map(reached, direct))

    beyond = {room: set().union(*map(reached, direct)) for room, direct in targets.items()}
    return [(source, target) for source, target in arrows if target not in beyond[source]]


def _make_way(source: _Spot, target: _Spot) -> list[_Spot]:
    between = [_Spot(row) for row in range(source.row + 1, target.row)]
    way = [source, *between, target]
    for upper, lower in itertools.pairwise(way):
        upper.below.append(lower)
        lower.above.append(upper)
    return way


def _arrange(grid: list[list[_Spot]]) -> None:
    """Give each spot its place: rows are sorted by where their neighbours stand, down and up, so
    that fewer arrows cross (Sugiyama et al., IEEE Trans. SMC 11, 1981); the order with the fewest
    crossings is kept, and each spot moves as near to its neighbours as the others let it."""
    for row in grid:
        _settle(row, [0.0] * len(row))
    best, fewest = grid, _count_crossings(grid)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for row in grid if down else grid[::-1]:
            wished = {spot: _average(spot.above if down else spot.below, spot.x) for spot in row}
            row.sort(key=wished.__getitem__)
            _settle(row, [wished[spot] for spot in row])
        if (crossings := _count_crossings(grid)) < fewest:
            best, fewest = [list(row) for row in grid], crossings
    grid[:] = best
    for sweep in range(_SWEEPS):
        for row in grid if sweep % 2 == 0 else grid[::-1]:
            _settle(row, [_average([*spot.above, *spot.below], spot.x) for spot in row])
    left = min(spot.x - spot.width / 2 for row in grid for spot in row)
    y = _ROW_GAP / 2
    floor = ""
    for row in grid:
        rooms = [spot.room for spot in row if spot.room]
        if rooms[0].floor != floor:
            floor = rooms[0].floor
            y += _HEAD
        tallest = max(26.0 + 13 * len(spot.uses) for spot in row)
        for spot in row:
            spot.x, spot.y = spot.x + _MARGIN - left, y
            spot.height = 26.0 + 13 * len(spot.uses) if spot.room else tallest
        y += tallest + _ROW_GAP


def _average(spots: Sequence[_Spot], otherwise: float) -> float:
    return sum(spot.x for spot in spots) / len(spots) if spots else otherwise


def _settle(row: Sequence[_Spot], wished: Sequence[float]) -> None:
    """Put the spots of a row as near to the wished places as their order and widths allow: least
    squares under constraints, an isotonic regression of the places less the widths before them."""
    offsets = np.zeros(len(row))
    for place in range(1, len(row)):
        apart = (row[place - 1].width + row[place].width) / 2 + _GAP
        offsets[place] = offsets[place - 1] + apart
    places = isotonic_regression(np.array(wished) - offsets) + offsets
    for spot, x in zip(row, places, strict=True):
        spot.x = float(x)


def _count_crossings(grid: Sequence[Sequence[_Spot]]) -> int:
    """Pairs of arrows that cross between two rows."""
    count = 0
    for upper, lower in itertools.pairwise(grid):
        places = {spot: place for place, spot in enumerate(lower)}
        ends = [(a, places[below]) for a, spot in enumerate(upper) for below in spot.below]
        count += sum((a - c) * (b - d) < 0 for (a, b), (c, d) in itertools.combinations(ends, 2))
    return count


def _render(
    arrows: Iterable[Arrow], grid: Sequence[Sequence[_Spot]], ways: Iterable[Sequence[_Spot]]
) -> str:
    spots = [spot for row in grid for spot in row if spot.room]
    width = max(spot.x + spot.width / 2 for spot in spots) + _MARGIN
    height = max(spot.y + spot.height for spot in spots) + _ROW_GAP / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        'font-family="Helvetica, Arial, sans-serif">',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
        *(_render_floor(name, spots, width) for name in PACKAGES),
        *(_render_line(way) for way in ways),
        *(_render_box(spot, arrows) for spot in spots),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _render_floor(name: str, spots: Iterable[_Spot], width: float) -> str:
    own = [spot for spot in spots if spot.room and spot.room.floor == name]
    top = min(spot.y for spot in own) - _ROW_GAP / 2 - _HEAD
    bottom = max(spot.y + spot.height for spot in own) + _ROW_GAP / 2
    return (
        f'<rect y="{top:.0f}" width="{width:.0f}" height="{bottom - top:.0f}" '
        f'fill="{_COLOURS[name]}" fill-opacity="0.07"/>'
        f'<text x="10" y="{top + 20:.0f}" font-size="18" font-weight="bold" '
        f'fill="{_COLOURS[name]}">{name}/</text>'
        f'<text x="10" y="{top + 36:.0f}" font-size="11" fill="#555555">'
        f"{escape(_SENTENCES[name])}</text>"
    )


def _render_line(way: Sequence[_Spot]) -> str:
    """A smooth line from the lower edge of a box through its passages to the head of an arrow."""
    points = []
    for place, spot in enumerate(way):
        if place:
            points.append((spot.x, spot.y))
        if place < len(way) - 1:
            points.append((spot.x, spot.y + spot.height))
    (x, y), *rest = points
    path = [f"M{x:.0f},{y:.0f}"]
    for nx, ny in rest:
        bend = (ny - y) / 2
        path.append(f"C{x:.0f},{y + bend:.0f} {nx:.0f},{ny - bend:.0f} {nx:.0f},{ny:.0f}")
        x, y = nx, ny
    assert way[0].room is not None
    colour = _COLOURS[way[0].room.floor]
    head = f"M{x:.0f},{y:.0f}l-4,-8h8z"
    return (
        f'<path d="{" ".join(path)}" fill="none" stroke="{colour}" stroke-opacity="0.75" '
        f'stroke-width="1.3"/><path d="{head}" fill="{colour}"/>'
    )


def _render_box(spot: _Spot, arrows: Iterable[Arrow]) -> str:
    room = spot.room
    assert room is not None
    uses = sorted(target.name for source, target in arrows if source == room)
    left, colour = spot.x - spot.width / 2, _COLOURS[room.floor]
    lines = [
        f'<text x="{left + 10:.0f}" y="{spot.y + 32 + 13 * place:.0f}" font-size="{_TEXT}" '
        f'fill="#555555" xml:space="preserve">{escape(line)}</text>'
        for place, line in enumerate(spot.uses)
    ]
    return (
        f'<g data-room="{escape(room.name)}" data-uses="{escape("; ".join(uses))}">'
        f'<rect x="{left:.0f}" y="{spot.y:.0f}" width="{spot.width:.0f}" '
        f'height="{spot.height:.0f}" rx="4" fill="#ffffff" stroke="{colour}"/>'
        f'<text x="{left + 10:.0f}" y="{spot.y + 18:.0f}" font-size="{_TITLE}" '
        f'font-weight="bold" fill="{colour}">{escape(room.title)}</text>{"".join(lines)}</g>'
    )
