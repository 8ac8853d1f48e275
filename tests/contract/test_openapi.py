"""The OpenAPI document: what it says, and that the service does as it says."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from coordinator.http.openapi import document
from tests.cluster import Cluster
from tests.contract.http import Town, visit
from tests.contract.stores import is_group

ROOT = Path(__file__).parents[2]
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
DRAFT = "https://json-schema.org/draft/2020-12/schema"
CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


@pytest.fixture
def town(cluster: Cluster) -> Town:
    return visit(cluster)


def test_the_document_is_served(town: Town) -> None:
    for api in (town.api, town.other):
        answer = api.get("/openapi.json")
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.json() == document()
        assert answer.json()["openapi"].startswith("3.1.")


def test_every_part_of_the_contract_is_in_the_document() -> None:
    found = {
        (method.upper(), path)
        for path, operations in document()["paths"].items()
        for method in operations
    }
    assert found == {
        ("PUT", "/v1/accounts/{id}"),
        ("GET", "/v1/trial-balance"),
        ("PATCH", "/v1/accounts/{id}"),
        ("GET", "/v1/accounts/{id}"),
        ("POST", "/v1/accounts/batch"),
        ("GET", "/v1/accounts/{id}/entries"),
        ("GET", "/v1/accounts/{id}/balance"),
        ("GET", "/v1/balances"),
        ("POST", "/v1/transfers"),
        ("GET", "/v1/transfers/{id}"),
        ("POST", "/v1/transfers/batch"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
        ("GET", "/v1/admin/cluster"),
        ("GET", "/v1/admin/in-doubt"),
        ("POST", "/v1/admin/in-doubt/{gtrid}/resolve"),
        ("GET", "/v1/admin/transfers/{id}"),
        ("GET", "/v1/admin/events"),
        ("GET", "/v1/events"),
        ("POST", "/v1/admin/leader/step-down"),
    }


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(item) for item in value.values()))
    if isinstance(value, list):
        return set().union(*(references(item) for item in value))
    return set()


def test_every_reference_leads_somewhere_and_every_schema_is_used() -> None:
    schemas = document()["components"]["schemas"]
    known = {f"#/components/schemas/{name}" for name in schemas}
    assert references(document()["paths"]) <= known
    assert references(document()) == known
    for schema in schemas.values():
        jsonschema_rs.meta.validate(
            {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema
        )


@pytest.mark.parametrize(
    ("value", "is_good"),
    [("1", True), ("9223372036854775807", True), ("0", False), ("9223372036854775808", False)],
)
def test_the_document_knows_the_limits_of_amounts(value: str, is_good: bool) -> None:
    schema = {
        "$ref": "#/components/schemas/TransferRequest",
        "components": document()["components"],
    }
    body = {"source": "a", "destination": "b", "amount": int(value), "currency": "EUR"}
    assert jsonschema_rs.validator_for(schema).is_valid(body) is is_good


# An account may be called "batch", so that /v1/accounts/batch has the methods of /v1/accounts/{id}
# too; likewise with transfers. test_a_wrong_method looks at Allow.
ON_SHARDS = ["--exclude-checks", "allow_header_conformance"]
# Fewer: what is above the shards is the same. A protocol that a group does not offer is 400, though
# it is well formed, and the stream of its events goes on until its reader gives up.
ON_A_GROUP = [
    *("--exclude-checks", "allow_header_conformance,positive_data_acceptance"),
    *("--exclude-path", "/v1/events", "--phases", "fuzzing", "--max-examples", "5"),
]


def test_schemathesis_finds_no_fault(cluster: Cluster) -> None:
    """All checks, a fixed seed, so many examples of each operation; see schemathesis.toml."""
    command = [
        *(str(SCHEMATHESIS), "--config-file", str(CONFIGURATION)),
        *("run", f"{cluster.urls[0]}/openapi.json", "--no-color", "--checks", "all"),
        *(ON_A_GROUP if is_group(cluster) else ON_SHARDS),
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
