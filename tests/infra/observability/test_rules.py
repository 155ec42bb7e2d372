"""Scrape configs, alert rules and dashboard: right to Prometheus, and about what is exported."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from jobs.monitoring.endpoint import make_collector_registry
from jobs.monitoring.metric_names import Metric, Sample
from tests.infra.observability import manifests
from tests.infra.observability.manifests import OBSERVABILITY, RULES
from tests.jobs.test_main import ROOT

UNIT_TESTS = Path(__file__).with_name("rules_test.yml")


def promtool(*words: str, said: bytes = b"") -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    done = subprocess.run([program, *words], input=said, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


def test_the_rules_are_rules_to_prometheus() -> None:
    promtool("check", "rules", "--lint-fatal", str(RULES))


def test_each_rule_fires_on_a_bad_series_and_is_quiet_on_a_good_one() -> None:
    promtool("test", "rules", str(UNIT_TESTS))


def test_each_rule_is_tested_both_ways() -> None:
    tested = yaml.safe_load(UNIT_TESTS.read_text())["tests"]
    cases = [case for one in tested for case in one["alert_rule_test"]]
    fires = {case["alertname"] for case in cases if case["exp_alerts"]}
    assert fires == {rule["alert"] for rule in manifests.rules()}
    for one in tested:
        good = any(
            re.search(r'watch="(good|over|mended)"', s["series"]) for s in one["input_series"]
        )
        assert good or any(not case["exp_alerts"] for case in one["alert_rule_test"]), one["name"]


def test_each_rule_says_what_is_wrong_and_its_runbook_what_to_do() -> None:
    text = (OBSERVABILITY / "README.md").read_text()
    titles = re.findall(r"^## (.+)$", text.partition("# Runbook")[2], re.MULTILINE)
    anchors = {title.lower().replace(" ", "-") for title in titles}
    linked = set()
    for rule in manifests.rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        file, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert (ROOT / file) == OBSERVABILITY / "README.md"
        linked.add(anchor)
    assert linked == anchors


def test_the_scrape_config_of_one_machine_is_one_to_prometheus() -> None:
    promtool("check", "config", str(OBSERVABILITY / "prometheus.yml"))


def test_the_scrape_config_of_kubernetes_is_one_to_prometheus(tmp_path: Path) -> None:
    """Debian's Prometheus is built without the discovery of pods: all but that is checked."""
    config: dict[str, Any] = yaml.safe_load(
        (OBSERVABILITY / "prometheus-kubernetes.yml").read_text()
    )
    for scrape in config["scrape_configs"]:
        (pods,) = scrape.pop("kubernetes_sd_configs")
        assert pods == {"role": "pod", "namespaces": {"names": ["anomaray"]}}
    config["rule_files"] = [str(RULES)]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    promtool("check", "config", str(tmp_path / "prometheus.yml"))


def test_rules_and_dashboard_name_only_what_is_in_the_catalogue() -> None:
    assert manifests.named() <= {metric.full_name for metric in Metric}


def test_the_dashboard_shows_every_metric() -> None:
    shown = "".join(manifests.queries())
    untold = {m.full_name for m in Metric if not re.search(rf"\b{m.full_name}\b", shown)}
    assert untold <= {Metric.RUN_END.full_name, Metric.DAY_END.full_name}


def test_the_dashboard_asks_in_the_language_of_prometheus(tmp_path: Path) -> None:
    asked = [{"record": f"panel:{n}", "expr": q} for n, q in enumerate(manifests.queries())]
    document = {"groups": [{"name": "dashboard", "rules": asked}]}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(document))
    promtool("check", "rules", str(tmp_path / "rules.yml"))


def test_the_panels_have_their_own_ids_and_places() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in manifests.panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        covered = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & covered, panel["title"]
        cells |= covered
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
        assert all(target["legendFormat"] for target in panel["targets"])
    ids = [panel["id"] for panel in manifests.panels()]
    assert len(set(ids)) == len(ids)


def test_what_is_exported_is_well_named_to_prometheus() -> None:
    every = [Sample(metric, tuple("x" for _ in metric.labels), 1.0) for metric in Metric]
    promtool("check", "metrics", said=generate_latest(make_collector_registry([lambda: every])))
