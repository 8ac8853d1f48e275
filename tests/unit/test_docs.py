"""The documents say what the code says: diagram, settings, problems, columns, links."""

import re
from pathlib import Path

import msgspec
import pytest
from prometheus_client.metrics import MetricWrapperBase

from coordinator.http.problems import TITLES
from coordinator.protocols.saga import SAGA
from coordinator.protocols.try_confirm_cancel import TCC
from coordinator.protocols.two_phase_commit import diagram
from coordinator.settings import NOT_SETTINGS, SECTIONS
from coordinator.telemetry.metrics import Metrics
from shard_client.schema import tables

PROJECT = Path(__file__).resolve().parents[2]
DOCS = PROJECT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *PROJECT.glob("*.md")])
FIELDS = [
    (section, field.name, field.default)
    for section, kind in SECTIONS.items()
    for field in msgspec.structs.fields(kind)
]


def test_diagram_is_the_generated_one() -> None:
    text = (DOCS / "how-it-works.md").read_text()
    assert f"```mermaid\n{diagram()}```" in text
    for protocol in (TCC, SAGA):
        for part in protocol.diagram().split("\n\n"):
            assert f"```mermaid\n{part.rstrip()}\n```" in text


@pytest.mark.parametrize(("section", "key", "default"), FIELDS)
def test_every_setting_stands_with_its_default(section: str, key: str, default: object) -> None:
    row = f"| `{section}.{key}` | `{msgspec.json.encode(default).decode()}` | "
    assert row in (DOCS / "configuration.md").read_text()


def test_no_setting_stands_that_there_is_not() -> None:
    told = re.findall(r"^\| `(\w+\.\w+)`", (DOCS / "configuration.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted(f"{section}.{key}" for section, key, _ in FIELDS)


@pytest.mark.parametrize("name", [*sorted(NOT_SETTINGS), "TANDEM_SHARDS"])
def test_every_variable_is_explained(name: str) -> None:
    assert f"`{name}" in (DOCS / "configuration.md").read_text()


def test_every_metric_is_explained_with_its_kind_and_labels() -> None:
    rows = re.findall(
        r"^\| `coordinator_(\w+)` \| (\w+) \| (.*?) \|", (DOCS / "metrics.md").read_text(), re.M
    )
    told = {(name, kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    metrics = [m for m in vars(Metrics()).values() if isinstance(m, MetricWrapperBase)]
    suffix = {"counter": "_total"}
    assert told == {
        (m._name.removeprefix("coordinator_") + suffix.get(m._type, ""), m._type, m._labelnames)
        for m in metrics
    }


def test_every_problem_is_explained() -> None:
    told = re.findall(r"^\| `([a-z-]+)` \| [0-9]{3}", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted(TITLES)


@pytest.mark.parametrize("table", tables.sorted_tables, ids=lambda table: table.name)
def test_every_column_is_explained_in_its_order(table) -> None:
    text = (DOCS / "data-model.md").read_text()
    section = re.split(r"^#+ ", text.partition(f"\n### {table.name}\n")[2], flags=re.MULTILINE)[0]
    told = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert told == [column.name for column in table.columns]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not re.match(r"\w+:", target):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_in_an_index() -> None:
    for folder in {page.parent for page in DOCS.rglob("*.md")} - {DOCS / "operations"}:
        index = (folder / "README.md").read_text()
        for page in folder.glob("*.md"):
            assert page.name == "README.md" or f"({page.name})" in index, page


def test_log_line_leads_to_its_page() -> None:
    named = re.findall(
        r"docs/[\w/-]+\.md", (PROJECT / "coordinator/recovery/branches.py").read_text()
    )
    assert named
    for name in named:
        assert (PROJECT / name).exists(), name
