"""The last looks, when everything is healed: is every answer true, is nothing left over?"""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import cycle
from typing import Any, NamedTuple

from tandem.chaos.history import Attempt, History, Order, Reply, Told, some_of
from tandem.chaos.oracles import (
    Line,
    Violation,
    check_balances,
    check_books,
    check_effects,
    check_looked,
    check_nothing_left,
    check_paid,
    check_resent,
    check_times,
)
from tandem.chaos.watchers import Branches, Prepared, read_balances, read_view
from tandem.chaos.workload import CURRENCY, Teller, Wire

# How long what is in doubt may take to drain after the healing: longer than the service waits
# before it takes a branch for left behind, and the longest pause between two tries.
DRAIN_S = 90.0
PATIENCE_S = 30.0
PAUSE_S = 0.2
THREADS = 8
# So many keys with an outcome are looked at one by one, and so many are sent again one by one;
# the others are sent again in batches. Those without an outcome are looked at all.
LOOKS_MAX = 4000
SINGLES_MAX = 1000
RESENT_AT_ONCE = 200
PAGE = 1000


class Bank(NamedTuple):
    """What the load works on. The accounts' entries begin with the transfers `funding`."""

    accounts: Sequence[str]
    issuer: str
    total: int
    funding: Sequence[Order]


class Final:
    """Looks at everything once more. What is wrong goes to `accuse`, what it does to `tell`."""

    def __init__(
        self,
        bank: Bank,
        urls: Sequence[str],
        wire: Wire,
        history: History,
        teller: Teller,
        prepared: Prepared | None,
        chance: random.Random,
        tell: Callable[[str], None],
        accuse: Callable[[Violation], None],
    ) -> None:
        self._bank = bank
        self._urls = urls
        self._turns = cycle(urls)
        self._wire = wire
        self._history = history
        self._teller = teller
        self._prepared = prepared
        self._chance = chance
        self._tell = tell
        self._accuse = accuse

    def run(self) -> None:
        self._await_drained()
        self._check_balances("at the end")
        attempts = self._history.attempts()
        self._tell(f"looking at {len(attempts):,} keys")
        self._look(attempts)
        self._tell("sending every key again")
        self._send_again(attempts)
        self._tell("reading every statement")
        self._check_effects()
        self._tell("paying from and to every account")
        self._pay_around()
        self._check_balances("at the very end")
        self._await_drained()

    def _accuse_all(self, found: Sequence[Violation]) -> None:
        for violation in found:
            self._accuse(violation)

    # --- in doubt -----------------------------------------------------------------------------

    def _await_drained(self) -> None:
        began = time.monotonic()
        while (left := self._left()) and time.monotonic() < began + DRAIN_S:
            self._tell(f"waiting until nothing is in doubt: {len(left)}")
            time.sleep(5 * PAUSE_S)
        self._accuse_all(check_nothing_left(left, (), time.monotonic() - began))

    def _left(self) -> Branches:
        """What is in doubt by any coordinator's view, or by the shards."""
        left: Branches = set()
        for url in self._urls:
            reply, view = read_view(self._wire, url)
            if view:
                left |= view.branches
                left |= {("an unreachable shard", name) for name in view.unreachable}
            elif reply.status != 404:
                left.add((f"the view of {url}: {reply.label}", "all shards"))
        if self._prepared:
            found, silent = self._prepared.look()
            left |= found | {("a shard that cannot be asked", name) for name in silent}
        return left

    # --- balances -----------------------------------------------------------------------------

    def _check_balances(self, when: str) -> dict[str, int] | None:
        for url in self._patiently():
            reply, balances = read_balances(self._wire, url, self._bank.accounts)
            if balances is not None:
                self._accuse_all(check_balances(balances, self._bank.total, when))
                return balances
        self._accuse(Violation("locked-left", "all balances", f"cannot be read: {reply.label}"))
        return None

    def _patiently(self) -> Iterator[str]:
        """One coordinator after the other, with pauses, until patience ends."""
        give_up = time.monotonic() + PATIENCE_S
        for url in cycle(self._urls):
            yield url
            if time.monotonic() > give_up:
                return
            time.sleep(PAUSE_S)

    # --- each key -----------------------------------------------------------------------------

    def _look(self, attempts: Mapping[Order, Sequence[Attempt]]) -> None:
        """GET: all that have no outcome, and of the others so many."""
        told = {o for o, some in attempts.items() if any(a.told.is_final for a in some)}
        wanted = [order for order in attempts if order not in told]
        wanted += some_of([o for o in attempts if o in told], LOOKS_MAX, self._chance)

        def look(order: Order) -> None:
            found = self._until(lambda url: self._teller.get(order, url), _is_told)
            self._accuse_all(check_looked(attempts[order], found))

        self._each(look, wanted)

    def _until(
        self, ask: Callable[[str], Attempt], is_enough: Callable[[Attempt], bool]
    ) -> Attempt:
        for url in self._patiently():
            attempt = ask(url)
            if is_enough(attempt):
                break
        return attempt

    def _each(self, work: Callable[[Any], None], items: Sequence[Any]) -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(work, items):
                pass

    def _send_again(self, attempts: Mapping[Order, Sequence[Attempt]]) -> None:
        singles = some_of(list(attempts), SINGLES_MAX, self._chance)
        rest = sorted(attempts.keys() - set(singles))
        batches = [rest[i : i + RESENT_AT_ONCE] for i in range(0, len(rest), RESENT_AT_ONCE)]
        self._each(self._send_batch, batches)
        self._each(self._send_single, singles)

    def _send_batch(self, orders: Sequence[Order]) -> None:
        """What a batch leaves open is sent one by one."""
        for attempt in self._teller.batch(orders, next(self._turns)):
            if not attempt.told.is_final:
                self._send_single(attempt.order)

    def _send_single(self, order: Order) -> None:
        sent = self._until(lambda url: self._teller.post(order, url), lambda a: a.told.is_final)
        self._accuse_all(check_resent(sent))

    # --- effects ------------------------------------------------------------------------------

    def _check_effects(self) -> None:
        lines = [line for account in self._bank.accounts for line in self._statement(account)]
        outcomes = {
            order: Told.COMMITTED if any(a.told is Told.COMMITTED for a in some) else some[-1].told
            for order, some in self._history.attempts().items()
        }
        funding = {order.id for order in self._bank.funding}
        self._accuse_all(check_effects(outcomes, lines, funding))
        balances = self._check_balances("when every key had been sent again")
        if balances is not None:
            self._accuse_all(check_books(balances, lines))

    def _statement(self, account: str) -> list[Line]:
        lines: list[Line] = []
        cursor: str | None = ""
        while cursor is not None:
            page = self._page(account, cursor)
            times = (datetime.fromisoformat(e["created_at"]) for e in page.get("entries", []))
            self._accuse_all(check_times(account, times, datetime.now(UTC)))
            lines += [
                Line(e["transfer_id"], account, e["amount"], e["counterparty"])
                for e in page.get("entries", [])
            ]
            cursor = page.get("next")
        return lines

    def _page(self, account: str, cursor: str) -> dict[str, Any]:
        params = {"limit": PAGE} | ({"after": cursor} if cursor else {})
        reply = Reply(0, None, "")
        for url in self._patiently():
            reply = self._wire.send("GET", f"{url}/v1/accounts/{account}/entries", params=params)
            if reply.status == 200:
                return dict(reply.body)
        self._accuse(Violation("locked-left", account, f"no statement: {reply.label}"))
        return {}

    # --- nothing is locked --------------------------------------------------------------------

    def _pay_around(self) -> None:
        """Every account is paid 1, and pays it back."""
        issuer = self._bank.issuer
        for direction in ("to", "from"):
            orders = []
            for account in self._bank.accounts:
                ends = (issuer, account) if direction == "to" else (account, issuer)
                orders.append(Order(f"{account}-{direction}", *ends, 1, CURRENCY))

            def pay(order: Order, direction: str = direction) -> None:
                sent = self._until(
                    lambda url: self._teller.post(order, url), lambda a: a.told.is_final
                )
                account = order.destination if direction == "to" else order.source
                self._accuse_all(check_paid(account, direction, sent.told, str(sent)))

            self._each(pay, orders)


def _is_told(attempt: Attempt) -> bool:
    """Whether a GET has told more than that it cannot tell yet."""
    return attempt.told.is_final or attempt.told is Told.ABSENT
