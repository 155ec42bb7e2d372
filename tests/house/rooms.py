"""The rooms of the house, and the imports between them, as import-linter's layers place them.

A room is what a layer contract in `pyproject.toml` names: a folder, or the loose files of a folder
that lie in one layer. A folder that has layers of its own, such as `cluster.lake`, is no room; its
parts are.
"""

import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import grimp

PACKAGES = ("jobs", "cluster", "models")  # from the top floor to the ground

SEPARATOR = " · "  # between the files of a room
Rank = tuple[int, ...]  # layers from the outside in


@dataclass(frozen=True, order=True)
class Room:
    """A folder, or the loose files of one folder and layer."""

    name: str  # "cluster.splits", or "jobs: score" for loose files
    floor: str  # "jobs", "cluster", "models"
    rank: Rank  # a smaller one is higher in the house
    files: int

    @property
    def title(self) -> str:
        """The name without its floor."""
        return self.name.removeprefix(self.floor).lstrip(".:").strip()

    @property
    def short_title(self) -> str:
        """The title with one file for several: "columns +2"."""
        first, *others = self.title.split(SEPARATOR)
        return f"{first} +{len(others)}" if others else first


@dataclass(frozen=True)
class House:
    """The modules of a checkout, what each imports, and the layers that they are held to."""

    root: Path
    imports: Mapping[str, frozenset[str]]  # module -> modules
    packages: frozenset[str]  # modules that are an `__init__.py`
    layers: Mapping[str, Mapping[str, int]]  # container ("" is the root) -> child -> layer

    @classmethod
    def read(cls, root: Path) -> "House":
        """The house of the checkout at `root`, which has to be importable."""
        graph = grimp.build_graph(*PACKAGES, cache_dir=None)
        modules = sorted(graph.modules)
        imports = {m: frozenset(graph.find_modules_directly_imported_by(m)) for m in modules}
        inits = [m for m in modules if (root / m.replace(".", "/") / "__init__.py").is_file()]
        settings = tomllib.loads((root / "pyproject.toml").read_text())
        contracts = settings["tool"]["importlinter"]["contracts"]
        layers = {
            container: {
                name.strip(" ()"): place
                for place, layer in enumerate(contract["layers"])
                for name in layer.replace(":", "|").split("|")
            }
            for contract in contracts
            if contract["type"] == "layers"
            for container in contract.get("containers", [""])
        }
        return cls(root, imports, frozenset(inits), layers)

    @cached_property
    def rooms(self) -> Mapping[str, Room]:
        """The room of each module that is in one; an `__init__` of a container is in none."""
        places = {m: place for m in self.imports if (place := self._find_room(m))}
        files = Counter(name for module, (name, _) in places.items() if module not in self.packages)
        return {
            module: Room(name, module.split(".")[0], rank, files[name])
            for module, (name, rank) in places.items()
        }

    def _find_room(self, module: str) -> tuple[str, Rank] | None:
        container = ""
        rank: Rank = ()
        for part in module.split("."):
            layer = self.layers[container].get(part)
            if layer is None:
                raise ValueError(f"{module}: pyproject.toml has no layer for {part!r}")
            child = f"{container}.{part}".lstrip(".")
            rank = (*rank, layer)
            if child not in self.layers:
                if child in self.packages:
                    return child, rank
                loose = sorted(
                    name
                    for name, place in self.layers[container].items()
                    if place == layer
                    and f"{container}.{name}" in self.imports
                    and f"{container}.{name}" not in self.packages
                )
                return f"{container}: {SEPARATOR.join(loose)}", rank
            container = child
        return None

    def list_arrows(self) -> Sequence[tuple[Room, Room]]:
        """Pairs of rooms of which the first imports the second."""
        pairs = {
            (self.rooms[source], self.rooms[target])
            for source, targets in self.imports.items()
            for target in targets
            if source in self.rooms and target in self.rooms
        }
        return sorted(pair for pair in pairs if pair[0] != pair[1])

    def list_upward(self) -> Iterator[tuple[str, str]]:
        """Imports against the layers: from a lower layer to a higher, or along one layer."""
        for source, targets in self.imports.items():
            for target in targets:
                if self._is_upward(source.split("."), target.split(".")):
                    yield source, target

    def _is_upward(self, source: list[str], target: list[str]) -> bool:
        common = 0
        while source[common : common + 1] == target[common : common + 1] != []:
            common += 1
        layers = self.layers.get(".".join(source[:common]), {})
        if common >= min(len(source), len(target)):
            return False
        here, there = layers.get(source[common]), layers.get(target[common])
        return here is not None and there is not None and there <= here
