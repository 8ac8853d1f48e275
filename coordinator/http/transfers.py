"""The views of transfers."""

import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
from flask import Response

from coordinator.engine.scheduler import InUse
from coordinator.engine.tickets import (
    Answer,
    NotExecuted,
    NotExecutedReason,
    Refused,
    Settled,
    Ticket,
    in_use,
)
from coordinator.http import access, reading, schemas
from coordinator.http.batches import kinds
from coordinator.http.problems import Refuse, problem
from coordinator.http.request_log import note
from coordinator.http.routes import View, by_name
from coordinator.services.column_transfers import ColumnTransfers
from coordinator.services.transfers import PENDING, Pending, Transfers
from coordinator.settings import Engine
from coordinator.telemetry.logs import few
from ledger.decide import refuse_reuse
from ledger.ids import transfer_id
from ledger.model import Transfer
from shard_client.records import StoredTransfer

_POLL_S = 0.05
# After so many answers of a batch others of the process have their turn.
_TURN = 1000
_STATUS = {
    NotExecutedReason.INTERNAL_ERROR: 500,
    NotExecutedReason.KEY_IN_USE: 409,
    NotExecutedReason.PROTOCOL: 400,
}


def views(transfers: Transfers, by_columns: ColumnTransfers, engine: Engine) -> dict[str, View]:
    """The views, on these transfers."""

    def make_transfer() -> Response:
        key, patience_s = reading.idempotency_key(), reading.wait_preference()
        asked = _transfer(reading.body(schemas.TransferRequest), key, time.time_ns() // 1000)
        note(transfer_id=asked.id)
        timeout_s = engine.request_deadline_ms / 1000
        try:
            tickets = transfers.submit([asked], timeout_s, access.caller(), is_batch=False)
        except InUse as error:
            return _respond_in_use(asked, error.ticket, patience_s)
        answer = transfers.wait(tickets, patience_s)[0]
        note(gtrid=_gtrid_of(tickets[0], answer))
        return _respond(asked.id, answer)

    def show_transfer(transfer: str) -> Response:
        give_up = time.monotonic() + reading.wait_preference()
        found = transfers.find(transfer)
        while isinstance(found, Pending) and time.monotonic() < give_up:
            time.sleep(_POLL_S)
            found = transfers.find(transfer)
        if found is None:
            raise Refuse(404, "not-found", f"there is no transfer {reading.shown(transfer)}")
        if isinstance(found, Pending):
            return reading.json(schemas.PendingTransfer(transfer))
        note(gtrid=found.gtrid)
        return reading.json(schemas.transfer_view(found))

    def make_transfers() -> Response:
        patience_s, kind = reading.wait_preference(), kinds.requested()
        body = reading.batch_body()
        taken = kind.columns(body) if by_columns.are_taken else None
        if taken is None:
            return kind.answer(_batch(transfers, engine, kind.items(body), patience_s))
        return kind.told(_columns(by_columns, engine, taken, patience_s))

    return by_name(make_transfer, show_transfer, make_transfers)


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


def _respond_in_use(asked: Transfer, at_work: Ticket, patience_s: float) -> Response:
    """The answer to a transfer that this process has at hand already."""
    if at_work.is_pending_told and not refuse_reuse(at_work.transfer, asked):
        at_work.latch.wait(time.monotonic() + patience_s)
        return _respond(asked.id, at_work.answer or PENDING)
    return _respond(asked.id, in_use(asked))


def _pending(transfer: str) -> Response:
    answer = reading.json(schemas.PendingTransfer(transfer), 202)
    answer.headers["Location"] = f"/v1/transfers/{transfer}"
    return answer


def _respond(transfer: str, answer: Answer | Pending) -> Response:
    """The answer to one transfer."""
    if isinstance(answer, Pending):
        return _pending(transfer)
    if isinstance(answer, NotExecuted):
        status = _STATUS.get(answer.reason, 503)
        detail = f"{answer.detail}; nothing has happened by this request"
        return problem(status, answer.reason.value, detail, transfer)
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
        response = problem(422, stored.reason or "", detail, stored.transfer.id, stored.seq)
    if answer.is_replay:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def _gtrid_of(ticket: Ticket, answer: Answer | Pending) -> str | None:
    """The group that has brought a transfer about, or the last one that may have."""
    return answer.stored.gtrid if isinstance(answer, Settled) else ticket.gtrid or None


def _batch(
    transfers: Transfers,
    engine: Engine,
    items: Iterable[schemas.TransferItem | reading.Malformed],
    patience_s: float,
) -> list[schemas.TransferResult]:
    """Carry out a batch, in whichever kind it has come. Raises Refuse, and what `submit` raises."""
    results: list[schemas.TransferResult | None] = []
    places: list[int] = []
    asked: list[Transfer] = []
    now = time.time_ns() // 1000
    for item in items:
        try:
            if isinstance(item, reading.Malformed):
                results.append(_malformed(item.why))
                continue
            asked.append(_transfer(item, item.idempotency_key, now))
        except Refuse as error:
            results.append(_malformed(error.detail))
            continue
        places.append(len(results))
        results.append(None)
    access.charge(len(results))
    timeout_s = engine.batch_deadline_ms / 1000
    tickets = transfers.submit(asked, timeout_s, access.caller(), is_batch=True)
    answers = transfers.wait(tickets, patience_s)
    for index, transfer, answer in zip(places, asked, answers, strict=True):
        if index % _TURN == 0:
            reading.pause()
        results[index] = _result(transfer.id, answer)
    told = [result for result in results if result is not None]
    gtrids = dict.fromkeys(map(_gtrid_of, tickets, answers))
    reading.pause()
    counts: Counter[str] = Counter(result.status for result in told)
    note(transfers=len(told), **counts, gtrids=few(filter(None, gtrids)))
    return told


def _columns(
    by_columns: ColumnTransfers, engine: Engine, taken: kinds.Taken, patience_s: float
) -> kinds.Told:
    """The same for a batch that came as columns. Raises what `submit` raises."""
    others = {index: _malformed(why) for index, why in taken.faults.items()}
    count = taken.columns.size + len(others)
    access.charge(count)
    batch = by_columns.submit(taken.columns, engine.batch_deadline_ms / 1000, access.caller())
    answers, packed = by_columns.wait(batch, patience_s), batch.packed
    row_of = range(count) if taken.rows is None else taken.rows.tolist()
    for number, (index, answer) in enumerate(answers.items()):
        if number % _TURN == _TURN - 1:
            reading.pause()
        others[row_of[index]] = _result(packed.id(index), answer)
    counts: Counter[str] = Counter(result.status for result in others.values())
    counts["committed"] += count - len(others)
    note(transfers=count, **counts)
    return kinds.told_of(taken, batch, others)


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
            stored.seq,
        )
    if isinstance(answer, Refused):
        reason, detail, _ = answer.refusal
        return schemas.TransferResult(transfer, "rejected", reason, detail)
    if isinstance(answer, NotExecuted):
        # The same again would be refused again.
        is_for_good = answer.reason is NotExecutedReason.PROTOCOL
        return schemas.TransferResult(
            transfer, "rejected" if is_for_good else "failed", answer.reason.value, answer.detail
        )
    return schemas.TransferResult(transfer, "pending")
