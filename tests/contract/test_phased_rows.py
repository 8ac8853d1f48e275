"""What the literature says of Try-Confirm/Cancel and Saga, row by row, on both kinds of shards:
calls that are repeated, late, or out of order; who takes over; compensation that fails for a while.

Coordinators are played by flights: each is one coordinator's idea of the transfer, and goes on when
the test says so. The rows of the shards decide.
"""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from coordinator.engine.in_flight import InFlight, Position, Task, begin, begin_of, taken_over
from coordinator.engine.participants import LocalTransactions
from coordinator.engine.tickets import Latch, Ticket
from coordinator.protocols import saga
from coordinator.protocols import try_confirm_cancel as tcc
from coordinator.protocols.phased import IllegalStep
from coordinator.telemetry.tracing import GroupTrace
from coordinator.wiring import WorkerProcess
from ledger.ids import transfer_id
from ledger.model import Transfer
from shard_client.errors import DuplicateRow, TryAgain
from shard_client.phases import read_phases
from shard_client.xid import Gtrid
from tests.cluster import Cluster
from tests.contract.http import Town, is_problem, visit

AMOUNT = 40
MOST = 2**63 - 1


@pytest.fixture(scope="module", params=["mysql", "mariadb"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    return request.getfixturevalue(f"{request.param}_cluster")


@pytest.fixture(scope="module")
def process(cluster: Cluster) -> Iterator[WorkerProcess]:
    with cluster.process() as running:
        yield running


@pytest.fixture
def stage(cluster: Cluster, process: WorkerProcess) -> "Stage":
    return Stage(visit(cluster), process)


class Stage:
    """One transfer from alice on s1 to bob on s2, and the coordinators that are at it."""

    def __init__(self, town: Town, process: WorkerProcess) -> None:
        self.town = town
        self.process = process
        self.local = process._local
        self.alice, self.bob = town.pair(funds=100)
        self.gtrid = process._gtrids.gtrid("s1")

    def begin(self, protocol: str, destination: str = "") -> InFlight:
        """A coordinator begins; it is about to call the destination."""
        to = destination or self.bob
        now = time.time_ns() // 1000
        id_ = transfer_id(self.alice, "k")
        transfer = Transfer(id_, "k", self.alice, to, AMOUNT, "EUR", None, protocol, now)
        flight = begin_of(Ticket(transfer, 0.0, Latch(1), None), str(self.gtrid), 0.0)
        parties = LocalTransactions(
            self.process.shards, self.gtrid, self.process.metrics, GroupTrace()
        )
        found = self.local.lock(parties, {"s1": [flight]})["s1"]
        planned, _ = begin([flight], found, now, now)
        assert self.local.commit(parties, {"s1": planned}) == {"s1"}
        parties.close()
        self.local.apply(planned)
        assert flight.position.task is Task.CALL
        return flight

    def another(self) -> InFlight:
        """Another coordinator, which has just read the phase table."""
        with self.process.shards["s1"].connection(time.monotonic() + 3) as connection:
            (row,) = read_phases(connection, [str(self.gtrid)], 3)
        return taken_over(row, 0.0)

    def go(self, flight: InFlight) -> Position:
        """One visit; one that comes too late is undone, and has to look where the transfer is."""
        gtrid = Gtrid.parse(flight.gtrid)
        assert gtrid is not None
        lost = self.local.go_on(gtrid, [flight], GroupTrace())
        if lost:
            assert {type(error) for error in lost.values()} <= {TryAgain, DuplicateRow}
            assert flight.position.task is Task.LOOK
        return flight.position

    def finish(self, flight: InFlight) -> None:
        for _ in range(6):
            if flight.is_done:
                return
            self.go(flight)
        raise AssertionError(f"it does not end: {flight.position} {flight.error}")

    def sums(self, account: str) -> tuple[int, int, int]:
        query = f"SELECT balance, held, expected FROM accounts WHERE id = '{account}'"
        return self.town.rows(self.town.shard_of(account), query)[0]

    def step(self) -> tuple[str, int]:
        query = f"SELECT state, is_empty FROM steps WHERE gtrid = '{self.gtrid}'"
        ((state, is_empty),) = self.town.rows("s2", query)
        return state, is_empty

    def phase(self) -> tuple[Any, ...] | None:
        query = f"SELECT phase, outcome, attempts, reason FROM phases WHERE gtrid = '{self.gtrid}'"
        rows = self.town.rows("s1", query)
        return rows[0] if rows else None

    def status(self) -> str | None:
        answer = self.town.other.get(f"/v1/transfers/{transfer_id(self.alice, 'k')}")
        return answer.json()["status"] if answer.status_code == 200 else None

    def is_untouched(self) -> bool:
        return (self.sums(self.alice), self.sums(self.bob)) == ((100, 0, 0), (0, 0, 0))

    def is_moved(self) -> bool:
        return (self.sums(self.alice), self.sums(self.bob)) == ((60, 0, 0), (40, 0, 0))


# --- Try-Confirm/Cancel ---------------------------------------------------------------------


def test_what_is_tried_is_reserved_on_both_sides(stage: Stage) -> None:
    flight = stage.begin("tcc")
    assert stage.sums(stage.alice) == (100, 40, 0)
    account = stage.town.api.get(f"/v1/accounts/{stage.alice}").json()
    assert (account["balance"], account["available"]) == (100, 60)
    is_problem(stage.town.transfer(stage.alice, stage.bob, 61), 422, "insufficient-funds", "40")
    stage.go(flight)
    assert stage.sums(stage.bob) == (0, 0, 40)
    assert stage.phase() == ("trying", "pending", 0, None)
    assert stage.status() == "pending"
    for account in (stage.alice, stage.bob):
        shut = stage.town.api.patch(f"/v1/accounts/{account}", json={"status": "closed"})
        is_problem(shut, 409, "account-not-empty")
    stage.finish(flight)
    assert stage.is_moved()
    assert stage.status() == "committed"


def test_a_try_that_is_repeated_reserves_once(stage: Stage) -> None:
    flight = stage.begin("tcc")
    position = flight.position
    stage.go(flight)
    flight.position = position
    stage.go(flight)
    assert stage.sums(stage.bob) == (0, 0, 40)
    stage.finish(flight)
    assert stage.is_moved()


def test_a_try_delayed_behind_two_cancels_reserves_nothing(stage: Stage) -> None:
    late, first, second = stage.begin("tcc"), stage.another(), stage.another()
    stage.go(first)
    second.position = first.position
    assert first.position.phase is tcc.Phase.CANCELLING
    stage.go(first)
    assert stage.step() == ("cancelled", 1)
    stage.go(second)
    assert stage.step() == ("cancelled", 1)
    assert stage.go(late).event is tcc.Event.EXPIRED
    assert stage.step() == ("cancelled", 1)
    for flight in (first, second, late):
        stage.finish(flight)
        assert flight.position.is_expired
    assert stage.phase() is None
    assert stage.is_untouched()
    # Nothing has happened: the same key may be sent again, and is another attempt.
    again = stage.town.transfer(stage.alice, stage.bob, AMOUNT, "k", protocol="tcc")
    assert again.status_code == 201
    assert stage.is_moved()


@pytest.mark.parametrize("was_tried", [True, False])
def test_whoever_finds_it_tried_by_nobody_cancels(stage: Stage, was_tried: bool) -> None:
    gone = stage.begin("tcc")
    if was_tried:
        stage.go(gone)
    heir = stage.another()
    stage.go(heir)
    assert stage.sums(stage.alice) == (100, 0, 0)
    assert stage.phase() == ("cancelling", "lapsed", 0, None)
    stage.finish(heir)
    assert stage.step() == ("cancelled", 0 if was_tried else 1)
    assert stage.is_untouched()
    # The one that was taken for dead obeys.
    stage.finish(gone)
    assert gone.position.is_expired
    assert stage.is_untouched()


def test_whoever_finds_it_confirmed_confirms(stage: Stage) -> None:
    gone = stage.begin("tcc")
    stage.go(gone)
    stage.go(gone)
    assert stage.sums(stage.alice) == (60, 0, 0)
    # It is decided: every coordinator says so, before the destination has heard of it.
    assert stage.status() == "committed"
    heir = stage.another()
    stage.finish(heir)
    assert stage.is_moved()
    stage.finish(gone)
    assert stage.is_moved()


def test_a_confirm_that_is_repeated_moves_once(stage: Stage) -> None:
    flight = stage.begin("tcc")
    stage.go(flight)
    position = stage.go(flight)
    stage.go(flight)
    for _ in range(2):
        flight.position = position
        assert stage.go(flight).event is tcc.Event.CONFIRMED
    assert stage.sums(stage.bob) == (40, 0, 0)
    stage.finish(flight)
    assert stage.is_moved()


@pytest.mark.parametrize(
    ("done", "wrong"), [("cancelled", tcc.Phase.CONFIRMING), ("confirmed", tcc.Phase.CANCELLING)]
)
def test_confirm_after_cancel_and_cancel_after_confirm(
    stage: Stage, done: str, wrong: tcc.Phase
) -> None:
    """Nobody can be in both phases; a call that says so is refused, and changes nothing."""
    flight = stage.begin("tcc")
    stage.go(flight)
    if done == "cancelled":
        flight = stage.another()
    stage.go(flight)
    right = stage.go(flight)
    assert stage.step() == (done, 0)
    flight.position = Position(wrong, Task.CALL)
    with pytest.raises(IllegalStep, match=f"cannot be called when {done}"):
        stage.go(flight)
    assert stage.step() == (done, 0)
    flight.position = right
    stage.finish(flight)
    assert stage.is_moved() if done == "confirmed" else stage.is_untouched()


def test_a_decision_and_a_cancel_exclude_each_other(stage: Stage) -> None:
    """Compare-and-set: of two who are about to decide differently one finds the other's phase."""
    decides = stage.begin("tcc")
    stage.go(decides)
    cancels = stage.another()
    assert cancels.position.event is tcc.Event.EXPIRED
    stage.go(decides)
    assert stage.go(cancels).task is Task.LOOK
    stage.finish(cancels)
    stage.finish(decides)
    assert stage.is_moved()


def test_a_refused_try_releases_the_source(stage: Stage) -> None:
    flight = stage.begin("tcc", stage.town.name("s2"))
    stage.go(flight)
    assert stage.step() == ("refused", 0)
    stage.go(flight)
    assert flight.is_done
    assert stage.sums(stage.alice) == (100, 0, 0)
    assert stage.status() == "rejected"


def test_what_is_expected_leaves_room(stage: Stage) -> None:
    """A confirm is never refused: the room for it is taken when it is tried."""
    flight = stage.begin("tcc")
    stage.go(flight)
    issuer = stage.town.account("s1", overdraft_limit=None)
    is_problem(stage.town.transfer(issuer, stage.bob, MOST), 422, "balance-overflow")
    assert stage.town.transfer(issuer, stage.bob, MOST - AMOUNT).status_code == 201
    stage.finish(flight)
    assert stage.sums(stage.bob) == (MOST, 0, 0)


def test_a_frozen_source_still_pays_what_it_has_reserved(stage: Stage) -> None:
    flight = stage.begin("tcc")
    stage.town.api.patch(f"/v1/accounts/{stage.alice}", json={"status": "frozen"})
    stage.finish(flight)
    assert stage.is_moved()


# --- Saga -----------------------------------------------------------------------------------


def test_between_debit_and_credit_the_phase_table_has_the_money(stage: Stage) -> None:
    flight = stage.begin("saga")
    assert (stage.sums(stage.alice), stage.sums(stage.bob)) == ((60, 0, 0), (0, 0, 0))
    assert stage.phase() == ("crediting", "pending", 0, None)
    assert stage.status() == "pending"
    # Who reads both at one moment does not see the half of it.
    read = stage.town.api.get(f"/v1/balances?account={stage.alice}&account={stage.bob}").json()
    assert [item["balance"] for item in read["balances"]] == [100, 0]
    stage.go(flight)
    read = stage.town.api.get(f"/v1/balances?account={stage.alice}&account={stage.bob}").json()
    assert [item["balance"] for item in read["balances"]] == [60, 40]
    stage.finish(flight)
    assert stage.is_moved()


def test_whoever_takes_a_saga_over_goes_forward(stage: Stage) -> None:
    gone = stage.begin("saga")
    heir, late = stage.another(), stage.another()
    stage.finish(heir)
    assert stage.is_moved()
    assert stage.status() == "committed"
    for flight in (gone, late):
        stage.finish(flight)
    assert stage.is_moved()


def test_a_credit_that_is_repeated_credits_once(stage: Stage) -> None:
    flight = stage.begin("saga")
    position = flight.position
    for _ in range(3):
        flight.position = position
        assert stage.go(flight).event is saga.Event.CREDITED
    stage.finish(flight)
    assert stage.is_moved()


def test_a_refused_credit_is_given_back(stage: Stage) -> None:
    nobody = stage.town.name("s2")
    flight, late = stage.begin("saga", nobody), stage.another()
    stage.go(flight)
    assert stage.step() == ("refused", 0)
    stage.go(flight)
    assert stage.phase() == ("compensating", "rejected", 0, "account-not-found")
    assert stage.status() == "rejected"
    # Meanwhile the account is opened: the refusal stays.
    stage.town.api.put(f"/v1/accounts/{nobody}", json={"currency": "EUR"})
    assert stage.go(late).event is saga.Event.REFUSED
    shut = stage.town.api.patch(f"/v1/accounts/{stage.alice}", json={"status": "closed"})
    is_problem(shut, 409, "account-not-empty", "1 from it")
    stage.finish(flight)
    stage.finish(late)
    assert (stage.sums(stage.alice), stage.sums(nobody)) == ((100, 0, 0), (0, 0, 0))


def test_compensation_is_retried_until_it_succeeds(stage: Stage) -> None:
    """The account is locked for a while; then there is no room for the money for a while."""
    flight = stage.begin("saga", stage.town.name("s2"))
    stage.go(flight)
    stage.go(flight)
    gtrid = stage.gtrid
    with stage.town.locked(stage.alice):
        stage.local.go_on(gtrid, [flight], GroupTrace())
        assert flight.error is not None
        assert "locked" in flight.error
    issuer = stage.town.account("s1", overdraft_limit=None)
    assert stage.town.transfer(issuer, stage.alice, MOST - 60).status_code == 201
    for attempt in (2, 3):
        stage.local.go_on(gtrid, [flight], GroupTrace())
        assert flight.error is not None
        assert "beyond what can be kept" in flight.error
        assert stage.phase() == ("compensating", "rejected", attempt, "account-not-found")
    assert stage.town.transfer(stage.alice, issuer, MOST - 60).status_code == 201
    stage.finish(flight)
    assert stage.sums(stage.alice) == (100, 0, 0)
    assert stage.phase() is None


def test_money_on_its_way_to_nobody_is_not_missing(stage: Stage) -> None:
    """Whoever reads all accounts at one moment sees all of the money, wherever it is going."""
    flight = stage.begin("saga", stage.town.name("s2"))

    def read() -> list[int]:
        answer = stage.town.api.get(f"/v1/balances?account={stage.alice}&account={stage.bob}")
        return [item["balance"] for item in answer.json()["balances"]]

    while not flight.is_done:
        assert read() == [100, 0]
        stage.go(flight)
    assert read() == [100, 0]


@pytest.mark.parametrize("protocol", ["tcc", "saga"])
def test_a_refusal_that_names_braces(stage: Stage, protocol: str) -> None:
    """Account ids may have them, and the phase table has the refusal's words."""
    town = stage.town
    names = (f"{town.prefix}{{{n}}}{{ids}}" for n in range(1000))
    nobody = next(name for name in names if town.shard_of(name) == "s2")
    flight = stage.begin(protocol, nobody)
    stage.finish(flight)
    assert stage.sums(stage.alice) == (100, 0, 0)
    shown = town.transfer(stage.alice, nobody, AMOUNT, "k", protocol=protocol)
    is_problem(shown, 422, "account-not-found", nobody)


def test_one_whose_first_packet_may_be_on_its_way_is_not_given_up(stage: Stage) -> None:
    """The answer to a transfer's first visit is lost, while the visit still holds the account: that
    it has not begun is certain only behind its lock.
    """
    flight = stage.begin("saga")
    stage.finish(flight)
    lost = begin_of(Ticket(flight.transfer, 0.0, Latch(1), None), flight.gtrid, 0.0)
    lost.look_up()
    with stage.town.locked(stage.alice):
        stage.go(lost)
        assert lost.error is not None
        assert not lost.is_done
    stage.finish(lost)
    assert lost.position.stored is not None
    assert stage.is_moved()
