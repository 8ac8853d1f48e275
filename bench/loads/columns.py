"""A ledger group over HTTP: batches as NDJSON or as Arrow streams, with account ids and keys, or as
Arrow streams with drawn ids and the numbers that the group has given its accounts.

Clients make them column by column, so that what is measured is not how fast Python makes texts.
"""

import random
import time
from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import ipc

from bench.loads.base import Scale, Tally, run_together
from bench.loads.batches import CURRENCY, Batches, Connection
from bench.place import Place
from tandem.local.progress import Report

Kind = Literal["NDJSON", "Arrow", "Arrow numbers"]
Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]

BATCH = 8192
_DIGITS = 7
_KEY_DIGITS = 12
_ID_BYTES = 16
# Of three digits, so that all lines are of one length.
_AMOUNT_MIN, _AMOUNT_MAX = 100, 999
_PAUSE_S = 0.05
_COMMITTED = b'"status":"committed"'


class Wishes(NamedTuple):
    """Transfers: `keys` as texts of one length, a row for each; the places of both accounts among
    those of the load; and of all of these accounts the ids, as texts of one length, and the
    numbers, if they are asked for.
    """

    keys: Bytes
    source_places: Numbers
    destination_places: Numbers
    amounts: Numbers
    ids: Bytes
    numbers: Numbers

    @property
    def sources(self) -> Bytes:
        return self.ids[self.source_places]

    @property
    def destinations(self) -> Bytes:
        return self.ids[self.destination_places]


class Columns:
    """The load; with `is_hot` all pay into one account, the first."""

    def __init__(
        self, place: Place, scale: Scale, run: str, kind: Kind, *, is_hot: bool = False
    ) -> None:
        told = "account numbers" if kind == "Arrow numbers" else "ids and keys"
        media = kind.partition(" ")[0]
        self.title = f"{media} batches of {BATCH:,}, {told}" + ", one hot account" * is_hot
        self._accounts = Batches(place, scale, run, digits=_DIGITS)
        self._url, self._run, self._kind, self._is_hot = place.urls[0], run, kind, is_hot
        self._clients = scale.clients

    def set_up(self, report: Report) -> None:
        self._accounts.set_up(report)

    @property
    def ids(self) -> list[str]:
        """Those of all its accounts."""
        return self._accounts.ids()

    def open(self) -> "ColumnsRunner":
        names = [f"{self._run}-{number}" for number in range(self._clients)]
        ids, numbers = self.ids, np.empty(0, np.int64)
        if self._kind == "Arrow numbers":
            numbers = numbers_of(self._url, ids)
        return ColumnsRunner(
            [
                Client(self._url, name, ids, numbers, self._kind, is_hot=self._is_hot)
                for name in names
            ]
        )

    def violations(self, total: Tally) -> list[str]:
        return self._accounts.violations(total)

    def acknowledged(self, total: Tally) -> range:
        """See `Batches`."""
        return self._accounts.acknowledged(total)


class ColumnsRunner:
    """Clients, each in a thread of its own."""

    def __init__(self, clients: "list[Client]") -> None:
        self._clients = clients

    def run(self, seconds: float) -> Tally:
        return run_together([client.run for client in self._clients], seconds, Tally())

    def send(self, count: int) -> Tally:
        """Let the first client send so many transfers, rounded up to whole batches. Raises
        RuntimeError if they are not committed.
        """
        tally = Tally()
        while tally.committed < count:
            self._clients[0].once(tally)
            if tally.other["pending"] > max(count, BATCH):
                raise RuntimeError(f"of {count:,} transfers {tally.committed:,} were committed")
        return tally

    def close(self) -> None:
        for client in self._clients:
            client.close()


class Client:
    """Sends one batch after the other on one connection."""

    def __init__(
        self, url: str, name: str, ids: list[str], numbers: Numbers, kind: Kind, *, is_hot: bool
    ) -> None:
        self._connection = Connection(url)
        self._name, self._is_hot = name, is_hot
        self._ids = np.array([list(id_.encode()) for id_ in ids], np.uint8)
        self._numbers = numbers
        self._format = _FORMATS[kind]
        self._chance = np.random.default_rng(random.Random(name).getrandbits(64))
        self._count = 0

    def run(self, until: float) -> Tally:
        """Until that moment of the monotonic clock."""
        tally = Tally()
        while time.monotonic() < until:
            self.once(tally)
        # A coordinator closes connections that are idle for long; the next batch connects anew.
        self._connection.close()
        return tally

    def once(self, tally: Tally) -> None:
        """Send a batch and count what became of it. Raises RuntimeError if it was not taken."""
        media, write, committed = self._format
        headers = {"Content-Type": media}
        status, body = self._connection.send("/v1/transfers/batch", write(self._next()), headers)
        if status in (429, 503):
            tally.other[f"batch answered {status}"] += 1
            time.sleep(_PAUSE_S)
        elif status != 200:
            raise RuntimeError(f"a batch was answered {status}: {body[:300]!r}")
        else:
            done = committed(body)
            tally.committed += done
            if done < BATCH:
                # The answer came before they had an outcome; funds do not run out here.
                tally.other["pending"] += BATCH - done

    def close(self) -> None:
        self._connection.close()

    def _next(self) -> Wishes:
        accounts, chance = len(self._ids), self._chance
        sources = chance.integers(1, accounts, BATCH)
        # Another account than the source's.
        others = (sources + chance.integers(1, accounts, BATCH)) % accounts
        keys = with_numbers(f"{self._name}-", np.arange(self._count, self._count + BATCH))
        self._count += BATCH
        destinations = np.zeros_like(others) if self._is_hot else others
        amounts = chance.integers(_AMOUNT_MIN, _AMOUNT_MAX + 1, BATCH)
        return Wishes(keys, sources, destinations, amounts, self._ids, self._numbers)


def numbers_of(url: str, ids: list[str]) -> Numbers:
    """The numbers that a group has given accounts: each is asked for."""
    connection, numbers = Connection(url), np.empty(len(ids), np.int64)
    for place, id_ in enumerate(ids):
        numbers[place] = msgspec.json.decode(connection.get(f"/v1/accounts/{id_}"))["number"]
    connection.close()
    return numbers


def with_numbers(prefix: str, numbers: Numbers) -> Bytes:
    """Texts of one length: the prefix and a number each, with zeros in front."""
    texts = np.tile(np.frombuffer(prefix.encode(), np.uint8), (len(numbers), 1))
    return np.hstack([texts, digits(numbers, _KEY_DIGITS)])


def digits(numbers: Numbers, count: int) -> Bytes:
    """The last `count` decimal digits of each, in ASCII."""
    powers = 10 ** np.arange(count - 1, -1, -1)
    return (numbers[:, np.newaxis] // powers % 10 + ord("0")).astype(np.uint8)


def lines(wishes: Wishes) -> bytes:
    """One object for each, with a line end."""

    def text(plain: str) -> Bytes:
        return np.tile(np.frombuffer(plain.encode(), np.uint8), (len(wishes.amounts), 1))

    return np.hstack(
        [
            text('{"idempotency_key":"'),
            wishes.keys,
            text('","source":"'),
            wishes.sources,
            text('","destination":"'),
            wishes.destinations,
            text('","amount":'),
            digits(wishes.amounts, len(str(_AMOUNT_MAX))),
            text(f',"currency":"{CURRENCY}"}}\n'),
        ]
    ).tobytes()


def stream(wishes: Wishes) -> bytes:
    """An Arrow IPC stream of one record batch."""
    count = len(wishes.amounts)
    columns = {
        "idempotency_key": _texts(wishes.keys),
        "source": _texts(wishes.sources),
        "destination": _texts(wishes.destinations),
        "amount": pa.array(wishes.amounts),
        "currency": pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), [CURRENCY]),
    }
    return _written(pa.record_batch(columns))


def numbered_stream(wishes: Wishes) -> bytes:
    """The same by numbers. A drawn id has the bytes of a key, the last of them."""
    count = len(wishes.amounts)
    ids = np.zeros((count, _ID_BYTES), np.uint8)
    taken = min(_ID_BYTES, wishes.keys.shape[1])
    ids[:, :taken] = wishes.keys[:, -taken:]
    columns = {
        "id": pa.Array.from_buffers(pa.binary(_ID_BYTES), count, [None, pa.py_buffer(ids)]),
        "source": pa.array(wishes.numbers[wishes.source_places], pa.uint32()),
        "destination": pa.array(wishes.numbers[wishes.destination_places], pa.uint32()),
        "amount": pa.array(wishes.amounts),
        "currency": pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), [CURRENCY]),
    }
    return _written(pa.record_batch(columns))


def _written(records: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, records.schema) as writing:
        writing.write_batch(records)
    return bytes(sink.getvalue())


def _texts(rows: Bytes) -> pa.Array:
    count, width = rows.shape
    ends = np.arange(count + 1, dtype=np.int32) * width
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(rows.tobytes())]
    return pa.Array.from_buffers(pa.string(), count, buffers)


def _committed_lines(answer: bytes) -> int:
    return answer.count(_COMMITTED)


def _committed_rows(answer: bytes) -> int:
    statuses = ipc.open_stream(answer).read_all()["status"].to_numpy()
    return int(np.count_nonzero(statuses == "committed"))


class _Format(NamedTuple):
    media: str
    write: Callable[[Wishes], bytes]
    # How many transfers an answer says were committed.
    committed: Callable[[bytes], int]


_FORMATS: dict[Kind, _Format] = {
    "NDJSON": _Format("application/x-ndjson", lines, _committed_lines),
    "Arrow": _Format("application/vnd.apache.arrow.stream", stream, _committed_rows),
    "Arrow numbers": _Format(
        "application/vnd.apache.arrow.stream", numbered_stream, _committed_rows
    ),
}
