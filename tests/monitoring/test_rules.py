"""Alert rules: valid, each with its three cases, its annotations and its page."""

import re
import subprocess
from typing import Any

import pytest
import yaml

from tandem.local.servers import find_prometheus
from tests.monitoring.shipped import (
    ALERTS,
    CASES,
    PROJECT,
    PROMETHEUS,
    RULES,
    Alert,
    is_of_groups,
    metrics,
)

KINDS = ("fires", "just below", "series missing")
every_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)


def promtool(*arguments: object) -> None:
    command = [find_prometheus(print).promtool, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


def cases() -> dict[str, list[dict[str, Any]]]:
    """The tests of promtool by the alert and kind that their names begin with."""
    found: dict[str, list[dict[str, Any]]] = {}
    for file in CASES:
        for test in yaml.safe_load(file.read_text())["tests"]:
            found.setdefault(test["name"].partition(",")[0], []).append(test)
    return found


def test_configuration_and_rules_are_valid() -> None:
    promtool("check", "config", PROMETHEUS / "prometheus.yml")
    promtool("check", "rules", *RULES)


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_cases_hold(file) -> None:
    promtool("test", "rules", file)


def test_every_alert_has_its_three_cases_and_no_others_are_there() -> None:
    assert sorted(cases()) == sorted(f"{a.name}: {kind}" for a in ALERTS for kind in KINDS)


def wanted(test: dict[str, Any]) -> set[str]:
    """The alerts that a case wants to fire."""
    told = [each["alertname"] for each in test.get("alert_rule_test", []) if "exp_alerts" in each]
    samples = [each["exp_samples"] for each in test.get("promql_expr_test", [])]
    return {*told, *re.findall(r'alertname="(\w+)", alertstate="firing"', str(samples))}


@pytest.mark.parametrize("name", cases())
def test_case_is_about_its_alert(name: str) -> None:
    alert, _, kind = name.partition(": ")
    for test in cases()[name]:
        assert alert in str({key: value for key, value in test.items() if key != "name"})
        if kind == "fires":
            assert wanted(test) == {alert}
        elif kind == "just below":
            assert wanted(test) == set()
        else:
            # Never silent.
            assert wanted(test) & {alert, "MetricsMissing", "CoordinatorDown"}


@every_alert
def test_alert_says_what_it_means(alert: Alert) -> None:
    assert set(alert.annotations) == {"summary", "money", "next", "page"}
    assert alert.severity in ("critical", "warning")
    assert alert.annotations["page"].startswith("docs/operations/")


@every_alert
def test_page_of_an_alert_names_it(alert: Alert) -> None:
    page = (PROJECT / alert.annotations["page"]).read_text()
    assert f"`{alert.name}`" in page
    for heading in ("money", "look at", "type", "worry"):
        assert re.search(rf"^## .*{heading}", page, re.MULTILINE | re.IGNORECASE), heading


@every_alert
def test_alert_is_in_the_table_for_operators(alert: Alert) -> None:
    text = (PROJECT / "docs/operating.md").read_text()
    page = alert.annotations["page"].removeprefix("docs/")
    assert re.search(rf"^\| `{alert.name}` \| {alert.severity} \|.*\({page}\)", text, re.MULTILINE)


@every_alert
def test_summary_uses_labels_that_the_alert_has(alert: Alert) -> None:
    used = set(re.findall(r"\$labels\.(\w+)", alert.annotations["summary"]))
    (fires, *_) = cases()[f"{alert.name}: fires"]
    told = str(fires.get("promql_expr_test", "")) + str(fires.get("alert_rule_test", ""))
    assert all(re.search(rf"\b{label}\b", told.partition("exp_")[2]) for label in used)


def test_metrics_missing_watches_what_the_others_read() -> None:
    (watch,) = [alert for alert in ALERTS if alert.name == "MetricsMissing"]
    lists = re.findall(r"coordinator_\(([\w|]+)\)", watch.expression)
    of_all, of_groups = ({f"coordinator_{name}" for name in names.split("|")} for names in lists)
    others = [alert for alert in ALERTS if alert is not watch]
    read = set().union(*(metrics(alert.expression) for alert in others))
    # Buckets and counts of a histogram come together.
    read = {name.replace("_bucket", "_count") for name in read}
    # By the kind it knows whether there have to be those of ledger groups.
    assert of_all == {name for name in read if not is_of_groups(name)} | {"coordinator_shard_kind"}
    assert of_groups == {name for name in read if is_of_groups(name)}
    for watched in (of_all, of_groups):
        assert f"< {len(watched)}\n" in watch.expression
        assert f"the {len(watched)} metrics" in watch.annotations["summary"]
