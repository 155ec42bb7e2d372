"""What a Terraform module declares and refers to, read without Terraform or a provider.

Of `terraform validate` it does what needs no provider's schema: names resolve, modules get their
variables. `tests/infra/provider.py` has the arguments of the resources.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hcl2

_REFERENCE = re.compile(
    r"(?<![\w.])(?:(?P<data>data)\.(?P<source>\w+)|(?P<kind>var|local|module|aws_\w+))\.(?P<name>\w+)"
    r"(?:\.(?P<output>\w+))?"
)


@dataclass(frozen=True)
class Module:
    """One folder: `declared` and `referred` are addresses such as `var.name`."""

    folder: Path
    documents: tuple[dict[str, Any], ...]

    @classmethod
    def read(cls, folder: Path) -> "Module":
        paths = sorted(folder.glob("*.tf"))
        return cls(folder, tuple(hcl2.loads(path.read_text()) for path in paths))

    def blocks(self, kind: str) -> dict[str, dict[str, Any]]:
        """Each block of a kind by its one label."""
        entries = (entry for one in self.documents for entry in one.get(kind, ()))
        return {name.strip('"'): block for entry in entries for name, block in entry.items()}

    def declared(self) -> set[str]:
        names = {f"var.{name}" for name in self.blocks("variable")}
        names |= {f"module.{name}" for name in self.blocks("module")}
        entries = (block for one in self.documents for block in one.get("locals", ()))
        names |= {f"local.{name}" for block in entries for name in block if name[:2] != "__"}
        for one in self.documents:
            names |= set(_addresses(one.get("resource", ())))
            names |= {f"data.{address}" for address in _addresses(one.get("data", ()))}
        return names

    def referred(self) -> set[str]:
        return {address for address, _ in self._references()}

    def outputs_asked(self, module: str) -> set[str]:
        """The outputs of a child that this module uses."""
        return {out for address, out in self._references() if out and address == f"module.{module}"}

    def _references(self) -> Iterator[tuple[str, str | None]]:
        for text in _texts(self.documents):
            if "${" in text:
                for found in _REFERENCE.finditer(text):
                    kind = f"data.{found['source']}" if found["data"] else found["kind"]
                    yield f"{kind}.{found['name']}", found["output"]


def _addresses(entries: Any) -> Iterator[str]:
    for entry in entries:
        for kind, named in entry.items():
            for name in named:
                if name[:2] != "__":
                    yield f"{kind}.{name}".replace('"', "")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts([key, inner])
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner)
