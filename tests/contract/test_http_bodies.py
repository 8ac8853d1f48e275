"""Bodies that are too large, or of another content type: 413 and 415, and nothing happens."""

import json
from collections.abc import Iterator

import pytest

from tests.cluster import Cluster
from tests.contract.http import Town, is_problem, item, results, visit, wish

JSON = {"Content-Type": "application/json"}
KEY = {"Idempotency-Key": "k"}


@pytest.fixture
def town(cluster: Cluster) -> Town:
    return visit(cluster)


@pytest.fixture
def ends(town: Town) -> tuple[str, str]:
    """A rich account on one shard and another account on the other."""
    return town.pair(funds=10_000)


WRITES = [
    ("POST", "/v1/transfers"),
    ("POST", "/v1/transfers/batch"),
    ("POST", "/v1/accounts/batch"),
    ("PUT", "/v1/accounts/NAME"),
    ("PATCH", "/v1/accounts/NAME"),
]


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", "", None])
@pytest.mark.parametrize(("method", "path"), WRITES)
def test_a_wrong_content_type(town: Town, method: str, path: str, media: str | None) -> None:
    headers = KEY | ({} if media is None else {"Content-Type": media})
    with town.unchanged():
        answer = town.api.request(
            method, path.replace("NAME", town.name()), content=b"{}", headers=headers
        )
        is_problem(answer, 415, "content-type", "application/json")


@pytest.mark.parametrize("media", ["application/json; charset=utf-8", "Application/JSON"])
def test_other_names_of_the_content_type(town: Town, ends: tuple[str, str], media: str) -> None:
    headers = {"Content-Type": media, **KEY}
    answer = town.api.post("/v1/transfers", content=json.dumps(wish(*ends, 5)), headers=headers)
    assert answer.status_code == 201


LIMIT = 8 << 20
# Of whatever is no batch.
SINGLE = 32 << 10


def limit_of(path: str) -> int:
    return LIMIT if path.endswith("/batch") else SINGLE


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_a_body_over_the_limit(town: Town, method: str, path: str) -> None:
    address = path.replace("NAME", town.name())
    with town.unchanged():
        answer = town.api.request(
            method, address, content=b" " * (limit_of(path) + 1), headers=JSON | KEY
        )
        is_problem(answer, 413, "too-large")


def in_chunks(text: bytes, size: int, chunk: int = 1 << 16) -> Iterator[bytes]:
    """A body of this size that comes piece by piece, padded with what JSON overlooks."""
    yield text
    sent = len(text)
    while sent < size:
        piece = min(chunk, size - sent)
        yield b" " * piece
        sent += piece


@pytest.mark.parametrize("size", [0, 1 << 14, SINGLE])
def test_a_body_in_chunks(town: Town, ends: tuple[str, str], size: int) -> None:
    content = in_chunks(json.dumps(wish(*ends, 5)).encode(), size, chunk=1 << 12)
    answer = town.api.post("/v1/transfers", content=content, headers=JSON | KEY)
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize("size", [SINGLE + 1, SINGLE + (1 << 20)])
def test_a_body_in_chunks_over_the_limit(town: Town, ends: tuple[str, str], size: int) -> None:
    with town.unchanged():
        content = in_chunks(json.dumps(wish(*ends, 5)).encode(), size)
        answer = town.api.post("/v1/transfers", content=content, headers=JSON | KEY)
        is_problem(answer, 413, "too-large")


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1])
def test_a_batch_in_chunks(town: Town, ends: tuple[str, str], size: int) -> None:
    content = in_chunks(json.dumps({"transfers": [item(*ends, 5, "k")]}).encode(), size)
    answer = town.api.post("/v1/transfers/batch", content=content, headers=JSON)
    if size > LIMIT:
        is_problem(answer, 413, "too-large")
    else:
        assert [result["status"] for result in results(answer)] == ["committed"]
