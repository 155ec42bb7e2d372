"""The files of infra/observability, read for tests."""

import json
import re
from functools import cache
from typing import Any

import yaml

from tests.jobs.test_main import ROOT

OBSERVABILITY = ROOT / "infra/observability"
RULES = OBSERVABILITY / "rules.yml"

_METRIC = re.compile(r"\banomaray_[a-z_]+")


@cache
def rules() -> list[dict[str, Any]]:
    """All alert rules."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@cache
def panels() -> list[dict[str, Any]]:
    """The dashboard's panels, without its rows."""
    dashboard = json.loads((OBSERVABILITY / "dashboard.json").read_text())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    """What the dashboard asks, as Grafana sends it: all watches, five minutes."""
    asked = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [q.replace("$watch", ".*").replace("$__rate_interval", "5m") for q in asked]


def named() -> set[str]:
    """Every metric that a rule or the dashboard names."""
    dashboard = (OBSERVABILITY / "dashboard.json").read_text()
    texts = [*(rule["expr"] for rule in rules()), dashboard]
    return {name for text in texts for name in _METRIC.findall(text)}
