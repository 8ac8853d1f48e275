"""`tandem transfer`: one transfer, followed until it is settled or until what is known is said."""

import re
import uuid
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import click

from coordinator.http import json_text
from ledger.model import AMOUNT_MAX
from tandem.cli.client import (
    PATIENCE_S,
    REACH_HINT,
    Answer,
    Client,
    GaveUp,
    Waiting,
    pauses,
    service_options,
    urls_of,
)
from tandem.cli.terminal import CommandError, UnknownOutcome, json_option, print_json, readable

# How long the service may wait for the outcome before it answers "pending".
PREFER_WAIT_S = 5
KEY = re.compile(r"[!-~]([ -~]{0,126}[!-~])?")


class Order(NamedTuple):
    """What is asked for, and the key that makes asking again safe."""

    body: dict[str, Any]
    key: str
    # Whether the key may have been used before: then an earlier request may still take effect.
    is_key_given: bool

    @property
    def headers(self) -> dict[str, str]:
        return {"Idempotency-Key": self.key, "Prefer": f"wait={PREFER_WAIT_S}"}


@click.command()
@click.argument("source")
@click.argument("destination")
@click.argument("amount", type=click.IntRange(1, AMOUNT_MAX))
@click.argument("currency")
@click.option("--key", help="The idempotency key, 1 to 128 printable ASCII characters.")
@click.option("--metadata", help="A JSON object that is kept with it: '{\"invoice\": 17}'.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=1, max=3600),
    default=PATIENCE_S,
    show_default=True,
    help="Seconds to go on trying.",
)
@json_option
@service_options
def transfer(
    source: str,
    destination: str,
    amount: int,
    currency: str,
    key: str | None,
    metadata: str | None,
    timeout_s: float,
    as_json: bool,
    url: tuple[str, ...],
    data_dir: Path,
) -> None:
    """Move AMOUNT of CURRENCY from account SOURCE to account DESTINATION: wholly or not at all.

    AMOUNT is a whole number in the currency's minor unit: 1250 EUR is 12.50 euro.

    The key makes a transfer safe to repeat: the same key from the same source never moves money
    twice, however often it is sent. Without --key a random one is made, and printed before
    anything is sent. A refusal is for good: to try again later, use another key.

    \b
    Examples:
      tandem transfer alice bob 1250 EUR
      tandem transfer alice bob 1250 EUR --key rent-2026-11 --metadata '{"month": "2026-11"}'

    \b
    Exit codes: 0 committed, 1 refused, 2 not used rightly, 3 not reachable or not known yet.
    """
    order = _order(source, destination, amount, currency, key, metadata)
    if not order.is_key_given:
        click.echo(f"Idempotency key: {order.key}", err=True)
    with Client(urls_of(url, data_dir)) as client:
        waiting = Waiting(timeout_s, on_wait=_say_waiting)
        try:
            answer = settle(client, order, waiting)
        except KeyboardInterrupt:
            raise UnknownOutcome(f"\nStopped. {_unknown(order)}") from None
    _print_outcome(answer, order, as_json)


def _order(
    source: str, destination: str, amount: int, currency: str, key: str | None, metadata: str | None
) -> Order:
    """The checked arguments."""
    if key is not None and not KEY.fullmatch(key):
        raise click.UsageError(
            f"--key {key!r} cannot be used: a key is 1 to 128 printable ASCII characters, "
            "and begins and ends with no space."
        )
    body: dict[str, Any] = {
        "source": source,
        "destination": destination,
        "amount": amount,
        "currency": currency,
    }
    if metadata is not None:
        body["metadata"] = _metadata(metadata)
    return Order(body, key or uuid.uuid4().hex, key is not None)


def _metadata(text: str) -> dict[str, Any]:
    try:
        value, why = json_text.read(text.encode())
    except (ValueError, RecursionError) as error:
        value, why = None, str(error)
    if not isinstance(value, dict) or why:
        because = f" ({why})" if why else ""
        raise click.UsageError(
            f"--metadata {text!r} is no JSON object{because}; give one like '{{\"invoice\": 17}}'."
        )
    return value


def _say_waiting(why: str, pause_s: float) -> None:
    click.echo(f"{why}; trying again in {pause_s:.1f} s", err=True)


def settle(client: Client, order: Order, waiting: Waiting) -> Answer:
    """Send the order, again if need be, until its outcome is known.

    Returns the final answer: committed, or refused. Raises UnknownOutcome.
    """
    deadline = waiting.clock() + waiting.patience_s
    may_have_happened = order.is_key_given
    while True:
        left = Waiting(
            max(deadline - waiting.clock(), 0.0), waiting.clock, waiting.sleep, waiting.on_wait
        )
        try:
            answer = client.persist(
                "POST", "/v1/transfers", order.body, order.headers, waiting=left
            )
        except GaveUp as error:
            raise _gave_up(error, order, may_have_happened) from error
        if answer.status != 202:
            return answer
        may_have_happened = True
        try:
            settled = _follow(client, answer, left)
        except GaveUp as error:
            raise UnknownOutcome(f"{error}. {_unknown(order)}") from error
        if settled is not None:
            return settled


def _follow(client: Client, pending: Answer, waiting: Waiting) -> Answer | None:
    """Ask the location of a pending transfer until it is settled.

    None when nothing has happened after all (404): then the order is to be sent again. Raises
    GaveUp when the time is over.
    """
    deadline = waiting.clock() + waiting.patience_s
    location = pending.headers.get("location") or f"/v1/transfers/{_id_of(pending)}"
    path = urlsplit(location).path.removeprefix(urlsplit(pending.url).path)
    for pause in pauses():
        if waiting.clock() + pause >= deadline:
            break
        waiting.on_wait("it is pending", pause)
        waiting.sleep(pause)
        left = Waiting(deadline - waiting.clock(), waiting.clock, waiting.sleep, waiting.on_wait)
        answer = client.persist("GET", path, waiting=left)
        if answer.status == 404:
            return None
        if _status_of(answer) != "pending":
            return answer
    raise GaveUp("It is still pending", is_ambiguous=True)


def _gave_up(error: GaveUp, order: Order, may_have_happened: bool) -> UnknownOutcome:
    if error.is_ambiguous or may_have_happened:
        return UnknownOutcome(f"{error}. {_unknown(order)}")
    return UnknownOutcome(
        f"{error}. Nothing has happened: no money has moved. "
        f"To try again: the same command with --key {order.key}. {REACH_HINT}"
    )


def _unknown(order: Order) -> str:
    return (
        "It is not known whether the transfer has happened, or it may still happen. Give the same "
        f"command with --key '{order.key}' to find out: it cannot move the money twice."
    )


def _id_of(answer: Answer) -> str:
    return quote(str(answer.body.get("id", "")), safe="") if isinstance(answer.body, dict) else ""


def _status_of(answer: Answer) -> str:
    return str(answer.body.get("status", "")) if isinstance(answer.body, dict) else ""


def _print_outcome(answer: Answer, order: Order, as_json: bool) -> None:
    """Say what has become of it; a CommandError if it was refused."""
    status = _status_of(answer)
    if status == "committed":
        if as_json:
            print_json(answer.body)
            return
        body = answer.body
        replayed = answer.headers.get("idempotent-replayed") == "true"
        note = " (it had been before; nothing was moved again)" if replayed else ""
        click.echo(
            f"Committed{note}: {readable(body['amount'], body['currency'])} "
            f"({body['amount']} minor units) from {body['source']} to {body['destination']}, "
            f"transfer {body['id']}."
        )
        return
    if status == "rejected":
        detail = answer.body.get("detail") or "no money has moved"
        raise CommandError(f"Refused ({answer.body.get('reason')}): {detail}.")
    if 400 <= answer.status < 500 and answer.problem:
        raise CommandError(f"Refused ({answer.problem}): {answer.explanation}")
    raise UnknownOutcome(f"{answer.explanation}. {_unknown(order)}")
