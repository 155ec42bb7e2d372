"""Reads the YAML of a spec: plain values, and the line of every key."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import yaml

from models.refusal import Refusal

Key = tuple[str | int, ...]  # the path to a value: ("columns", "duration", "role")

MOST_BYTES = 1 << 20  # a spec of 5,000 columns has about 300 kB
MOST_NODES = 200_000  # bounds the growth by aliases ("billion laughs")
PLAIN = ("str", "int", "float", "bool", "null", "map", "seq", "merge")
SURROGATE = re.compile("[\ud800-\udfff]")  # cannot be encoded, and so not be printed
PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in PLAIN)


class SpecRefused(Refusal):
    """A spec with problems, one a line: `file:line: key: problem`."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2.

    In PyYAML's YAML 1.1, `1e-3` is text, a column named `no` is False and `2026-01-01` is a date
    object. Here they are a number, a name and a day.
    """

    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {}  # type: ignore[misc]


for _name, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?(?:0|[1-9][0-9_]*)$", "-+0123456789"),
    (
        "float",
        r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$",
        "-+.0123456789",
    ),
    ("merge", r"^<<$", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(_pattern), list(_first))


@dataclass(frozen=True)
class Source:
    """The path of a spec as the user wrote it, and the line of every key."""

    path: str
    lines: dict[Key, int] = field(default_factory=dict)

    def line(self, key: Key) -> int:
        """The line of the key, or of the nearest key around it that has one."""
        return next(
            (self.lines[key[:n]] for n in range(len(key), 0, -1) if key[:n] in self.lines), 1
        )

    def where(self, *key: str | int) -> str:
        """`file:line` of a key."""
        return f"{self.path}:{self.line(key)}"

    def strip_positions(self, key: Key) -> Key:
        """The key without trailing list positions that are not in the file."""
        while key and isinstance(key[-1], int) and key not in self.lines:
            key = key[:-1]
        return key


def read(path: Path) -> tuple[dict[str, Any], Source]:
    """Read a spec file, which must be one plain YAML mapping.

    Raises `SpecRefused` for duplicate keys, keys that are not text, tags that create objects
    (`!!python/object`), several documents, bytes that are not UTF-8, and files above `MOST_BYTES`.
    """
    source = Source(str(path))
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise SpecRefused([f"{path}: expected a spec, found: {error.strerror}"]) from error
    if len(data) > MOST_BYTES:
        raise SpecRefused([f"{path}: expected a spec of at most {MOST_BYTES} bytes, found more"])
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpecRefused([f"{path}:{line}: expected UTF-8 text, found other bytes"]) from error
    try:
        document = _compose(text, source)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        message = error.problem or error.context or "it cannot be parsed"
        raise SpecRefused([f"{path}:{line}: expected YAML, but {message}"]) from error
    except yaml.YAMLError as error:
        raise SpecRefused([f"{path}: expected YAML, but {error}".replace("\n", " ")]) from error
    except RecursionError as error:
        raise SpecRefused([f"{path}: expected a spec, found YAML nested too deeply"]) from error
    if not isinstance(document, dict):
        raise SpecRefused([f"{path}:1: expected keys and values, found {type(document).__name__}"])
    return document, source


def _compose(text: str, source: Source) -> Any:
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            raise SpecRefused([f"{source.path}:1: expected a spec, found an empty file"])
        walk = _Walk(loader, source)
        problems = list(walk.problems(root, (), ()))
        if problems:
            raise SpecRefused(problems)
        return loader.construct_document(root)
    finally:
        loader.dispose()


@dataclass
class _Walk:
    """One pass over the nodes: records the lines and finds nodes that must not be constructed."""

    loader: _Loader
    source: Source
    nodes: int = 0

    def problems(self, node: yaml.Node, key: Key, above: tuple[int, ...]) -> Iterator[str]:
        self.nodes += 1
        line = node.start_mark.line + 1
        if self.nodes > MOST_NODES or id(node) in above:
            text = f"expected at most {MOST_NODES} values, found aliases that expand to more"
            raise SpecRefused([f"{self.source.path}:{line}: {text}"])
        if node.tag not in PLAIN_TAGS:
            shown = node.tag.replace("tag:yaml.org,2002:", "!!")
            text = f"expected plain text, numbers, lists and keys, found the tag {shown!r}"
            yield f"{self.source.path}:{line}: {_prefix(key)}{text}; remove the tag"
            return
        if isinstance(node, yaml.ScalarNode) and SURROGATE.search(node.value):
            text = "expected text, found half of a character (a surrogate)"
            yield f"{self.source.path}:{line}: {_prefix(key)}{text}"
        elif isinstance(node, yaml.MappingNode):
            yield from self._mapping(node, key, (*above, id(node)))
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.source.lines[(*key, index)] = item.start_mark.line + 1
                yield from self.problems(item, (*key, index), (*above, id(node)))

    def _mapping(self, node: yaml.MappingNode, key: Key, above: tuple[int, ...]) -> Iterator[str]:
        first: dict[str, int] = {}
        for name, _ in node.value:
            line = name.start_mark.line + 1
            at = f"{self.source.path}:{line}: {_prefix(key)}"
            if name.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                yield f"{at}expected a name as key, found {name.value!r}; put it in quotes"
            elif SURROGATE.search(name.value):
                yield f"{at}expected a name as key, found half of a character (a surrogate)"
            elif name.value in first:
                text = f"duplicate key {name.value!r}, first in line {first[name.value]}"
                yield f"{at}{text}; remove one"
            first.setdefault(name.value, line)
        self.loader.flatten_mapping(node)  # `<<: *alias`; the mapping's own keys come last and win
        for name, value in node.value:
            self.source.lines[(*key, name.value)] = name.start_mark.line + 1
            yield from self.problems(value, (*key, name.value), above)


def join_key(key: Key) -> str:
    """`columns.duration.role`; parts that cannot be printed are quoted."""
    parts = [str(part) for part in key]
    return ".".join(part if part.isprintable() else ascii(part) for part in parts)


def _prefix(key: Key) -> str:
    return f"{join_key(key)}: " if key else ""
