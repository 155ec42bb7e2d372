"""The contract of the detectors that other packages bring to this Python.

`python -m pytest --pyargs models.contract` runs it in a checkout, and `pytest --pyargs
anomaray.contract` with the installed wheel, over each entry point and each class that
ANOMARAY_DETECTORS lists.
"""

from models.contract.suite import DetectorContract, Subject
from models.detectors.catalog import CATALOG
from models.detectors.plugins import ALLOWED, GROUP, list_allowed

NAMES = [name for name in CATALOG.list_names() if name not in CATALOG]
NAMES += [entry for entry in list_allowed() if ":" in entry]


class TestInstalled(DetectorContract):
    subjects = tuple(Subject(name, CATALOG.find(name)) for name in NAMES)

    def test_it_fits_columns_that_it_is_tested_on(self, subject: Subject) -> None:
        assert subject.list_givens(), f"{subject.name} fits no layout of models.contract.layouts"


def test_there_is_a_detector_to_test() -> None:
    assert NAMES, (
        f"expected a detector to test, found none: install one with an entry point of the group "
        f"{GROUP}, or list MODULE:CLASS in {ALLOWED}"
    )
