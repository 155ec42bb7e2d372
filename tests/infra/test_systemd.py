"""The units of one machine, as systemd reads them, and the command that they start."""

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.infra.commands import check_verb
from tests.infra.rendering import ROOT, of_kind

_NAME = "anomaray-nightly"
# `systemd-analyze security` adds up what a service could do, from 0 to 10: 2.0 was measured with
# systemd 252, and 8.5 with no more than NoNewPrivileges, ProtectSystem, ProtectHome and PrivateTmp.
_MOST_EXPOSED = 25  # in tenths, as the option wants it


def _unit(kind: str) -> configparser.ConfigParser:
    read = configparser.ConfigParser(interpolation=None, delimiters=("=",))  # keys of any case
    read.read(ROOT / f"infra/{_NAME}.{kind}")
    return read


@pytest.fixture
def units(tmp_path: Path) -> tuple[str, list[str]]:
    """`systemd-analyze`, and copies of the units whose program is there."""
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd-analyze is not installed")
    for kind in ("service", "timer"):
        text = (ROOT / f"infra/{_NAME}.{kind}").read_text()
        place = tmp_path / f"{_NAME}.{kind}"
        place.write_text(text.replace("/opt/anomaray/.venv/bin/python", sys.executable))
    return found, [str(tmp_path / f"{_NAME}.{kind}") for kind in ("service", "timer")]


def test_systemd_has_nothing_against_the_units(units: tuple[str, list[str]]) -> None:
    analyze, paths = units
    done = subprocess.run([analyze, "verify", *paths], capture_output=True, text=True, check=False)
    about = [line for line in done.stderr.splitlines() if _NAME in line]
    assert not about
    assert done.returncode == 0, done.stderr


def test_the_service_can_do_little_to_its_machine(units: tuple[str, list[str]]) -> None:
    analyze, (service, _) = units
    command = [analyze, "security", "--offline=true", f"--threshold={_MOST_EXPOSED}", service]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_service_runs_a_verb_as_nobody_else_and_is_started_by_its_timer_alone() -> None:
    unit = _unit("service")
    service = unit["Service"]
    assert service["User"] == "anomaray"
    program, *words = service["ExecStart"].replace("\\\n", " ").split()
    assert program == f"{service['WorkingDirectory']}/.venv/bin/python"
    assert words[:2] == ["-m", "jobs"]
    check_verb(words[2:])
    assert "Install" not in unit  # enabled by itself, it would start with the machine


def test_what_the_service_writes_has_a_place_that_is_its_own() -> None:
    service = _unit("service")["Service"]
    assert service["ProtectSystem"] == "strict"
    assert f"HOME=/var/lib/{service['StateDirectory']}" in service["Environment"].split()
    assert service["PrivateTmp"] == "true"  # where Ray keeps its sessions


def test_a_night_that_fails_is_tried_again_and_then_stays_failed_until_the_next() -> None:
    unit = _unit("service")
    assert unit["Service"]["Restart"] == "on-failure"
    assert int(unit["Unit"]["StartLimitBurst"]) > 1
    assert unit["Unit"]["StartLimitIntervalSec"] == unit["Service"]["TimeoutStartSec"] == "20h"


def test_the_timer_runs_when_the_night_of_the_cluster_does_and_makes_up_for_a_missed_one() -> None:
    timer = _unit("timer")["Timer"]
    minute, hour, *rest = of_kind("cpu", "CronJob")["nightly"]["spec"]["schedule"].split()
    assert rest == ["*", "*", "*"]
    assert timer["OnCalendar"] == f"*-*-* {int(hour):02}:{int(minute):02}:00 UTC"
    assert timer["Persistent"] == "true"
