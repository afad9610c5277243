"""Alerts and the dashboard in contrib/: each alert fires in its case, none while all is well; no name is made up."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse

from harmonylite.peer import NodeHealth, Peer
from harmonylite.status import NodeStatus
from harmonylite.web.metrics import SERVER, make_registry
from tests.needs import PROMTOOL
from tests.parts.web.fix_http import running_status

ROOT = Path(__file__).parents[3]
ALERTS = ROOT / "contrib" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "contrib" / "grafana" / "harmonylite.json"
NAMES = re.findall(r"- alert: (\w+)", ALERTS.read_text())
REGION = {"region": "eu", "primary": "us", "reachable": True, "round_trip_seconds": 0.03, "copy_behind": 0}

Case = Callable[[NodeStatus], None]


def well() -> NodeStatus:
    """Return the status of a node at which nothing is to be told."""
    status = running_status()
    status.server = dict.fromkeys(SERVER, 1.0) | {"store_limit_bytes": 1e9}
    status.region, status.schema = dict(REGION), "5ca1ab1e"
    status.peers["8"] = Peer("8", "up", time.monotonic(), time.time(), 3.0, NodeHealth(healthy=True), "5ca1ab1e")
    status.pending_rows, status.counters.published_rows = 2, 10
    return status


def lags(status: NodeStatus) -> None:
    status.shard(0).last, status.shard(0).behind_since = 99, time.monotonic() - 90


CASES: dict[str, Case] = {
    "HarmonyLiteUnhealthy": lambda status: setattr(status, "nats_connected", False),
    "HarmonyLitePartFailed": lambda status: status.part("snapshots").failed("the store refuses the key"),
    "HarmonyLiteLags": lags,
    "HarmonyLiteCannotPublish": lambda status: setattr(status.counters, "published_rows", 10),
    "HarmonyLitePeerSilent": lambda status: setattr(status.peers["8"], "state", "silent"),
    "HarmonyLiteSchemasDiffer": lambda status: setattr(status.peers["8"], "schema", "0ddba115"),
    "HarmonyLiteDiffers": lambda status: setattr(status.counters, "verify_differences", 2),
    "HarmonyLiteRegionCut": lambda status: status.region.update(reachable=False),
    "HarmonyLiteStreamsFull": lambda status: status.server.update(stored_bytes=0.9e9),
}
"""What becomes of a node that was well, by the alert that must tell of it."""

MINUTES = 90


def samples(status: NodeStatus) -> dict[str, float]:
    """Return the value of each series that a scrape of the node gives."""
    found = {}
    for family in parse(generate_latest(make_registry(status)).decode()):
        for sample in family.samples:
            labels = ", ".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def firing(tmp_path: Path, before: NodeStatus, after: NodeStatus, *, up: int = 1) -> set[str]:
    """Return the alerts that fire an hour after a node that was scraped as ``before`` is scraped as ``after``.

    What was published keeps growing, unless ``after`` says what it was before.
    """
    told, now = samples(before), samples(after)
    series = []
    for name, value in now.items():
        first = told.get(name, value)
        steps = 1 if name.startswith("harmonylite_published_rows") and value != first else 0
        series.append({"series": name, "values": f"{first}x40 {value}+{steps}x{MINUTES}"})
    series.append({"series": 'up{job="harmonylite", instance="a"}', "values": f"1x40 {up}x{MINUTES}"})
    fired = set()
    for alert in NAMES:
        test = {
            "interval": "1m",
            "input_series": series,
            "alert_rule_test": [{"eval_time": "85m", "alertname": alert, "exp_alerts": []}],
        }
        file = tmp_path / "test.json"  # JSON is YAML, too
        file.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": [test]}))
        done = promtool("test", "rules", str(file))
        if done.returncode:
            assert "exp:[\n            ]" in done.stdout + done.stderr or "got:[" in done.stdout + done.stderr
            fired.add(alert)
    return fired


def promtool(*words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool."""
    return subprocess.run(["promtool", *words], input=text, capture_output=True, text=True, check=False)  # noqa: S607


def test_each_alert_has_its_case_and_stands_in_the_docs() -> None:
    assert {*CASES, "HarmonyLiteDown"} == set(NAMES)
    documented = re.findall(r"^\| (HarmonyLite\w+) \|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    assert documented == NAMES


@PROMTOOL.mark
def test_promtool_accepts_the_rules() -> None:
    done = promtool("check", "rules", str(ALERTS))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(NAMES)} rules found" in done.stdout


@PROMTOOL.mark
def test_while_all_is_well_nothing_fires(tmp_path: Path) -> None:
    after = well()
    after.counters.published_rows += 50
    assert firing(tmp_path, well(), after) == set()


@PROMTOOL.mark
@pytest.mark.parametrize("alert", CASES)
def test_each_alert_fires_in_its_case(tmp_path: Path, alert: str) -> None:
    after = well()
    after.counters.published_rows += 50
    CASES[alert](after)
    assert alert in firing(tmp_path, well(), after)


@PROMTOOL.mark
def test_a_node_that_is_not_there_is_told(tmp_path: Path) -> None:
    after = well()
    after.counters.published_rows += 50
    assert firing(tmp_path, well(), after, up=0) == {"HarmonyLiteDown"}


def expressions(found: Any) -> list[str]:
    """Return every expression within a dashboard."""
    if isinstance(found, dict):
        own = [found["expr"]] if isinstance(found.get("expr"), str) else []
        return own + [expression for value in found.values() for expression in expressions(value)]
    return [each for value in found for each in expressions(value)] if isinstance(found, list) else []


def test_rules_and_dashboard_name_metrics_and_labels_that_there_are() -> None:
    there: dict[str, set[str]] = {}
    for family in parse(generate_latest(make_registry(well())).decode()):
        for sample in family.samples:
            there.setdefault(sample.name, set()).update(sample.labels)
    texts = [*expressions(json.loads(DASHBOARD.read_text())), *re.findall(r"expr: (.*)", ALERTS.read_text())]
    assert len(texts) > 20
    for text in texts:
        for name, labels in re.findall(r"\b((?:harmonylite|process)_\w+)(?:\{([^}]*)\})?", text):
            assert name in there, text
            assert set(re.findall(r"(\w+)\s*=~?", labels)) <= there[name] | {"job"}, text


@PROMTOOL.mark
def test_promtool_can_read_each_expression_of_the_dashboard(tmp_path: Path) -> None:
    texts = expressions(json.loads(DASHBOARD.read_text()))
    rules = [
        {"record": f"test:{n}", "expr": text.replace("$__rate_interval", "5m").replace("$node", ".*")}
        for n, text in enumerate(texts)
    ]
    file = tmp_path / "rules.json"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = promtool("check", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
