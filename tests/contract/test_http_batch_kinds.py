"""Batches as NDJSON and as Arrow streams: as in JSON, and no broken stream moves money twice."""

import json
import random
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import httpx
import jsonschema_rs
import pyarrow as pa
import pytest
from pyarrow import ipc

from coordinator.http.openapi import document
from ledger.ids import transfer_id
from tests.cluster import Cluster
from tests.contract.http import Town, is_problem, item, placeless, results, visit

PATH = "/v1/transfers/batch"
NDJSON = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"
TEXTS = ("idempotency_key", "source", "destination", "currency", "metadata", "protocol")

Items = list[dict[str, Any]]


@pytest.fixture
def town(cluster: Cluster) -> Town:
    return visit(cluster)


@pytest.fixture
def api(town: Town) -> Iterator[httpx.Client]:
    """A client that leaves it to the test to read what is no JSON."""
    with httpx.Client(base_url=town.urls[0], timeout=60) as client:
        yield client


def as_lines(items: Items) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in items)


def as_arrow(items: Items, compression: str | None = None) -> bytes:
    columns = {
        name: pa.array([one.get(name) for one in items], pa.string())
        for name in TEXTS
        if name != "metadata"
    }
    columns["metadata"] = pa.array(
        [json.dumps(one["metadata"]) if "metadata" in one else None for one in items], pa.string()
    )
    columns["source"] = columns["source"].dictionary_encode()
    columns["amount"] = pa.array([one.get("amount") for one in items], pa.int64())
    batch, sink = pa.record_batch(columns), BytesIO()
    options = ipc.IpcWriteOptions(compression=compression)
    with ipc.new_stream(sink, batch.schema, options=options) as stream:
        stream.write_batch(batch)
    return sink.getvalue()


def from_lines(data: bytes) -> Items:
    return [json.loads(line) for line in data.splitlines()]


def from_arrow(data: bytes) -> Items:
    rows = ipc.open_stream(data).read_all().to_pylist()
    return [
        {name: value for name, value in row.items() if value is not None or name == "id"}
        for row in rows
    ]


WRITE: dict[str, Callable[[Items], bytes]] = {NDJSON: as_lines, ARROW: as_arrow}
READ: dict[str, Callable[[bytes], Items]] = {NDJSON: from_lines, ARROW: from_arrow}
MEDIA = list(WRITE)


def post(api: httpx.Client, media: str, data: bytes) -> httpx.Response:
    return api.post(PATH, content=data, headers={"Content-Type": media})


def read(answer: httpx.Response) -> Items:
    """The results of a batch that was taken; each is as the OpenAPI document says."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Request-Id"]
    media = answer.headers["Content-Type"]
    described = document()["paths"][PATH]["post"]
    assert media in described["requestBody"]["content"]
    assert media in described["responses"]["200"]["content"]
    found = READ[media](answer.content)
    components = {"components": document()["components"]}
    schema = {"$ref": "#/components/schemas/TransferResult"} | components
    validator = jsonschema_rs.validator_for(schema)
    assert all(map(validator.is_valid, found))
    return found


def send(api: httpx.Client, media: str, items: Items) -> Items:
    answer = post(api, media, WRITE[media](items))
    assert answer.headers["Content-Type"] == media, answer.text
    found = read(answer)
    assert len(found) == len(items)
    return found


def every_kind_of_item(town: Town, alice: str, bob: str) -> Items:
    nobody = town.name()
    return [
        item(alice, bob, 60, "a"),
        item(alice, bob, 60, "b"),
        item(bob, alice, 30, "c"),
        item(alice, bob, 60, "d"),
        item(alice, bob, 60, "a"),
        item(alice, bob, 61, "a"),
        item(alice, nobody, 1, "e"),
        item(alice, alice, 1, "g"),
        item(alice, bob, 0, "h"),
        {"source": alice},
        item(alice, bob, 1, "i") | {"currency": "USD"},
        item(alice, bob, 1, "j") | {"metadata": {"b": "é", "a": [1]}, "protocol": "saga"},
    ]


@pytest.mark.parametrize("media", MEDIA)
def test_the_same_results_as_in_json(town: Town, api: httpx.Client, media: str) -> None:
    def without_names(found: Items, *names: str) -> str:
        text = json.dumps([placeless(one) | {"id": one["id"] is not None} for one in found])
        for number, name in enumerate(names):
            text = text.replace(name, f"NAME {number}")
        return text

    told = []
    for way in (JSON := "application/json", media):
        alice, bob = town.pair(funds=100)
        items = every_kind_of_item(town, alice, bob)
        if way == JSON:
            found = results(town.api.post(PATH, json={"transfers": items}))
        else:
            found = send(api, way, items)
        assert found[0]["id"] == transfer_id(alice, "a")
        assert town.balance(alice) + town.balance(bob) == 100
        told.append(without_names(found, alice, bob, items[6]["destination"]))
    assert told[0] == told[1]


@pytest.mark.parametrize("media", MEDIA)
def test_a_single_transfer_and_each_kind_are_one_thing(
    town: Town, api: httpx.Client, media: str
) -> None:
    alice, bob = town.pair(funds=10)
    wished = item(alice, bob, 5, "k") | {"metadata": {"b": 2, "a": "é"}}
    (first,) = send(api, media, [wished])
    assert placeless(first) == {"id": transfer_id(alice, "k"), "status": "committed"}
    body = {"metadata": {"a": "é", "b": 2}}
    again = town.transfer(alice, bob, 5, "k", api=town.other, **body)
    assert again.json()["id"] == first["id"]
    assert again.json()["metadata"] == body["metadata"]
    for way in MEDIA:
        assert send(api, way, [wished]) == [first | {"replayed": True}]
    assert town.balance(bob) == 5


def test_ten_thousand_items_in_each_kind(town: Town, api: httpx.Client) -> None:
    ends = [(town.account("s1", funds=1000), town.account("s2")) for _ in range(10)]
    items = [item(*ends[number % 10], 1, f"k{number}") for number in range(10_000)]
    first = send(api, NDJSON, items)
    assert {one["status"] for one in first} == {"committed"}
    with town.unchanged(but_decided=True):
        assert send(api, ARROW, items) == [one | {"replayed": True} for one in first]
    assert sum(town.balance(bob) for _, bob in ends) == 10_000


def test_a_faulty_line_is_refused_by_itself(town: Town, api: httpx.Client) -> None:
    alice, bob = town.pair(funds=10)
    good = [json.dumps(item(alice, bob, 1, key)) for key in "abc"]
    faulty = ["", "no JSON", good[0][:-1], good[0].replace("{", '{"amount": 5, ', 1), "null"]
    data = "\r\n".join([good[0], *faulty, good[1], good[2]]).encode()
    found = read(post(api, NDJSON, data))
    assert [one["status"] for one in found] == [
        "committed",
        *["rejected"] * len(faulty),
        "committed",
        "committed",
    ]
    assert all(one["reason"] == "malformed" and one["detail"] for one in found[1:6])
    assert town.balance(bob) == 3


def test_a_faulty_row_is_refused_by_itself(town: Town, api: httpx.Client) -> None:
    alice, bob = town.pair(funds=10)
    items = [item(alice, bob, 1, key) for key in "abc"]
    columns = {name: [one[name] for one in items] for name in items[0]}
    columns["metadata"] = ['{"a": 1}', '{"a": 1, "a": 2}', None]
    batch, sink = pa.record_batch(columns), BytesIO()
    with ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    found = read(post(api, ARROW, sink.getvalue()))
    assert [one["status"] for one in found] == ["committed", "rejected", "committed"]
    assert found[1]["reason"] == "malformed"
    assert "'a' occurs twice" in found[1]["detail"]
    assert town.balance(bob) == 2


@pytest.mark.parametrize("media", MEDIA)
def test_what_is_refused_as_a_whole(town: Town, api: httpx.Client, media: str) -> None:
    alice, bob = town.pair(funds=10)
    good = [item(alice, bob, 1, "k")]
    with town.unchanged():
        many = post(api, media, WRITE[media](good * 10_001))
        is_problem(many, 413, "too-large", "10000")
        is_problem(post(api, media, b"\xff" * ((8 << 20) + 1)), 413, "too-large")
        is_problem(post(api, media, WRITE[media](good) + b"\xff"), 400, "malformed")
        packed = post(api, f"{media}; charset=utf-16", WRITE[media](good))
        is_problem(packed, 415, "content-type")
        headers = {"Content-Type": media, "Content-Encoding": "gzip"}
        packed = api.post(PATH, content=WRITE[media](good), headers=headers)
        is_problem(packed, 415, "content-type")
        elsewhere = api.post("/v1/accounts/batch", content=b"", headers={"Content-Type": media})
        is_problem(elsewhere, 415, "content-type", "application/json")


def test_a_stream_that_grows_is_too_large(town: Town, api: httpx.Client) -> None:
    alice, bob = town.pair(funds=10)
    blown = [
        item(alice, bob, 1, f"k{number}") | {"metadata": {"a": "x" * 20_000}}
        for number in range(1000)
    ]
    for codec in ("lz4", "zstd"):
        data = as_arrow(blown, codec)
        assert len(data) < 1 << 20
        with town.unchanged():
            is_problem(post(api, ARROW, data), 413, "too-large", "decompressed")


# --- attacked -------------------------------------------------------------------------------


def flipped(chance: random.Random, data: bytes) -> bytes:
    """A stream in which some bits, or a few bytes, are others."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 3))):
        at = chance.randrange(len(found))
        if chance.random() < 0.7:
            found[at] ^= 1 << chance.randrange(8)
        else:
            found[at : at + 8] = chance.randbytes(8)[: len(found) - at]
    return bytes(found)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_broken_stream_moves_nothing_twice(town: Town, api: httpx.Client, seed: int) -> None:
    alice, bob = town.pair(funds=10**6)
    items = [item(alice, bob, 1000 + number, f"key-{number}") for number in range(8)]
    good = [as_arrow(items, codec) for codec in (None, "lz4")]
    moved = {one["id"]: 1000 + number for number, one in enumerate(send(api, ARROW, items))}
    chance = random.Random(seed)
    statuses = set()
    for _ in range(300):
        answer = post(api, ARROW, flipped(chance, chance.choice(good)))
        statuses.add(answer.status_code)
        if answer.status_code == 200:
            for one in read(answer):
                if one["status"] == "committed" and one["id"] not in moved:
                    # By another key, which is another transfer; and all is told of it.
                    assert not one.get("replayed")
                    shown = town.other.get(f"/v1/transfers/{one['id']}").json()
                    assert (shown["source"], shown["destination"]) == (alice, bob)
                    moved[one["id"]] = shown["amount"]
        else:
            is_problem(answer, answer.status_code, answer.json()["type"].rpartition("/")[2])
    assert statuses == {200, 400, 413}
    assert town.balance(bob) == sum(moved.values())
    assert town.balance(alice) == 10**6 - sum(moved.values())
    assert api.get("/healthz").status_code == 200
