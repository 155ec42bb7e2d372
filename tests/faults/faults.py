"""The faults, one function each: what it does to a run, and what an operator does then."""

from tests.faults import days, kills, requests, stops, surroundings  # noqa: F401 - each fills the table
from tests.faults.fault import FAULTS, Fault

__all__ = ["FAULTS", "Fault"]
