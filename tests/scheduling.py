"""How tests are spread over processes, and which of them are quick."""

import re
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# Files of these folders start Ray and take longest: they begin first.
_LONG = tuple(
    f"tests/{room}/"
    for room in (
        "night",
        "nodes",
        "faults",
        "security",
        "bench",
        "cluster/runtime",
        "cluster/training",
    )
)
# Where the tests of `make quick` are.
_QUICK = ("tests/models/", "tests/cluster/lake/", "tests/jobs/spec/test_spec.py")
# Fixtures that start a server of S3, or Ray.
_SERVERS = {"s3_server", "rclone_server", "s3_uri", "s3_without_conditions", "ray_session"}
_CASE = re.compile(r"detectors/test_contract\.py::.*\[.*?((?:table|image|series|lone|tokens)-\w+)")


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """A file of tests goes to one process; of the detectors' contract, a detector on a layout.

    A test that ends its process, as one that hangs does, fails and is not begun again: the other
    tests of its file go on in a new process. (xdist's own schedulers of files begin it again.)
    """

    def _split_scope(self, nodeid: str) -> str:
        case = _CASE.search(nodeid)
        return case.group(1) if case else nodeid.partition("::")[0]

    def remove_node(self, node: Any) -> str | None:
        scopes = self.assigned_work.pop(node)
        left = [
            (tests, test) for tests in scopes.values() for test, done in tests.items() if not done
        ]
        if not left:
            return None
        tests, crashed = left[0]
        tests[crashed] = True
        self.workqueue.update({s: t for s, t in scopes.items() if not all(t.values())})
        for other in self.nodes:
            self._reschedule(other)
        return str(crashed)


def sort_long_first(items: list[pytest.Item]) -> None:
    """Sort tests by the folders that take longest, and leave the order of files otherwise."""
    items.sort(key=lambda item: not item.nodeid.startswith(_LONG))


def select_quick(items: list[pytest.Item]) -> list[pytest.Item]:
    """The tests of `make quick`: no server, no Ray, each detector's contract on one layout."""
    layout_of: dict[str, str] = {}
    chosen = []
    for item in items:
        if not item.nodeid.startswith(_QUICK):
            continue
        marked = item.get_closest_marker("slow") or item.get_closest_marker("thorough")
        served = _SERVERS & set(getattr(item, "fixturenames", ()))
        callspec = getattr(item, "callspec", None)
        on_s3 = callspec is not None and callspec.params.get("store") == "s3"
        if marked or served or on_s3:
            continue
        if case := _CASE.search(item.nodeid):
            layout, _, detector = case.group(1).partition("-")
            if layout_of.setdefault(detector, layout) != layout:
                continue
        chosen.append(item)
    return chosen
