"""The exceptions for input that is refused."""


class Refusal(ValueError):
    """Raised for input that cannot be used.

    The message says what was expected, what was found and what to do. It never holds a value of a
    sensitive column. The command line prints it without a traceback and exits with code 2.
    """


class SchemaMismatch(Refusal):
    """Raised if a column is missing, or does not have the expected type or unit."""
