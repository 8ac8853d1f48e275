"""What every kind of shard that takes part in groups has to keep of the promise in
`shard_client.node`.

A kind joins by a class of its own, whose `nodes` makes two of it (see test_shard_contract.py).
"""

import secrets
import time
from collections.abc import Iterator
from itertools import count

import pytest

from coordinator.engine.planning import Plan, plan
from coordinator.engine.tickets import Latch, Ticket
from ledger.ids import slot_of
from ledger.model import Reason, Refusal, Status, Transfer
from shard_client.errors import (
    ClockAhead,
    DuplicateRow,
    ShardError,
    ShardUnavailable,
    SlotMoved,
    StatementRefused,
    TryAgain,
    UnknownBranch,
)
from shard_client.node import GroupBranch, Session, ShardNode
from shard_client.records import (
    PENDING,
    DecisionOutcome,
    LocalWrites,
    Locked,
    Look,
    PhaseChange,
    PhaseRow,
    PhaseState,
    PreparedBranch,
    StepRow,
    StoredTransfer,
    Terms,
    Undecided,
    Wanted,
    Writes,
)
from shard_client.xid import Gtrid
from tests.cluster import wait_until
from tests.contract.calls_contract import HOUR_US, CallsContract, CallsGround, Nodes, now, soon

COMMITTED, ABORTED = DecisionOutcome.COMMITTED, DecisionOutcome.ABORTED
NOTHING = Wanted(set(), set(), set(), set(), set())


class Ground(CallsGround):
    """Two shards, s1 and s2, and accounts with names of their own."""

    protocol = "xa"

    def __init__(self, nodes: Nodes, cluster: str) -> None:
        super().__init__(nodes)
        self.cluster = cluster
        self.s2 = nodes["s2"]
        self._sessions: list[Session] = []
        self._gtrids: list[Gtrid] = []
        slots = {name: self.lock(name, []).slots for name in nodes}
        self._tags = {
            name: next(t for n in count() if slot_of(t := f"{{{self._prefix}{n}}}") in slots[name])
            for name in nodes
        }

    def name(self, shard: str = "s1") -> str:
        return f"{super().name()}.{self._tags[shard]}"

    def shard_of(self, account: str) -> str:
        return next(shard for shard, tag in self._tags.items() if account.endswith(tag))

    # --- groups -----------------------------------------------------------------------------

    def gtrid(self, home: str = "s1") -> Gtrid:
        random = secrets.randbits(64)
        self._gtrids.append(Gtrid(self.cluster, home, "tests", now() // 1000, random))
        return self._gtrids[-1]

    def branch(self, shard: str, gtrid: Gtrid | None = None) -> GroupBranch:
        gtrid = gtrid or self.gtrid(shard)
        made = self.nodes[shard].branch(str(gtrid), soon(), is_local=shard == gtrid.home)
        self._sessions.append(made)
        return made

    def lock(self, shard: str, accounts: list[str], *transfers: str) -> Locked:
        """What a branch finds that is undone at once."""
        made = self.nodes[shard].branch("lock", soon(), is_local=True)
        found = made.lock(accounts, transfers, soon()).get()
        made.roll_back(soon()).get()
        made.give_back()
        return found

    def is_free(self, name: str) -> bool:
        return name in self.lock(self.shard_of(name), [name]).accounts

    def plan(self, gtrid: Gtrid, transfers: list[Transfer], *locked: Locked) -> Plan:
        """What a group writes, by the money rules."""
        accounts = {id_: item for answer in locked for id_, item in answer.accounts.items()}
        tickets = []
        for transfer in transfers:
            ticket = Ticket(transfer, soon(), Latch(1), None)
            ends = (transfer.source, transfer.destination)
            ticket.shards = (self.shard_of(ends[0]), self.shard_of(ends[1]))
            tickets.append(ticket)
        return plan(tickets, accounts, now(), str(gtrid))

    def commit(self, *transfers: Transfer) -> list[StoredTransfer]:
        """In one group."""
        gtrid = self.gtrid()
        branch = self.branch("s1", gtrid)
        names = sorted({name for t in transfers for name in (t.source, t.destination)})
        found = branch.lock(names, [t.id for t in transfers], soon()).get()
        made = self.plan(gtrid, list(transfers), found)
        branch.write_unprepared(made.writes["s1"], soon()).get()
        branch.commit_alone(soon()).get()
        return [each for each in made.results if isinstance(each, StoredTransfer)]

    def prepare(self) -> "Group":
        """A group of one transfer from s1, its home, to s2, up to its commit point."""
        return Group(self)

    def finish(self, shard: str, gtrid: Gtrid, outcome: DecisionOutcome) -> None:
        """Finish a branch whose session was abandoned: some servers take time to notice."""

        def is_done() -> bool:
            try:
                self.nodes[shard].recovery.finish([(str(gtrid), outcome)], soon())
            except UnknownBranch:
                return False
            return True

        wait_until(is_done, 5, "the branch cannot be finished")

    def close(self) -> None:
        for session in self._sessions:
            session.abandon()
        for shard, node in self.nodes.items():
            for branch in node.recovery.list_prepared(soon()):
                if branch.gtrid in self._gtrids:
                    self.finish(shard, branch.gtrid, ABORTED)


class Group:
    """A transfer of 7 across both shards, whose remote branch has voted yes."""

    def __init__(self, ground: Ground) -> None:
        self.gtrid = ground.gtrid()
        self.source, self.destination = ground.open("s1"), ground.open("s2")
        self.transfer = ground.transfer(self.source, self.destination)
        self.home, self.remote = (ground.branch(name, self.gtrid) for name in ("s1", "s2"))
        locked = [
            self.home.lock([self.source], [self.transfer.id], soon()).get(),
            self.remote.lock([self.destination], [], soon()).get(),
        ]
        self.plan = ground.plan(self.gtrid, [self.transfer], *locked)
        self.home.write(self.plan.writes["s1"], soon()).get()
        self.remote.write(self.plan.writes["s2"], soon()).get()

    def decide(self) -> None:
        self.home.decide(["s2"], now(), soon()).get()


class ShardContract(CallsContract):
    """See the module."""

    @pytest.fixture
    def ground(self, nodes: Nodes, cluster_id: str) -> Iterator[Ground]:
        made = Ground(nodes, cluster_id)
        yield made
        made.close()

    # --- locking ----------------------------------------------------------------------------

    def test_a_lock_brings_the_accounts_as_they_stand(self, ground: Ground) -> None:
        known, unknown = ground.open(limit=50), ground.name()
        branch = ground.branch("s1")
        found = branch.lock([known, unknown], [], soon()).get()
        assert found.accounts.keys() == {known}
        assert found.accounts[known][:6] == (known, "EUR", 0, 50, "open", 0)
        assert found.is_writable
        assert slot_of(known) in found.slots
        assert slot_of(ground.name("s2")) not in found.slots
        assert now() < found.latest < now() + HOUR_US
        assert branch.existing([known, unknown], soon()).get() == {known}

    def test_what_others_have_locked_is_left_out(self, ground: Ground) -> None:
        mine, theirs = ground.open(), ground.open()
        ground.branch("s1").lock([theirs], [], soon()).get()
        branch = ground.branch("s1")
        began = time.monotonic()
        assert branch.lock([mine, theirs], [], soon()).get().accounts.keys() == {mine}
        assert time.monotonic() - began < 0.5
        assert branch.existing([mine, theirs], soon()).get() == {mine, theirs}

    def test_in_line_a_lock_is_waited_for(self, ground: Ground) -> None:
        name = ground.open()
        holder, waiting = ground.branch("s1"), ground.branch("s1")
        holder.lock([name], [], soon()).get()
        reply = waiting.wait_for([name], soon())
        holder.roll_back(soon()).get()
        reply.get()
        assert not ground.is_free(name)
        with pytest.raises(TryAgain):
            ground.branch("s1").wait_for([name], soon()).get()

    @pytest.mark.parametrize("home", ["s1", "s2"])
    def test_nothing_is_left_of_what_is_rolled_back(self, ground: Ground, home: str) -> None:
        source, destination = ground.open(), ground.open()
        transfer, gtrid = ground.transfer(source, destination), ground.gtrid(home)
        branch = ground.branch("s1", gtrid)
        found = branch.lock([source, destination], [], soon()).get()
        made = ground.plan(gtrid, [transfer], found)
        branch.write_unprepared(made.writes["s1"], soon()).get()
        branch.roll_back(soon()).get()
        assert ground.is_free(source)
        assert ground.balance(source) == 0
        assert ground.s1.reads.find_transfers([transfer.id], soon()) == {}

    def test_what_is_abandoned_is_undone(self, ground: Ground) -> None:
        name = ground.open()
        branch = ground.branch("s1")
        branch.lock([name], [], soon()).get()
        branch.abandon()
        wait_until(lambda: ground.is_free(name), 5, "its lock is kept")

    # --- writing ----------------------------------------------------------------------------

    @pytest.mark.parametrize("home", ["s1", "s2"])
    def test_a_group_on_one_shard(self, ground: Ground, home: str) -> None:
        source, destination = ground.open(), ground.open()
        transfer = ground.transfer(source, destination)
        refused = ground.transfer(source, source)
        gtrid = ground.gtrid(home)
        branch = ground.branch("s1", gtrid)
        ids = [transfer.id, refused.id]
        found = branch.lock([source, destination], ids, soon()).get()
        assert found.known == {}
        made = ground.plan(gtrid, [transfer, refused], found)
        branch.write_unprepared(made.writes["s1"], soon()).get()
        assert ground.balance(source) == 0
        branch.commit_alone(soon()).get()
        assert (ground.balance(source), ground.balance(destination)) == (-7, 7)
        expected = dict(zip(ids, made.results, strict=True))
        assert expected[refused.id].reason == Reason.SAME_ACCOUNT
        assert ground.lock("s1", [source], *ids).known == expected
        assert ground.s1.reads.find_transfers(ids, soon()) == expected

    def test_a_transfer_is_written_once(self, ground: Ground) -> None:
        source, destination = ground.open(), ground.open()
        transfer = ground.transfer(source, destination)
        ground.commit(transfer)
        gtrid = ground.gtrid()
        branch = ground.branch("s1", gtrid)
        found = branch.lock([source, destination], [], soon()).get()
        again = ground.plan(gtrid, [transfer], found)
        with pytest.raises(DuplicateRow):
            branch.write_unprepared(again.writes["s1"], soon()).get()
        branch.abandon()
        wait_until(lambda: ground.is_free(source), 5, "its lock is kept")
        assert ground.balance(source) == -7

    def test_an_account_that_is_not_there_is_not_written(self, ground: Ground) -> None:
        there = ground.account(ground.open())
        branch = ground.branch("s1")
        lost = there._replace(id=ground.name(), balance=7)
        with pytest.raises(StatementRefused):
            branch.write_unprepared(Writes([there, lost], [], []), soon()).get()

    def test_a_group_across_two_shards(self, ground: Ground) -> None:
        group = ground.prepare()
        names = (group.source, group.destination)
        assert (group.home.is_prepared, group.remote.is_prepared) == (False, True)
        assert [ground.balance(name) for name in names] == [0, 0]
        group.decide()
        assert [ground.balance(name) for name in names] == [-7, 0]
        assert not ground.is_free(group.destination)
        group.remote.commit(soon()).get()
        assert [ground.balance(name) for name in names] == [-7, 7]
        assert ground.is_free(group.destination)

    def test_a_write_across_that_collides_leaves_nothing(self, ground: Ground) -> None:
        group = ground.prepare()
        group.decide()
        group.remote.commit(soon()).get()
        gtrid = ground.gtrid("s2")
        branch = ground.branch("s1", gtrid)
        branch.lock([group.source], [], soon()).get()
        with pytest.raises(DuplicateRow):
            branch.write(group.plan.writes["s1"], soon()).get()
        assert not branch.is_prepared
        branch.abandon()
        wait_until(lambda: ground.is_free(group.source), 5, "its lock is kept")
        assert PreparedBranch(gtrid, "s1") not in ground.s1.recovery.list_prepared(soon())

    # --- in doubt ---------------------------------------------------------------------------

    @pytest.mark.parametrize("outcome", list(DecisionOutcome))
    def test_what_is_prepared_outlives_its_session(
        self, ground: Ground, outcome: DecisionOutcome
    ) -> None:
        group, calls = ground.prepare(), ground.s2.recovery
        name = str(group.gtrid)
        if outcome is COMMITTED:
            group.decide()
        else:
            group.home.roll_back(soon()).get()
        group.remote.abandon()
        assert PreparedBranch(group.gtrid, "s2") in calls.list_prepared(soon())
        assert calls.branch_status([name], soon()) == {name: Look.BUSY}
        assert not ground.is_free(group.destination)
        ground.finish("s2", group.gtrid, outcome)
        is_committed = outcome is COMMITTED
        assert ground.balance(group.destination) == (7 if is_committed else 0)
        assert ground.is_free(group.destination)
        assert PreparedBranch(group.gtrid, "s2") not in calls.list_prepared(soon())
        seen = Look.COMMITTED if is_committed else Look.ABSENT
        assert calls.branch_status([name], soon()) == {name: seen}
        assert calls.marked([name], soon()) == ({name} if is_committed else set())

    def test_what_is_finished_is_unknown(self, ground: Ground) -> None:
        group, other = ground.prepare(), ground.prepare()
        for each in (group, other):
            each.decide()
            each.remote.abandon()
        ground.finish("s2", group.gtrid, COMMITTED)
        # Of several, what is behind one that is unknown is not tried.
        wanted = [(str(g.gtrid), COMMITTED) for g in (group, other)]
        with pytest.raises(UnknownBranch) as raised:
            ground.s2.recovery.finish(wanted, soon())
        assert raised.value.statement == 0
        assert ground.balance(other.destination) == 0
        ground.finish("s2", other.gtrid, COMMITTED)
        assert (ground.balance(group.destination), ground.balance(other.destination)) == (7, 7)

    def test_a_decision_stands(self, ground: Ground) -> None:
        group, name = ground.prepare(), ""
        name = str(group.gtrid)
        assert ground.s1.recovery.read_decisions([name], soon()) == {}
        group.decide()
        assert ground.s1.recovery.read_decisions([name], soon()) == {name: COMMITTED}
        for _ in range(2):
            assert ground.s1.recovery.arbitrate([name], now(), soon()) == {name: COMMITTED}

    def test_what_is_not_decided_is_aborted_by_who_asks(self, ground: Ground) -> None:
        group = ground.prepare()
        name = str(group.gtrid)
        for _ in range(2):
            assert ground.s1.recovery.arbitrate([name], now(), soon()) == {name: ABORTED}
        with pytest.raises(DuplicateRow) as raised:
            group.home.decide(["s2"], now(), soon()).get()
        assert raised.value.statement == 0
        group.home.abandon()
        wait_until(lambda: ground.is_free(group.source), 5, "home keeps its lock")
        assert ground.balance(group.source) == 0
        assert ground.s1.recovery.read_decisions([name], soon()) == {name: ABORTED}

    def test_what_is_not_finished_is_undecided(self, ground: Ground) -> None:
        group, calls = ground.prepare(), ground.s1.reads
        id_ = group.transfer.id
        (stored,) = group.plan.results
        assert isinstance(stored, StoredTransfer)
        other = ground.transfer(group.source, group.destination).id
        assert calls.find_transfers([id_, other], soon()) == {id_: Undecided(stored)}
        group.decide()
        assert calls.find_transfers([id_, other], soon()) == {id_: stored}

    # --- accounts ---------------------------------------------------------------------------

    def test_a_shard_takes_only_what_is_its_own(self, ground: Ground) -> None:
        calls, elsewhere = ground.s1.reads, ground.name("s2")
        with pytest.raises(SlotMoved):
            calls.read_accounts([elsewhere], soon())
        with pytest.raises(SlotMoved):
            calls.open_accounts([Terms(elsewhere, "EUR", 0)], now(), soon())
        with pytest.raises(SlotMoved):
            calls.wait_until_free(elsewhere, soon())

    def test_stamps_ahead_of_the_clock_are_refused(self, ground: Ground) -> None:
        calls, name, later = ground.s1.reads, ground.open(), now() + HOUR_US
        with pytest.raises(ClockAhead):
            calls.open_accounts([Terms(ground.name(), "EUR", 0)], later, soon())
        with pytest.raises(ClockAhead):
            calls.change_status(name, Status.FROZEN, later, soon())

    def test_a_locked_account_is_busy(self, ground: Ground) -> None:
        calls, name = ground.s1.reads, ground.open()
        ground.branch("s1").lock([name], [], soon()).get()
        with pytest.raises(TryAgain):
            calls.change_status(name, Status.FROZEN, now(), soon())
        with pytest.raises(TryAgain):
            calls.balance_at(name, now(), soon())

    def test_a_balance_in_the_past_keeps_later_stamps_away(self, ground: Ground) -> None:
        name, at = ground.open(), now()
        found = ground.s1.reads.balance_at(name, at, soon())
        assert found is not None
        assert found[0].stamp_floor == at + 1
        assert ground.lock("s1", [name]).accounts[name].stamp_floor > at

    # --- reads at one moment ----------------------------------------------------------------

    def test_a_hold_keeps_writers_out(self, ground: Ground) -> None:
        name, busy = ground.open(), ground.open()
        ground.branch("s1").lock([busy], [], soon()).get()
        hold, other = ground.s1.hold(soon()), ground.s1.hold(soon())
        for each in (hold, other):
            held = each.lock([name, busy, ground.name()], soon(), waits=False).get()
            assert held.accounts == {name: ground.account(name)}
        assert hold.read_accounts([busy], soon()).keys() == {busy}
        assert not ground.is_free(name)
        for each in (hold, other):
            each.release(soon()).get()
            each.give_back()
        assert ground.is_free(name)
        ground.s1.reads.wait_until_free(name, soon())
        with pytest.raises(TryAgain):
            ground.s1.reads.wait_until_free(busy, soon())
        waiter = ground.s1.hold(soon())
        with pytest.raises(TryAgain):
            waiter.lock([busy], soon(), waits=True).get()
        waiter.abandon()

    # --- TC/C and Saga ----------------------------------------------------------------------

    @pytest.mark.parametrize("protocol", ["tcc", "saga"])
    def test_a_transfer_goes_through_its_phases(self, ground: Ground, protocol: str) -> None:
        gtrid, source, destination = ground.gtrid(), ground.open("s1"), ground.open("s2")
        transfer = ground.transfer(source, destination)._replace(protocol=protocol)
        row = begun(transfer, gtrid)
        first = LocalWrites()
        first.begun.append(row)
        first.accounts[source] = ground.account(source)._replace(held=7)
        commit(ground.s1, gtrid, first)
        assert ground.account(source).held == 7
        # It may be repeated, and changes nothing.
        with pytest.raises(DuplicateRow):
            commit(ground.s1, gtrid, first)
        calls, name = ground.s1.recovery, str(gtrid)
        assert calls.read_phases([name], 5) == [row]
        assert calls.phases_of([transfer.id], soon()) == [row]
        assert calls.phases_to([destination], soon()) == [row]
        (item,) = [item for item in calls.list_unfinished(soon()) if item.gtrid == gtrid]
        assert (item.protocol, item.phase, item.transfers) == (protocol, "one", 1)
        pending = ground.lock("s1", [source], transfer.id).known[transfer.id]
        assert (pending.status, pending.gtrid) == (PENDING, name)
        refused = calls.change_status(source, Status.CLOSED, now(), soon())
        assert isinstance(refused, Refusal)
        entered = ground.s1.local_transaction(name, soon())
        wanted = NOTHING._replace(accounts={source}, phases={transfer.id})
        found = entered.lock(wanted, soon()).get()
        assert found.phases == {row.attempt: row}
        assert found.locked.accounts.keys() == {source}
        entered.roll_back(soon()).get()
        entered.give_back()

    def test_a_phase_is_left_by_one(self, ground: Ground) -> None:
        gtrid, source = ground.gtrid(), ground.open()
        row = begun(ground.transfer(source, ground.open("s2"))._replace(protocol="tcc"), gtrid)
        first = LocalWrites()
        first.begun.append(row)
        commit(ground.s1, gtrid, first)
        change = LocalWrites()
        change.changed.append(PhaseChange(row.attempt, "one", state_of(row, "two")))
        commit(ground.s1, gtrid, change)
        # Who comes too late changes nothing, of all that it wanted.
        change.accounts[source] = ground.account(source)._replace(held=7)
        with pytest.raises(TryAgain):
            commit(ground.s1, gtrid, change)
        assert ground.account(source).held == 0
        (left,) = ground.s1.recovery.read_phases([str(gtrid)], 5)
        assert (left.phase, left.attempts) == ("two", 1)
        over = LocalWrites()
        over.changed.append(PhaseChange(row.attempt, "two", None))
        over.transfers.append(
            StoredTransfer(row.transfer, str(gtrid), "committed", None, None, now())
        )
        commit(ground.s1, gtrid, over)
        assert ground.s1.recovery.read_phases([str(gtrid)], 5) == []
        found = ground.s1.reads.find_transfers([row.transfer.id], soon())
        assert found == {row.transfer.id: over.transfers[0]}

    def test_a_step_is_made_once(self, ground: Ground) -> None:
        gtrid, account = ground.gtrid(), ground.open("s2")
        id_ = ground.transfer(ground.open(), account).id
        step = StepRow(id_, str(gtrid), account, 7, "tried", 0, now(), None, None)
        first = LocalWrites()
        first.new_steps.append(step)
        commit(ground.s2, gtrid, first)
        with pytest.raises(DuplicateRow):
            commit(ground.s2, gtrid, first)
        change = LocalWrites()
        change.next_steps.append(step._replace(state="confirmed", stamp=step.stamp + 1))
        for _ in range(2):
            commit(ground.s2, gtrid, change)
        assert ground.s2.reads.read_steps([id_], soon()) == change.next_steps
        change.next_steps.append(step._replace(transfer="unknown"))
        with pytest.raises(TryAgain):
            commit(ground.s2, gtrid, change)
        session = ground.s2.local_transaction(str(gtrid), soon())
        found = session.lock(NOTHING._replace(steps={id_, "unknown"}), soon()).get()
        assert found.steps == {step.attempt: change.next_steps[0]}
        session.roll_back(soon()).get()
        session.give_back()

    # --- purge ------------------------------------------------------------------------------

    def test_traces_are_removed(self, ground: Ground) -> None:
        group = ground.prepare()
        name = str(group.gtrid)
        before = name[:-1]
        group.decide()
        group.remote.commit(soon()).get()
        home, remote = ground.s1.purge, ground.s2.purge
        (decision,) = [d for d in home.some_decisions(before, 9, soon()) if d.gtrid == name]
        assert (decision.outcome, decision.branches) == (COMMITTED, ["s2"])
        assert name in remote.some_markers(before, 9, soon())
        for _ in range(2):
            home.drop_decisions([name], soon())
            remote.drop_markers([name], soon())
        assert name not in [d.gtrid for d in home.some_decisions(before, 9, soon())]
        assert name not in remote.some_markers(before, 9, soon())
        assert remote.marked([name], soon()) == set()

    def test_what_runs_is_told(self, ground: Ground) -> None:
        before = running(ground.s1)
        branch = ground.branch("s1")
        branch.lock([ground.open()], [], soon()).get()
        mine = running(ground.s1) - before
        assert mine
        branch.roll_back(soon()).get()
        wait_until(lambda: not mine & running(ground.s1), 5, "it runs for ever", every_s=0.2)

    # --- whether it can be used -------------------------------------------------------------

    def is_closed(self, ground: CallsGround) -> None:
        with pytest.raises(ShardUnavailable):
            ground.s1.branch("lock", soon(), is_local=True)


def begun(transfer: Transfer, gtrid: Gtrid) -> PhaseRow:
    at = now()
    return PhaseRow(transfer, str(gtrid), "one", PENDING, "x", "y", 0, at, at, at, None, None)


def state_of(row: PhaseRow, phase: str) -> PhaseState:
    return PhaseState(phase, PENDING, "x", "y", row.attempts + 1, now(), now(), None, None)


def commit(node: ShardNode, gtrid: Gtrid, writes: LocalWrites) -> None:
    """One local transaction. Raises ShardError."""
    session = node.local_transaction(str(gtrid), soon())
    try:
        session.commit(writes, soon()).get()
    except ShardError:
        session.abandon()
        raise
    session.give_back()


def running(node: ShardNode) -> frozenset[tuple[int, str]]:
    while (found := node.purge.running(soon())) is None:
        time.sleep(0.15)
    return found
