"""Detectors by name, and their options checked: `Catalog` finds, configures and builds them."""

import dataclasses
import json
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from models.batch import Layout
from models.detectors.detector import Detector
from models.refusal import Refusal
from models.suggestion import join_names, suggest


class Catalog(dict[str, type[Detector]]):
    """Detector classes by name. Every method raises Refusal for a name that is not in it."""

    def find(self, name: str) -> type[Detector]:
        """The class of a name."""
        if name not in self:
            raise Refusal(f"unknown detector '{name}'{_list_choices(name, list(self))}")
        return self[name]

    def configure(self, name: str, options: dict[str, Any]) -> Any:
        """The checked Config of a detector; needs no layout.

        `options` are fields of its Config, as YAML or JSON gives them. Raises Refusal for an
        option that is unknown, of the wrong type or out of range.
        """
        return check_options(self.find(name).Config, name, options)

    def build(self, name: str, layout: Layout, options: dict[str, Any]) -> Detector:
        """An untrained detector for rows of a layout. Raises Refusal for columns that it cannot
        learn from, and as `configure` does."""
        kind = self.find(name)
        if lacking := kind.unfit(layout):
            raise Refusal(f"detector '{name}' does not fit these columns: {lacking}")
        return kind(layout, self.configure(name, options))


def check_options(config: Any, name: str, options: dict[str, Any]) -> Any:
    """A frozen dataclass out of options as YAML or JSON gives them; `name` is for messages."""
    hints = get_type_hints(config)
    allowed = [field.name for field in dataclasses.fields(config)]
    values = {}
    for key, value in options.items():
        if key not in allowed:
            raise Refusal(f"detector '{name}' has no option '{key}'{_list_choices(key, allowed)}")
        values[key] = _check_type(name, key, value, hints[key])
    return config(**values)


def _check_type(name: str, key: str, value: Any, hint: Any) -> Any:
    # Strict JSON rules: a list may be a tuple and 1 may be 1.0, but "1" is no number and true no 1.
    try:
        return TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    except (ValidationError, TypeError) as error:
        wanted = hint.__name__ if isinstance(hint, type) and hint.__module__ == "builtins" else hint
        raise Refusal(
            f"option '{key}' of detector '{name}': expected "
            f"{str(wanted).replace('typing.', '')}, found {value!r}"
        ) from error


def _list_choices(found: str, allowed: list[str]) -> str:
    """'; did you mean …? It is one of …'."""
    return f"{suggest(found, allowed) or ';'} expected one of: {join_names(allowed)}"
