"""The one exception for input that we refuse."""


class Refusal(ValueError):
    """Input that cannot be used.

    The message says what was expected, what was found and what to do, and never holds the raw
    value of a sensitive column. The command line prints it without a traceback and exits with 2.
    """


class SchemaMismatch(Refusal):
    """A column is missing, or has another type or unit than the one expected."""
