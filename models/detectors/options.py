"""`Catalog`: find, configure and build detectors by name; and how their options are checked."""

import dataclasses
import json
from collections.abc import Mapping
from inspect import isabstract
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from models.detectors.detector import Detector
from models.layout import Layout
from models.refusal import Refusal
from models.suggestion import join_names, suggest


class Catalog(dict[str, type[Detector]]):
    """Detector classes by name. Every method raises Refusal for an unknown name."""

    @classmethod
    def from_imports(cls, namespace: Mapping[str, object]) -> "Catalog":
        """The detectors that a module imports, each named like the file that defines it.

        `namespace` is the module's `globals()`. Abstract classes are left out.
        """
        kinds = [
            value
            for value in namespace.values()
            if isinstance(value, type) and issubclass(value, Detector) and not isabstract(value)
        ]
        named = {kind.__module__.rpartition(".")[2]: kind for kind in kinds}
        return cls({name: named[name] for name in sorted(named)})

    def find(self, name: str) -> type[Detector]:
        """The class of a detector."""
        if name not in self:
            raise Refusal(f"unknown detector '{name}'{_list_choices(name, self.list_names())}")
        return self[name]

    def list_names(self) -> list[str]:
        """The names that `find` knows."""
        return list(self)

    def configure(self, name: str, options: dict[str, Any]) -> Any:
        """The Config of a detector with these options, checked.

        `options` holds fields of the Config, as YAML or JSON gives them; the others keep their
        defaults. Raises Refusal for an option that is unknown, of the wrong type or out of range.
        """
        return check_options(self.find(name).Config, name, options)

    def build(self, name: str, layout: Layout, options: dict[str, Any]) -> Detector:
        """An untrained detector for rows of a layout.

        Raises Refusal for a layout that it cannot learn from, and as `configure` does.
        """
        kind = self.find(name)
        if lacking := kind.unfit(layout):
            raise Refusal(f"detector '{name}' does not fit these columns: {lacking}")
        return kind(layout, self.configure(name, options))


def check_options(config: Any, name: str, options: dict[str, Any]) -> Any:
    """A `config`, which is a frozen dataclass, made from options as YAML or JSON gives them.

    `name` is the detector's name in messages. Raises Refusal as `Catalog.configure` does.
    """
    hints = get_type_hints(config)
    allowed = [field.name for field in dataclasses.fields(config)]
    values = {}
    for key, value in options.items():
        if key not in allowed:
            raise Refusal(f"detector '{name}' has no option '{key}'{_list_choices(key, allowed)}")
        values[key] = _check_type(name, key, value, hints[key])
    return config(**values)


def _check_type(name: str, key: str, value: Any, hint: Any) -> Any:
    # Strict JSON rules: a list may become a tuple and 1 may become 1.0, but "1" is not a number
    # and true is not 1.
    try:
        return TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    except (ValidationError, TypeError) as error:
        wanted = hint.__name__ if isinstance(hint, type) and hint.__module__ == "builtins" else hint
        raise Refusal(
            f"option '{key}' of detector '{name}': expected "
            f"{str(wanted).replace('typing.', '')}, found {value!r}"
        ) from error


def _list_choices(name: str, allowed: list[str]) -> str:
    """The end of a message: "; did you mean …? expected one of: …"."""
    return f"{suggest(name, allowed) or ';'} expected one of: {join_names(allowed)}"
