"""The routes of transfers."""

import time
from collections import Counter
from typing import Any

import msgspec
from flask import Blueprint, Response

from coordinator.http import access, reading, schemas
from coordinator.http.problems import Refuse, problem
from coordinator.http.request_log import note
from coordinator.queue import Answer, Excuse, InUse, NotDone, Refused, Settled, Ticket
from coordinator.settings import Engine
from coordinator.telemetry.logs import few
from coordinator.transfers import PENDING, Pending, Transfers
from ledger.decide import refuse_reuse
from ledger.ids import transfer_id
from ledger.model import Transfer
from shard_client.transfers import StoredTransfer

_POLL_S = 0.05
# After so many items of a batch others of the process have their turn.
_TURN = 200


def blueprint(transfers: Transfers, engine: Engine) -> Blueprint:
    """The routes, on these transfers."""
    routes = Blueprint("transfers", __name__)

    @routes.post("/v1/transfers")
    def transfer() -> Response:
        key = reading.idempotency_key()
        asked = _transfer(reading.body(schemas.TransferRequest), key, time.time_ns() // 1000)
        note(transfer_id=asked.id)
        timeout_s = engine.request_deadline_ms / 1000
        try:
            tickets = transfers.submit([asked], timeout_s, is_batch=False)
        except InUse as error:
            return _respond_in_use(asked, error.ticket)
        answer = transfers.wait(tickets, reading.wait_preference())[0]
        note(gtrid=_gtrid_of(tickets[0], answer))
        return _respond(asked.id, answer)

    @routes.get("/v1/transfers/<transfer>")
    def show_transfer(transfer: str) -> Response:
        found = transfers.find(transfer)
        give_up = time.monotonic() + reading.wait_preference()
        while isinstance(found, Pending) and time.monotonic() < give_up:
            time.sleep(_POLL_S)
            found = transfers.find(transfer)
        if found is None:
            raise Refuse(404, "not-found", f"there is no transfer {reading.shown(transfer)}")
        if isinstance(found, Pending):
            return reading.json(schemas.PendingTransfer(transfer))
        note(gtrid=found.gtrid)
        return reading.json(schemas.transfer_view(found))

    @routes.post("/v1/transfers/batch")
    def batch() -> Response:
        return reading.json(schemas.TransferResults(_batch(transfers, engine)))

    return routes


def _transfer(asked: schemas.TransferRequest, key: str, now: int) -> Transfer:
    """The transfer that a valid request wishes for. Raises Refuse."""
    metadata = None
    if asked.metadata is not None:
        _check_depth(asked.metadata)
        # Sorted, so that the same object always is the same text.
        metadata = msgspec.json.encode(asked.metadata, order="sorted").decode()
        size = len(metadata.encode())
        if size > schemas.METADATA_MAX_BYTES:
            detail = (
                f"metadata takes {size} bytes, more than {schemas.METADATA_MAX_BYTES}; "
                "nothing has happened"
            )
            raise Refuse(400, "malformed", detail)
    return Transfer(
        transfer_id(asked.source, key),
        key,
        asked.source,
        asked.destination,
        asked.amount,
        asked.currency,
        metadata,
        "" if asked.protocol is msgspec.UNSET else asked.protocol,
        now,
    )


def _check_depth(metadata: dict[str, Any]) -> None:
    """Refuse metadata whose objects and arrays are nested too deep. Raises Refuse."""
    containers: list[Any] = [metadata]
    for _ in range(schemas.METADATA_MAX_DEPTH):
        containers = [
            child
            for item in containers
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, dict | list)
        ]
        if not containers:
            return
    detail = (
        f"metadata is nested deeper than {schemas.METADATA_MAX_DEPTH} levels; nothing has happened"
    )
    raise Refuse(400, "malformed", detail)


def _respond_in_use(asked: Transfer, at_work: Ticket) -> Response:
    """The answer to a transfer that this process has at hand already."""
    refusal = refuse_reuse(at_work.transfer, asked)
    if refusal:
        return _respond(asked.id, Refused(refusal))
    if at_work.is_pending_told:
        at_work.latch.wait(time.monotonic() + reading.wait_preference())
        return _respond(asked.id, at_work.answer or PENDING)
    detail = (
        f"a request with the key {reading.shown(asked.key)} of {asked.source} is being worked on "
        "at this moment; nothing has happened by this one"
    )
    raise Refuse(409, "idempotency-key-in-use", detail, asked.id)


def _pending(transfer: str) -> Response:
    answer = reading.json(schemas.PendingTransfer(transfer), 202)
    answer.headers["Location"] = f"/v1/transfers/{transfer}"
    return answer


def _respond(transfer: str, answer: Answer | Pending) -> Response:
    """The answer to one transfer."""
    if isinstance(answer, Pending):
        return _pending(transfer)
    if isinstance(answer, NotDone):
        status = 500 if answer.excuse is Excuse.INTERNAL_ERROR else 503
        detail = f"{answer.detail}; nothing has happened by this request"
        return problem(status, answer.excuse.value, detail, transfer)
    if isinstance(answer, Refused):
        detail = f"{answer.refusal.detail}; nothing has happened by this request"
        return problem(422, answer.refusal.reason, detail, transfer)
    return _respond_settled(answer)


def _respond_settled(answer: Settled) -> Response:
    stored = answer.stored
    if stored.status == "committed":
        response = reading.json(schemas.transfer_view(stored), 201)
    else:
        detail = f"{stored.detail}; no money has moved"
        if stored.transfer.protocol == "saga":
            detail += f", or what had left {stored.transfer.source} is given back to it"
        response = problem(422, stored.reason or "", detail, stored.transfer.id)
    if answer.is_replay:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def _gtrid_of(ticket: Ticket, answer: Answer | Pending) -> str | None:
    """The group that has brought a transfer about, or the last one that may have."""
    return answer.stored.gtrid if isinstance(answer, Settled) else ticket.gtrid or None


def _batch(transfers: Transfers, engine: Engine) -> list[schemas.TransferResult]:
    batch = reading.body(schemas.TransferBatch).transfers
    if len(batch) > schemas.BATCH_MAX:
        detail = f"{len(batch)} transfers are more than {schemas.BATCH_MAX}; nothing has happened"
        raise Refuse(413, "too-large", detail)
    access.charge(len(batch))
    results: list[schemas.TransferResult | None] = [None] * len(batch)
    places: list[int] = []
    asked: list[Transfer] = []
    decoder = msgspec.json.Decoder(schemas.TransferItem)
    now = time.time_ns() // 1000
    for index, raw in enumerate(batch):
        if index % _TURN == _TURN - 1:
            time.sleep(0)
        try:
            item = decoder.decode(raw)
            asked.append(_transfer(item, item.idempotency_key, now))
            places.append(index)
        except Refuse as error:
            results[index] = _malformed(error.detail)
        except (ValueError, RecursionError) as error:
            results[index] = _malformed(reading.explain(raw, error))
    tickets = transfers.submit(asked, engine.batch_deadline_ms / 1000, is_batch=True)
    answers = transfers.wait(tickets, reading.wait_preference())
    for index, transfer, answer in zip(places, asked, answers, strict=True):
        results[index] = _result(transfer.id, answer)
    told = [result for result in results if result is not None]
    gtrids = dict.fromkeys(map(_gtrid_of, tickets, answers))
    counts: Counter[str] = Counter(result.status for result in told)
    note(transfers=len(told), **counts, gtrids=few(filter(None, gtrids)))
    return told


def _malformed(detail: str) -> schemas.TransferResult:
    return schemas.TransferResult(None, "rejected", "malformed", detail)


def _result(transfer: str, answer: Answer | Pending) -> schemas.TransferResult:
    """The answer to one item of a batch."""
    if isinstance(answer, Settled):
        stored: StoredTransfer = answer.stored
        return schemas.TransferResult(
            transfer,
            stored.status,  # type: ignore[arg-type]
            stored.reason,
            stored.detail,
            answer.is_replay,
        )
    if isinstance(answer, Refused):
        reason, detail, _ = answer.refusal
        return schemas.TransferResult(transfer, "rejected", reason, detail)
    if isinstance(answer, NotDone):
        return schemas.TransferResult(transfer, "failed", answer.excuse.value, answer.detail)
    return schemas.TransferResult(transfer, "pending")
