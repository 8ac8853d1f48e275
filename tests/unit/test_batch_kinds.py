"""A batch is the same batch in each kind, and its answer has the same results."""

import json
from io import BytesIO
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from flask import Flask
from pyarrow import ipc

from coordinator.http import reading
from coordinator.http.batches import kinds
from coordinator.http.batches.kinds import ARROW, NDJSON
from coordinator.http.problems import Refuse
from coordinator.http.reading import JSON, Malformed
from coordinator.http.schemas import TransferItem, TransferResult

GOOD = {
    "idempotency_key": "k",
    "source": "a",
    "destination": "b",
    "amount": 5,
    "currency": "EUR",
}
# Items that all kinds can hold.
ITEMS: list[dict[str, Any]] = [
    GOOD,
    GOOD | {"metadata": {"b": [1, {"c": "é"}], "a": 2**70}, "protocol": "saga"},
    GOOD | {"amount": 2**63 - 1},
    GOOD | {"amount": 0},
    GOOD | {"amount": -(2**63)},
    GOOD | {"idempotency_key": " k"},
    GOOD | {"idempotency_key": "k" * 129},
    GOOD | {"source": "a b"},
    GOOD | {"destination": ""},
    GOOD | {"currency": "eur"},
    GOOD | {"protocol": "paxos"},
    GOOD | {"metadata": 5},
    {name: value for name, value in GOOD.items() if name != "amount"},
    {"source": "a"},
    {},
]


@pytest.fixture
def app() -> Flask:
    app = Flask("batches")
    app.config["MAX_CONTENT_LENGTH"] = 8 << 20
    return app


def as_json(items: list[Any]) -> bytes:
    return json.dumps({"transfers": items}).encode()


def as_lines(items: list[Any]) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


def as_arrow(items: list[Any]) -> bytes:
    rows = [
        item | ({"metadata": json.dumps(item["metadata"])} if "metadata" in item else {})
        for item in items
    ]
    texts = ("idempotency_key", "source", "destination", "currency", "metadata", "protocol")
    kinds = {name: pa.string() for name in texts} | {"amount": pa.int64()}
    columns = {
        name: pa.array([row.get(name) for row in rows], kind) for name, kind in kinds.items()
    }
    sink = BytesIO()
    batch = pa.record_batch(columns)
    with ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


WRITTEN = {JSON: as_json, NDJSON: as_lines, ARROW: as_arrow}


def items_of(app: Flask, media: str, data: bytes) -> list[TransferItem | Malformed]:
    with app.test_request_context(method="POST", data=data, content_type=media):
        return list(kinds.requested().items(reading.batch_body()))


def refused(app: Flask, media: str, data: bytes, status: int, kind: str) -> str:
    with pytest.raises(Refuse) as found:
        items_of(app, media, data)
    assert (found.value.status, found.value.kind) == (status, kind)
    assert "nothing has happened" in found.value.detail
    return found.value.detail


def test_all_kinds_give_the_same_items(app: Flask) -> None:
    wanted = items_of(app, JSON, as_json(ITEMS))
    assert [isinstance(item, Malformed) for item in wanted] == [False] * 3 + [True] * 12
    for media in (NDJSON, ARROW):
        found = items_of(app, media, WRITTEN[media](ITEMS))
        assert found == wanted, media


def test_what_an_arrow_integer_can_be_beyond(app: Flask) -> None:
    data = as_arrow([GOOD])
    assert isinstance(items_of(app, ARROW, data)[0], TransferItem)
    column = pa.array([2**63, 2**63 - 1], pa.uint64())
    columns = {name: [value] * 2 for name, value in GOOD.items()} | {"amount": column}
    sink = BytesIO()
    with ipc.new_stream(sink, pa.record_batch(columns).schema) as writer:
        writer.write_batch(pa.record_batch(columns))
    first, second = items_of(app, ARROW, sink.getvalue())
    assert (first,) == tuple(items_of(app, JSON, as_json([GOOD | {"amount": 2**63}])))
    assert isinstance(second, TransferItem)


@pytest.mark.parametrize("media", WRITTEN)
def test_a_batch_may_be_empty_and_has_a_limit(app: Flask, media: str) -> None:
    write = WRITTEN[media]
    assert items_of(app, media, write([])) == []
    assert len(items_of(app, media, write([GOOD] * 10_000))) == 10_000
    assert "10000" in refused(app, media, write([GOOD] * 10_001), 413, "too-large")


@pytest.mark.parametrize(
    ("media", "data"),
    [
        (NDJSON, b"\xff\xfe{\x00}\x00"),
        (NDJSON, as_lines([GOOD]) + b"\xff"),
        (ARROW, b""),
        (ARROW, b"{}"),
        (ARROW, as_arrow([GOOD])[:-8]),
        (ARROW, as_arrow([GOOD]) + b" "),
    ],
)
def test_a_body_that_is_none_of_its_kind(app: Flask, media: str, data: bytes) -> None:
    refused(app, media, data, 400, "malformed")


def test_a_long_item(app: Flask) -> None:
    long = GOOD | {"metadata": {"a": "x" * 33_000}}
    for media, write in WRITTEN.items():
        refused(app, media, write([GOOD, long]), 413, "too-large")


@pytest.mark.parametrize("media", ["text/plain", "application/ndjson", "application/x-arrow"])
def test_another_kind_names_those_that_are_taken(app: Flask, media: str) -> None:
    detail = refused(app, media, b"", 415, "content-type")
    for name in (media, *WRITTEN):
        assert name in detail


@pytest.mark.parametrize("media", WRITTEN)
@pytest.mark.parametrize("charset", ["utf-8", "US-ASCII", "latin-1"])
def test_a_content_type_may_have_a_charset(app: Flask, media: str, charset: str) -> None:
    given, data = f"{media.upper()}; charset={charset}", WRITTEN[media]([GOOD])
    if charset == "latin-1":
        refused(app, given, data, 415, "content-type")
    else:
        assert len(items_of(app, given, data)) == 1


@pytest.mark.parametrize("package", ["pyarrow", "numpy"])
def test_arrow_without_what_reads_it(
    app: Flask, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinds, "find_spec", lambda name: None if name == package else name)
    detail = refused(app, ARROW, as_arrow([GOOD]), 415, "content-type")
    assert "tandem[arrow]" in detail
    assert len(items_of(app, NDJSON, as_lines([GOOD]))) == 1


RESULTS = [
    TransferResult("t1", "committed"),
    TransferResult("t2", "committed", replayed=True),
    TransferResult(None, "rejected", "malformed", "it is 'é\n'"),
    TransferResult("t3", "pending"),
    TransferResult("t4", "failed", "account-busy", "try again"),
]


@pytest.fixture(params=[0, 5])
def answered(request: pytest.FixtureRequest) -> list[TransferResult]:
    return RESULTS[: request.param]


def test_all_kinds_answer_the_same(app: Flask, answered: list[TransferResult]) -> None:
    def answer(media: str) -> bytes:
        with app.test_request_context(method="POST", content_type=media):
            found = kinds.requested().answer(answered)
        assert found.status_code == 200
        assert found.headers["Content-Type"] == media
        return found.get_data()

    wanted = json.loads(answer(JSON))["results"]
    assert wanted == msgspec.to_builtins(answered)
    assert [json.loads(line) for line in answer(NDJSON).splitlines()] == wanted
    assert answer(NDJSON).endswith(b"\n") == bool(answered)
    rows = ipc.open_stream(answer(ARROW)).read_all().to_pylist()
    assert [
        {name: value for name, value in row.items() if value is not None or name == "id"}
        for row in rows
    ] == wanted
