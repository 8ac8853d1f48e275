"""Grafana's dashboards, as far as it can be checked without Grafana."""

import itertools
import json

import pytest
import yaml

from grafana.make import DASHBOARDS, made
from tests.monitoring.shipped import BOARDS, PROJECT, RECORDED, metrics, panels

every_board = pytest.mark.parametrize("board", BOARDS, ids=lambda file: file.stem)


def test_files_are_what_the_script_makes() -> None:
    assert {file.stem: file.read_text() for file in BOARDS} == {n: made(n) for n in DASHBOARDS}


@every_board
def test_panel_is_a_question_with_an_explanation_a_unit_and_a_source(board) -> None:
    (source,) = provisioned("datasources/prometheus.yml")["datasources"]
    assert panels(board)
    for panel in panels(board):
        assert panel["title"].endswith("?")
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"] == {"type": source["type"], "uid": source["uid"]}


@every_board
def test_panels_lie_beside_each_other_in_the_grid(board) -> None:
    places = [panel["gridPos"] for panel in panels(board)]
    assert all(p["x"] >= 0 and p["x"] + p["w"] <= 24 for p in places)
    cells = [
        cell
        for p in places
        for cell in itertools.product(
            range(p["x"], p["x"] + p["w"]), range(p["y"], p["y"] + p["h"])
        )
    ]
    assert len(cells) == len(set(cells))


def test_names_are_given_once() -> None:
    boards = [json.loads(file.read_text()) for file in BOARDS]
    assert len({board["uid"] for board in boards}) == len(boards)
    for file in BOARDS:
        titles = [panel["title"] for panel in panels(file)]
        ids = [panel["id"] for panel in panels(file)]
        assert len({*titles}) == len({*ids}) == len(titles)


def test_what_is_recorded_is_used() -> None:
    asked = [t["expr"] for file in BOARDS for panel in panels(file) for t in panel["targets"]]
    assert all(any(name in expression for expression in asked) for name in RECORDED)
    assert all(metrics(expression) for expression in asked if "ALERTS" not in expression)


def test_provisioning_names_where_compose_puts_the_dashboards() -> None:
    (provider,) = provisioned("dashboards/tandem.yml")["providers"]
    compose = yaml.safe_load((PROJECT / "compose.yaml").read_text())
    mounted = compose["services"]["grafana"]["volumes"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in mounted


def provisioned(name: str) -> dict:
    return yaml.safe_load((PROJECT / "grafana/provisioning" / name).read_text())
