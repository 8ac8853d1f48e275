"""Coordinators that are made to break: the test build, told by TANDEM_FAULTS where and how."""

import itertools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from ledger.ids import transfer_id
from shard_client.xid import Gtrid
from tests.bank import Bank, client, post_one, transfer
from tests.cluster import Cluster, Coordinator, wait_until
from tests.faults.leftovers import prepared
from tests.logs import events

SETTINGS = {
    "TANDEM_COORDINATOR_WORKERS": "1",
    # Others learn so soon that it is gone, and its servers that its sessions are.
    "TANDEM_ZOOKEEPER_SESSION_TIMEOUT_S": "1",
    "TANDEM_MYSQL_IDLE_TIMEOUT_S": "2",
}
AMOUNT = 5
DRAINED_WITHIN_S = 40
STRUCK_WITHIN_S = 30
# Nothing has happened, and the reason is one that passes: on a slow machine a shard may have let go
# of a victim before it has reached any fault.
PASSING = {"/problems/account-busy", "/problems/shard-unavailable"}

_numbers = itertools.count(1)


def new_name() -> str:
    """A name that no coordinator had before."""
    return f"v{next(_numbers)}"


class Victim(Coordinator):
    """A further coordinator of a cluster, of one worker, with faults."""

    _module = "faults"

    def __init__(
        self, cluster: Cluster, name: str, folder: Path, faults: str, **settings: str
    ) -> None:
        self.cluster = cluster
        self.name = name
        self.log = folder / f"{name}.log"
        variables = {**SETTINGS, "TANDEM_FAULTS": faults, **settings}
        super().__init__(cluster.environment, name, self.log, variables)

    def struck(self) -> Counter[str]:
        """How often a fault has struck at each point: `POINT@SHARD` or `POINT`."""
        return Counter(where for where, _ in self._strikes())

    def struck_gtrid(self, where: str) -> str:
        """The group that was struck first at `POINT@SHARD`."""
        return next(gtrid for name, gtrid in self._strikes() if name == where)

    def _strikes(self) -> list[tuple[str, str]]:
        """Where and to which group, in order; to "" where a fault concerns no single group."""
        return [(line["point"], line["gtrid"]) for line in events(self.log, "fault.struck")]

    def call(self, item: dict) -> "Call":
        """Send it a transfer, until any of its faults has struck, one that leads to others too."""
        return Call(self.url, item, lambda: bool(self.struck()))

    def what_it_did(self) -> str:
        tail = "\n".join(self.log.read_text().splitlines()[-20:])
        return f"struck: {dict(self.struck())}; the end of its log:\n{tail}"

    def wait_frozen(self) -> None:
        wait_until(
            self.is_frozen, STRUCK_WITHIN_S, lambda: f"{self.name} runs; {self.what_it_did()}"
        )

    def wait_dead(self) -> None:
        wait_until(
            self.is_dead, STRUCK_WITHIN_S, lambda: f"{self.name} lives; {self.what_it_did()}"
        )

    def is_frozen(self) -> bool:
        assert self.process is not None
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "T"

    def is_dead(self) -> bool:
        assert self.process is not None
        return self.process.poll() is not None

    def thaw(self) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """A victim ends as it lives."""
        self._reserved.close()
        if self.process is not None and not self.is_dead():
            self.kill()

    def in_doubt(self) -> list[str]:
        """The gtrids of this coordinator that are prepared on some shard."""
        return [name for name in prepared(self.cluster) if coordinator_of(name) == self.name]


def coordinator_of(name: str) -> str | None:
    gtrid = Gtrid.parse(name)
    return gtrid.coordinator if gtrid else None


@contextmanager
def started(victims: Sequence[Victim]) -> Iterator[None]:
    """All of these run for a block; they are started together."""
    with ExitStack() as stack:
        for victim in victims:
            stack.callback(victim.stop)
            victim.start(wait=False)
        for victim in victims:
            victim.wait_ready()
        yield


class Call:
    """A request on its way; in the end `answer` is its answer, or None if that was lost.

    With `has_struck` it is sent again, as clients do, when what was in the way passes, until a
    fault has struck.
    """

    def __init__(self, url: str, item: dict, has_struck: Callable[[], bool] | None = None) -> None:
        self.answer: httpx.Response | None = None
        self._url = url
        self._item = item
        self._has_struck = has_struck
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        give_up = time.monotonic() + STRUCK_WITHIN_S / 2
        with client(self._url) as http:
            try:
                self.answer = post_one(http, self._item)
                while self._is_to_be_sent_again(self.answer) and time.monotonic() < give_up:
                    time.sleep(0.1)
                    self.answer = post_one(http, self._item)
            except httpx.TransportError:
                self.answer = None

    def _is_to_be_sent_again(self, answer: httpx.Response) -> bool:
        is_passing = answer.status_code == 503 and answer.json()["type"] in PASSING
        return is_passing and self._has_struck is not None and not self._has_struck()

    def wait(self) -> httpx.Response | None:
        self._thread.join(90)
        assert not self._thread.is_alive(), "neither an answer nor a loss"
        return self.answer


def insist(send: Callable[[], httpx.Response]) -> None:
    """Send a new transfer until it is made. Whoever says that nothing has happened is believed."""
    may_be_made = False

    def is_made() -> bool:
        nonlocal may_be_made
        answer = send()
        assert answer.status_code in (201, 202, 503), answer.text
        may_be_made = may_be_made or answer.status_code == 202
        assert may_be_made or "Idempotent-Replayed" not in answer.headers
        return answer.status_code == 201

    wait_until(is_made, 30, "it is not made")


class Case(NamedTuple):
    """Where a coordinator dies or freezes, and whether its transfer, from s1 to s2 with s1 as its
    home, then is committed. `before` are faults that lead to the point.
    """

    point: str
    is_committed: bool
    before: str = ""

    def faults(self, mode: str) -> str:
        return f"{self.before}; {self.point}={mode}*1"


class Trial:
    """One transfer across shards, sent to one victim."""

    def __init__(
        self,
        case: Case,
        mode: str,
        cluster: Cluster,
        folder: Path,
        settings: Mapping[str, str] = {},
    ) -> None:
        self.case = case
        self.cluster = cluster
        self.bank = Bank(cluster, 2)
        self.victim = Victim(cluster, new_name(), folder, case.faults(mode), **settings)
        self.source, self.destination = self.bank.two_across()
        self.key = f"{self.bank.prefix}-struck"
        self.id = transfer_id(self.source, self.key)
        self.call: Call | None = None
        self.is_checked = False

    def send(self) -> None:
        assert self.bank.shard_of(self.source) == "s1"
        assert self.bank.shard_of(self.destination) == "s2"
        self.call = self.victim.call(self._item(self.key))

    def pay(self, url: str, key: str) -> httpx.Response:
        with client(url) as http:
            return post_one(http, self._item(key))

    def _item(self, key: str) -> dict:
        return transfer(self.source, self.destination, AMOUNT, key)

    def status(self) -> str:
        """What the others say of the transfer, once its coordinator's part of it is over."""

        def ask() -> httpx.Response:
            with client(self.cluster.urls[0]) as http:
                return http.get(f"/v1/transfers/{self.id}")

        def is_settled() -> bool:
            answer = ask()
            return answer.status_code == 404 or answer.json()["status"] != "pending"

        wait_until(is_settled, DRAINED_WITHIN_S, f"{self.id} stays pending")
        answer = ask()
        return "none" if answer.status_code == 404 else str(answer.json()["status"])

    def check_struck(self) -> None:
        """The fault was at its point, once."""
        assert self.victim.struck()[self.case.point] == 1, self.victim.struck()

    def check_recovered(self) -> None:
        """The others, without the victim, have brought the transfer to what the table says; sent
        to them again it has its one effect; its accounts are free.
        """
        if self.is_checked:
            return
        self.wait_drained()
        assert self.status() == ("committed" if self.case.is_committed else "none")
        again = self.pay(self.cluster.urls[0], self.key)
        assert again.status_code == 201, again.text
        assert ("Idempotent-Replayed" in again.headers) is self.case.is_committed
        further = self.pay(self.cluster.urls[1], f"{self.key}-further")
        assert further.status_code == 201, further.text
        self.check_balances(2)
        self.is_checked = True

    def check_thawed(self) -> None:
        """It has told its client the truth, changed nothing more, and serves again."""
        assert self.is_checked, "it was thawed too early"
        assert self.call is not None
        answer = self.call.wait()
        if answer is not None:
            self._check_is_true(answer)
        self.check_balances(2)
        insist(lambda: self.pay(self.victim.url, f"{self.key}-thawed"))
        self.wait_drained()
        self.check_balances(3)

    def _check_is_true(self, answer: httpx.Response) -> None:
        """By now the transfer is committed in any case: by this request, or by the one that was
        sent to others, so that this one may say that it has done nothing.
        """
        allowed = (201, 202) if self.case.is_committed else (201, 202, 503)
        assert answer.status_code in allowed, answer.text
        if answer.status_code == 201:
            assert ("Idempotent-Replayed" in answer.headers) is not self.case.is_committed

    def wait_drained(self) -> None:
        in_doubt = self.victim.in_doubt
        wait_until(lambda: in_doubt() == [], DRAINED_WITHIN_S, lambda: f"in doubt: {in_doubt()}")

    def check_balances(self, transfers: int) -> None:
        """So many transfers have had their effect, each once."""
        moved = transfers * AMOUNT
        expected = {self.source: 1000 - moved, self.destination: 1000 + moved}
        assert self.bank.balances() == expected
