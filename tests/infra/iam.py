"""What IAM policies say to a request to S3: the part of AWS's logic that ours use.

An explicit Deny wins, then any Allow, else it is denied (IAM user guide, "Policy evaluation
logic"). A statement with an operator that is not known here is an error, never a match.
"""

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True)
class Request:
    """One request: `context` has the condition keys that it carries."""

    action: str
    resource: str
    context: dict[str, str] = field(default_factory=dict)


def allows(statements: list[dict[str, Any]], request: Request) -> bool:
    effects = {one["Effect"] for one in statements if _applies(one, request)}
    return effects == {"Allow"}


def _applies(statement: dict[str, Any], request: Request) -> bool:
    return (
        _any(statement["Action"], request.action)
        and _any(statement["Resource"], request.resource)
        and all(
            _holds(operator, key, values, request.context)
            for operator, wanted in statement.get("Condition", {}).items()
            for key, values in wanted.items()
        )
    )


def _any(patterns: list[str], text: str) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def _holds(operator: str, key: str, wanted: Any, context: dict[str, str]) -> bool:
    if operator == "Null":
        return (key not in context) is (wanted == "true")
    if operator == "Bool":
        return context.get(key) == str(wanted)
    if operator == "StringLike":
        return key in context and _any(wanted, context[key])
    raise ValueError(f"condition operator {operator} is not known here")
