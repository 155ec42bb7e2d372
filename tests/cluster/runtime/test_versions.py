"""What differs between nodes is said by what it is and where."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from cluster.runtime.shipping import digest_code, digest_files, stage
from cluster.runtime.versions import Installed, list_differences, read_installed
from models.detectors.plugins import read_permission

HERE = Installed("2.60.0", "3.11.7", "2.13.0", "26.0.1", "0123", "none", "token")


def test_equal_nodes_differ_in_nothing() -> None:
    assert list_differences(HERE, {"10.0.0.1": HERE, "10.0.0.2": HERE}) == []
    assert read_installed().authentication == "token"


def test_each_difference_names_its_nodes() -> None:
    nodes = {f"10.0.0.{i}": replace(HERE, torch="2.12.0") for i in range(1, 8)}
    nodes["10.0.0.8"] = replace(HERE, detector_packages="sliding 1.0")
    nodes["10.0.0.9"] = replace(HERE, authentication="off")
    assert list_differences(HERE, nodes) == [
        "torch 2.12.0 instead of 2.13.0 on 10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4, 10.0.0.5 "
        "and 2 more",
        "detector packages sliding 1.0 instead of none on 10.0.0.8",
        "authentication off instead of token on 10.0.0.9",
    ]


def test_the_nodes_are_asked_for_the_packages_that_this_process_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ANOMARAY_DETECTORS", raising=False)
    assert read_installed().detector_packages == "none"
    assert read_permission() == {}
    monkeypatch.setenv("ANOMARAY_DETECTORS", "yaml.inner, no_such_package")
    assert read_installed().detector_packages == f"PyYAML {version('PyYAML')}"
    assert read_permission() == {"ANOMARAY_DETECTORS": "yaml.inner, no_such_package"}


def test_code_that_was_sent_has_the_digest_of_the_code_here(tmp_path: Path) -> None:
    stage(tmp_path)
    assert digest_files(tmp_path, ("models", "cluster", "jobs")) == digest_code()
    (tmp_path / "models" / "detector.py").write_text("other = True\n")
    assert digest_files(tmp_path, ("models", "cluster", "jobs")) != digest_code()
