"""No text of a library's exception passes, as it may quote a sensitive value."""

import datetime
import decimal
import ipaddress
from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from models.masking import LibraryError, describe, masked_errors, render_trace
from models.refusal import Refusal

SECRET = "4000123412345678"
QUOTING: list[Callable[[], object]] = [
    lambda: pa.array([SECRET]).cast(pa.int8()),
    lambda: pa.array([SECRET + "x"]).cast(pa.timestamp("s")),
    lambda: pa.array([int(SECRET)]).cast(pa.int32()),
    lambda: pa.array([float(SECRET + ".5")]).cast(pa.int64()),
    lambda: pa.array([1, SECRET]),
    lambda: pa.array([decimal.Decimal(SECRET)], pa.decimal128(3)),
    lambda: pc.strptime(pa.array([SECRET]), "%Y", "s"),
    lambda: float(SECRET + "it's"),
    lambda: dict[str, int]()[SECRET],
    lambda: ipaddress.ip_address(SECRET),
    lambda: datetime.datetime.fromisoformat(SECRET),
    lambda: pd.Timestamp(SECRET),
    lambda: np.array([SECRET + "x"]).astype(float),
    lambda: (SECRET + "\ud800").encode(),
    lambda: getattr(object(), SECRET),
]


@pytest.mark.parametrize("raises", QUOTING, ids=range(len(QUOTING)))
def test_no_value_stands_in_what_is_told_of_an_error(raises: Callable[[], object]) -> None:
    with pytest.raises(Exception) as quoting:
        raises()
    with pytest.raises(LibraryError) as masked, masked_errors():
        raises()
    told = str(masked.value) + describe(quoting.value) + describe(masked.value)
    assert SECRET not in told
    assert type(quoting.value).__name__ in told
    assert "test_masking.py:" in told
    assert SECRET not in render_trace(masked.value) + render_trace(quoting.value)


def test_what_is_known_to_be_harmless_is_told() -> None:
    damaged = OSError("Unexpected end of stream: Page was smaller (3) than expected (9)")
    assert describe(damaged) == "OSError: Unexpected end of stream"
    assert describe(Refusal("expected a number")) == "expected a number"


@pytest.mark.parametrize("passing", [Refusal("x"), OSError(28, "full"), MemoryError()])
def test_refusals_and_what_the_system_says_pass(passing: Exception) -> None:
    with pytest.raises(type(passing)) as told, masked_errors():
        raise passing
    assert told.value is passing
