"""The exceptions for input that is refused; and which other errors may pass."""

# What the same command will meet again: nothing that a store recovers from.
_LASTING = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)


class Refusal(ValueError):
    """Raised for input that cannot be used.

    The message says what was expected, what was found and what to do. It never holds a value of a
    sensitive column. The command line prints it without a traceback and exits with code 2.
    """


class SchemaMismatch(Refusal):
    """Raised if a column is missing, or does not have the expected type or unit."""


def may_pass(error: BaseException) -> bool:
    """Whether the same command may succeed later: a store, a mount or a node failed."""
    raised = getattr(error, "cause", None) or error  # of an actor's error, the one raised in it
    return isinstance(error, OSError) and not isinstance(raised, _LASTING)
