"""Reads the YAML of a spec: plain values, and the line of every key."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import yaml

from models.refusal import Refusal

Key = tuple[str | int, ...]  # the path to a value: ("columns", "duration", "role")

MOST_BYTES = 1 << 20  # a spec of 5,000 columns has about 300 kB
MOST_NODES = 200_000  # bounds the growth by aliases and by merge keys ("billion laughs")
MOST_DEPTH = 50  # a spec nests six levels
MOST_DIGITS = 50  # of a number; the longest float64 has 24 characters
MOST_SHOWN = 80  # characters of a value in a message
PLAIN = ("str", "int", "float", "bool", "null", "map", "seq", "merge")
# A column in a comment: `  # note: {role: keep}  # a text of its own in each row`.
_LEFT_OUT = re.compile(r"^ +# (\S.*?: +\{role: [^{}]*\})", re.MULTILINE)
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
    left_out: frozenset[str] = frozenset()  # columns whose line is a comment, as `init` writes them

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
        message = (error.problem or error.context or "it cannot be parsed")[:MOST_SHOWN]
        raise SpecRefused([f"{path}:{line}: expected YAML, but {message}"]) from error
    except yaml.YAMLError as error:
        message = str(error).replace("\n", " ")[:MOST_SHOWN]
        raise SpecRefused([f"{path}: expected YAML, but {message}"]) from error
    except RecursionError as error:
        raise SpecRefused([f"{path}: expected a spec, found YAML nested too deeply"]) from error
    if not isinstance(document, dict):
        raise SpecRefused([f"{path}:1: expected keys and values, found {type(document).__name__}"])
    return document, replace(source, left_out=frozenset(_list_left_out(text)))


def _list_left_out(text: str) -> Iterator[str]:
    for entry in _LEFT_OUT.findall(text):
        with suppress(yaml.YAMLError, RecursionError, ValueError):
            named = _Loader(entry).get_single_data()
            if isinstance(named, dict):
                yield from map(str, named)


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
    # The keys of each mapping that merges others, with those of the others; None while counted.
    merged: dict[int, int | None] = field(default_factory=dict)

    def problems(self, node: yaml.Node, key: Key, above: tuple[int, ...]) -> Iterator[str]:
        line = node.start_mark.line + 1
        self._count(1, line)
        if id(node) in above:
            self._count(MOST_NODES, line)
        if len(above) > MOST_DEPTH:
            text = f"expected at most {MOST_DEPTH} levels, found more"
            raise SpecRefused([f"{self.source.path}:{line}: {text}"])
        if node.tag not in PLAIN_TAGS:
            shown = node.tag.replace("tag:yaml.org,2002:", "!!")[:MOST_SHOWN]
            text = f"expected plain text, numbers, lists and keys, found the tag {shown!r}"
            yield f"{self.source.path}:{line}: {_prefix(key)}{text}; remove the tag"
        elif isinstance(node, yaml.ScalarNode):
            if problem := self._scalar_problem(node):
                yield f"{self.source.path}:{line}: {_prefix(key)}{problem}"
        elif isinstance(node, yaml.MappingNode):
            yield from self._mapping(node, key, (*above, id(node)))
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.source.lines[(*key, index)] = item.start_mark.line + 1
                yield from self.problems(item, (*key, index), (*above, id(node)))

    def _scalar_problem(self, node: yaml.ScalarNode) -> str | None:
        if SURROGATE.search(node.value):
            return "expected text, found half of a character (a surrogate)"
        kind = node.tag.rpartition(":")[2]
        if kind == "str":
            return None
        resolve: Any = self.loader.resolve  # which has no types
        if node.tag != resolve(yaml.ScalarNode, node.value, (True, False)):
            return (
                f"expected a value of the tag !!{kind}, found {_show(node.value)}; remove the tag"
            )
        if len(node.value) > MOST_DIGITS:
            return f"expected at most {MOST_DIGITS} digits, found {len(node.value):,}"
        return None

    def _mapping(self, node: yaml.MappingNode, key: Key, above: tuple[int, ...]) -> Iterator[str]:
        first: dict[str, int] = {}
        wrong = False
        for name, _ in node.value:
            line = name.start_mark.line + 1
            at = f"{self.source.path}:{line}: {_prefix(key)}"
            if not isinstance(name, yaml.ScalarNode):
                wrong = True
                yield f"{at}expected a name as key, found a list or keys; write one name"
                continue
            if name.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                yield f"{at}expected a name as key, found {_show(name.value)}; put it in quotes"
            elif SURROGATE.search(name.value):
                yield f"{at}expected a name as key, found half of a character (a surrogate)"
            elif name.value in first:
                text = f"duplicate key {_show(name.value)}, first in line {first[name.value]}"
                yield f"{at}{text}; remove one"
            first.setdefault(name.value, line)
        if wrong:
            return
        self._count_merged(node)
        self.loader.flatten_mapping(node)  # `<<: *alias`; the mapping's own keys come last and win
        for name, value in node.value:
            self.source.lines[(*key, name.value)] = name.start_mark.line + 1
            yield from self.problems(value, (*key, name.value), above)

    def _count_merged(self, node: yaml.Node) -> int:
        """Count the keys that a mapping has once others are merged into it, before they are."""
        if not isinstance(node, yaml.MappingNode):
            return 0  # `flatten_mapping` says what is wrong
        line = node.start_mark.line + 1
        if id(node) not in self.merged:
            self.merged[id(node)] = None
            found = 0
            for name, value in node.value:
                merge = name.tag == "tag:yaml.org,2002:merge"
                others = value.value if isinstance(value, yaml.SequenceNode) else [value]
                for other in others if merge else ():
                    found += self._count_merged(other)
                found += not merge
                if found > MOST_NODES:
                    break
            self.merged[id(node)] = found
            self._count(found, line)
        count = self.merged[id(node)]
        if count is None:
            raise SpecRefused([f"{self.source.path}:{line}: a mapping is merged into itself"])
        return count

    def _count(self, nodes: int, line: int) -> None:
        self.nodes += nodes
        if self.nodes > MOST_NODES:
            text = f"expected at most {MOST_NODES} values, found aliases that expand to more"
            raise SpecRefused([f"{self.source.path}:{line}: {text}"])


def join_key(key: Key) -> str:
    """`columns.duration.role`; parts that cannot be printed are quoted."""
    parts = [str(part)[:MOST_SHOWN] for part in key]
    return ".".join(part if part.isprintable() else ascii(part) for part in parts)


def _show(text: str) -> str:
    return repr(text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + "…")


def _prefix(key: Key) -> str:
    return f"{join_key(key)}: " if key else ""
