"""The contract of detectors, for the tests of another package and for `pytest --pyargs
anomaray.contract`. It needs pytest and hypothesis."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).with_name("checkout")))

from models.contract.suite import DetectorContract, Subject
from models.contract.test_installed import (
    TestInstalled,
    test_there_is_a_detector_to_test,
)

__all__ = ["DetectorContract", "Subject", "TestInstalled", "test_there_is_a_detector_to_test"]
