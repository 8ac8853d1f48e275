"""What is in doubt on a shard: it survives, it is found, and anybody can finish it, once."""

import secrets
import threading
import time
from collections.abc import Callable

import pytest

from shard_client import prepared
from shard_client.connection import ShardConnection
from shard_client.errors import DuplicateRow, ShardError, TryAgain, UnknownBranch
from shard_client.prepared import end_sessions_of, list_prepared, read_decisions
from shard_client.records import DecisionOutcome, Look, PreparedBranch, Undecided
from shard_client.transfers import make_durable, probe
from shard_client.xid import Gtrid
from tests.cluster import wait_until
from tests.contract.bench import Bench, now, soon

COMMITTED, ABORTED = DecisionOutcome.COMMITTED, DecisionOutcome.ABORTED


def ours(bench: Bench, shard: str = "s2") -> list[PreparedBranch]:
    return list_prepared(bench.connect(shard), bench.cluster.settings.cluster.id, soon())


def arbitrate(home: ShardConnection, gtrid: str, stamp: int, deadline: float) -> DecisionOutcome:
    return prepared.arbitrate(home, [gtrid], stamp, deadline)[gtrid]


def read_decision(home: ShardConnection, gtrid: str, deadline: float) -> DecisionOutcome | None:
    return read_decisions(home, [gtrid], deadline).get(gtrid)


def finish(
    connection: ShardConnection, gtrid: str, outcome: DecisionOutcome, deadline: float
) -> None:
    prepared.finish(connection, [(gtrid, outcome)], deadline)


def look(connection: ShardConnection, branch: PreparedBranch, deadline: float) -> Look:
    gtrid = str(branch.gtrid)
    return prepared.look(connection, branch.gtrid.cluster, [gtrid], deadline)[gtrid]


def finish_when_free(bench: Bench, gtrid: Gtrid, outcome: DecisionOutcome) -> None:
    """Finish a branch on s2 whose session is about to end (MariaDB keeps it until then)."""

    def is_done() -> bool:
        try:
            finish(bench.connect("s2"), str(gtrid), outcome, soon())
        except UnknownBranch:
            return False
        return True

    wait_until(is_done, 5, "the branch cannot be finished")


# --- surviving and finishing ----------------------------------------------------------------


@pytest.mark.parametrize("outcome", list(DecisionOutcome))
def test_a_branch_survives_its_session_and_another_finishes_it(
    bench: Bench, outcome: DecisionOutcome
) -> None:
    gtrid, transfer = bench.across()
    branches = bench.prepare(gtrid, transfer)
    if outcome is COMMITTED:
        branches["s1"].decide(["s2"], now(), soon()).get()
    else:
        branches["s1"].roll_back(soon()).get()
    bench.end_session(branches["s2"].connection)
    assert ours(bench) == [PreparedBranch(gtrid, "s2")]
    # The books show nothing of it until it is finished, and its row stays locked.
    assert bench.balances([transfer.destination]) == {transfer.destination: 0}
    assert bench.free_of([transfer.destination], "s2") == set()
    finish(bench.connect("s2"), str(gtrid), outcome, soon())
    expected = 7 if outcome is COMMITTED else 0
    assert bench.balances([transfer.destination]) == {transfer.destination: expected}
    assert bench.free_of([transfer.destination], "s2") == {transfer.destination}
    assert ours(bench) == []


def test_a_branch_whose_session_lives(bench: Bench) -> None:
    """MySQL lets anybody finish it at once; MariaDB after its session has ended."""
    gtrid, transfer = bench.across()
    branches = bench.prepare(gtrid, transfer)
    branches["s1"].roll_back(soon()).get()
    other = bench.connect("s2")
    if other.is_mariadb:
        with pytest.raises(UnknownBranch):
            finish(other, str(gtrid), ABORTED, soon())
        assert look(bench.connect("s2"), PreparedBranch(gtrid, "s2"), soon()) is Look.BUSY
        # The process behind it may be frozen: its session is ended from outside.
        assert end_sessions_of(bench.connect("s2"), gtrid.cluster, [str(gtrid)], soon())
        finish_when_free(bench, gtrid, ABORTED)
        with pytest.raises(ShardError):
            branches["s2"].commit(soon()).get()
    else:
        assert not end_sessions_of(other, gtrid.cluster, [str(gtrid)], soon())
        finish(other, str(gtrid), ABORTED, soon())
        assert branches["s2"].connection.is_open
    assert look(bench.connect("s2"), PreparedBranch(gtrid, "s2"), soon()) is Look.ABSENT


def test_its_own_session_finishes_it(bench: Bench) -> None:
    gtrid, transfer = bench.across()
    branches = bench.prepare(gtrid, transfer)
    branches["s1"].decide(["s2"], now(), soon()).get()
    branches["s2"].commit(soon()).get()
    assert branches["s2"].connection.is_open
    assert bench.balances([transfer.destination]) == {transfer.destination: 7}


# --- looking --------------------------------------------------------------------------------


def test_committed_twice(bench: Bench) -> None:
    gtrid, transfer = bench.across()
    branches = bench.prepare(gtrid, transfer)
    branches["s1"].decide(["s2"], now(), soon()).get()
    branches["s2"].commit(soon()).get()
    connection = bench.connect("s2")
    with pytest.raises(UnknownBranch):
        finish(connection, str(gtrid), COMMITTED, soon())
    assert not connection.is_open
    assert look(bench.connect("s2"), PreparedBranch(gtrid, "s2"), soon()) is Look.COMMITTED
    assert bench.balances([transfer.destination]) == {transfer.destination: 7}


def test_rolled_back_twice(bench: Bench) -> None:
    gtrid, transfer = bench.across()
    branches = bench.prepare(gtrid, transfer)
    for branch in branches.values():
        branch.roll_back(soon()).get()
    with pytest.raises(UnknownBranch):
        finish(bench.connect("s2"), str(gtrid), ABORTED, soon())
    assert look(bench.connect("s2"), PreparedBranch(gtrid, "s2"), soon()) is Look.ABSENT


def test_prepared_or_about_to_be_is_busy(bench: Bench) -> None:
    gtrid, transfer = bench.across()
    branch = PreparedBranch(gtrid, "s2")
    assert look(bench.connect("s2"), branch, soon()) is Look.ABSENT
    bench.prepare(gtrid, transfer)
    assert look(bench.connect("s2"), branch, soon()) is Look.BUSY


def test_a_marker_that_is_being_written_is_busy(bench: Bench) -> None:
    gtrid = bench.gtrid()
    with bench.admin("s2") as cursor:
        cursor.execute("INSERT INTO markers VALUES (%s, 's2', 0)", [str(gtrid)])
        assert look(bench.connect("s2"), PreparedBranch(gtrid, "s2"), soon()) is Look.BUSY
    assert look(bench.connect("s2"), PreparedBranch(gtrid, "s2"), soon()) is Look.ABSENT


def test_a_session_is_good_after_a_look(bench: Bench) -> None:
    """The one dirty read does not change the reads after it."""
    connection, gtrid = bench.connect("s2"), bench.gtrid()
    look(connection, PreparedBranch(gtrid, "s2"), soon())
    with bench.admin("s2") as cursor:
        cursor.execute("INSERT INTO markers VALUES (%s, 's2', 0)", [str(gtrid)])
        query = f"SELECT 1 FROM markers WHERE gtrid = '{gtrid}'"
        assert connection.rows(query, soon()) == ()


# --- deciding -------------------------------------------------------------------------------


def test_without_a_decision_aborted_wins(bench: Bench) -> None:
    gtrid = str(bench.gtrid())
    home = bench.connect()
    assert read_decision(home, gtrid, soon()) is None
    assert arbitrate(home, gtrid, now(), soon()) is ABORTED
    assert arbitrate(bench.connect(), gtrid, now(), soon()) is ABORTED
    assert read_decision(home, gtrid, soon()) is ABORTED
    query = f"SELECT outcome, seen FROM decisions WHERE gtrid = '{gtrid}'"
    assert bench.cluster.rows("s1", query) == [("aborted", 1)]


def test_a_decision_that_is_there_is_obeyed(bench: Bench) -> None:
    gtrid, transfer = bench.across()
    branches = bench.prepare(gtrid, transfer)
    branches["s1"].decide(["s2"], now(), soon()).get()
    assert arbitrate(bench.connect(), str(gtrid), now(), soon()) is COMMITTED
    assert read_decision(bench.connect(), str(gtrid), soon()) is COMMITTED
    query = f"SELECT outcome, branches FROM decisions WHERE gtrid = '{gtrid}'"
    assert bench.cluster.rows("s1", query) == [("committed", "s2")]
    branches["s2"].commit(soon()).get()


def test_a_coordinator_that_comes_too_late_is_refused(bench: Bench) -> None:
    gtrid, transfer = bench.across()
    branches = bench.prepare(gtrid, transfer)
    assert arbitrate(bench.connect(), str(gtrid), now(), soon()) is ABORTED
    with pytest.raises(DuplicateRow) as caught:
        branches["s1"].decide(["s2"], now(), soon()).get()
    # The first statement: so it is certain that home has not committed.
    assert caught.value.statement == 0
    assert not branches["s1"].connection.is_open
    branches["s2"].connection.close()
    finish_when_free(bench, gtrid, ABORTED)
    names = [transfer.source, transfer.destination]
    wait_until(lambda: bench.free_of(names) == {names[0]}, 5, "home is still locked")
    assert bench.balances(names) == dict.fromkeys(names, 0)


@pytest.mark.parametrize(("ending", "expected"), [("COMMIT", COMMITTED), ("ROLLBACK", ABORTED)])
def test_arbitration_waits_for_one_that_is_about_to_decide(
    bench: Bench, ending: str, expected: DecisionOutcome
) -> None:
    gtrid = str(bench.gtrid())
    deciding, found = bench.connect(), list[DecisionOutcome]()
    insert = f"INSERT INTO decisions VALUES ('{gtrid}', 'committed', '', 0, 1)"
    deciding.query(["START TRANSACTION", insert], soon())
    asking = bench.connect()
    thread = threading.Thread(target=lambda: found.append(arbitrate(asking, gtrid, now(), soon())))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    assert found == []
    # Not even a dirty look decides: the row is not there until it is committed.
    assert read_decision(bench.connect(), gtrid, soon()) is None
    deciding.query([ending], soon())
    thread.join(5)
    assert found == [expected]


def test_arbitration_that_waits_too_long_decides_nothing(bench: Bench) -> None:
    gtrid = str(bench.gtrid())
    with bench.admin() as cursor:
        cursor.execute(f"INSERT INTO decisions VALUES ('{gtrid}', 'committed', '', 0, 1)")
        with pytest.raises(TryAgain):
            arbitrate(bench.connect(), gtrid, now(), soon())
    assert read_decision(bench.connect(), gtrid, soon()) is None


def test_many_arbitrate_and_all_hear_the_same(bench: Bench) -> None:
    """Against each other and against the coordinator; whoever is first."""
    for _ in range(5):
        gtrid, heard = str(bench.gtrid()), list[object]()
        connections = [bench.connect() for _ in range(4)]
        start = threading.Barrier(5)

        def ask(
            connection: ShardConnection,
            gtrid: str = gtrid,
            heard: list[object] = heard,
            start: threading.Barrier = start,
        ) -> None:
            start.wait()
            try:
                heard.append(arbitrate(connection, gtrid, now(), soon()))
            except TryAgain:
                heard.append(None)

        threads = [threading.Thread(target=ask, args=[one]) for one in connections]
        for thread in threads:
            thread.start()
        deciding = bench.branch("s1", bench.gtrid())
        deciding.gtrid = gtrid
        deciding.lock([], [], soon()).get()
        start.wait()
        try:
            deciding.decide([], now(), soon()).get()
            heard.append(COMMITTED)
        except (DuplicateRow, TryAgain):
            heard.append(None)
        for thread in threads:
            thread.join(10)
        assert len(heard) == 5
        assert set(heard) - {None} == {read_decision(bench.connect(), gtrid, soon())}


# --- listing --------------------------------------------------------------------------------


def _prepared_by_others(bench: Bench, xids: list[str]) -> None:
    for xid in xids:
        connection = bench.connect("s2")
        # A branch that has written nothing could be ended by the server on its own.
        insert = f"INSERT INTO markers VALUES ('{secrets.token_hex(9)}', 'x', 0)"
        connection.query([f"XA START {xid}", insert, f"XA END {xid}", f"XA PREPARE {xid}"], soon())
        bench.end_session(connection)


def _rolled_back(bench: Bench, xids: list[str]) -> None:
    for xid in xids:
        bench.connect("s2").query([f"XA ROLLBACK {xid}"], soon())


def test_branches_of_others_are_not_listed(bench: Bench) -> None:
    mine = bench.gtrid()
    other = bench.gtrid(cluster="another")
    number = 0x54414E44
    xids = [
        f"'{other}','s2',{number}",
        # Ours by name, but not as we name them.
        f"'{bench.gtrid()}','s1',{number}",
        f"'{bench.gtrid()}','',{number}",
        f"'{bench.gtrid()}','s2',1",
        f"'{bench.gtrid()}','s2',{number + 1}",
        f"'{str(bench.gtrid()).upper()}','s2',{number}",
        f"'{bench.gtrid()}x','s2',{number}",
        f"'a person''s','s2',{number}",
        f"'{bench.prefix}','',1",
        # Binary, as Java's transaction managers make them.
        f"X'00ff80c3{bench.prefix}',X'fe0027',{number}",
        f"X'c3{bench.prefix}',X'',131077",
        f"X'30783078{bench.prefix}',X'5827',{number}",
    ]
    _prepared_by_others(bench, xids)
    try:
        assert ours(bench) == []
        _prepared_by_others(bench, [f"'{mine}','s2',{number}"])
        assert ours(bench) == [PreparedBranch(mine, "s2")]
        assert list_prepared(bench.connect("s2"), "another", soon()) == [
            PreparedBranch(other, "s2")
        ]
    finally:
        _rolled_back(bench, xids)
    finish(bench.connect("s2"), str(mine), ABORTED, soon())
    assert ours(bench) == []


@pytest.mark.parametrize("coordinator", ["c1x", "a-b_c", "0x1f", "x-0xab", "0", "x"])
def test_every_coordinator_s_branches_are_listed(bench: Bench, coordinator: str) -> None:
    """Whatever letters its name is made of."""
    gtrid = bench.gtrid(coordinator=coordinator)
    _prepared_by_others(bench, [f"'{gtrid}','s2',{0x54414E44}"])
    assert ours(bench) == [PreparedBranch(gtrid, "s2")]


# --- transfers in doubt ---------------------------------------------------------------------


def test_nothing_stored_undecided(bench: Bench) -> None:
    gtrid, transfer = bench.across()
    ids = [transfer.id, bench.transfer(transfer.source, "x").id]
    assert probe(bench.connect(), ids, soon()) == {}
    branches = bench.prepare(gtrid, transfer)
    found = probe(bench.connect(), ids, soon())
    assert found.keys() == {transfer.id}
    undecided = found[transfer.id]
    assert isinstance(undecided, Undecided)
    # It names the group, whose home knows more.
    assert undecided.stored.gtrid == str(gtrid)
    assert undecided.stored.transfer == transfer
    branches["s1"].decide(["s2"], now(), soon()).get()
    assert probe(bench.connect(), ids, soon()) == {transfer.id: undecided.stored}
    branches["s2"].commit(soon()).get()


def test_a_transfer_in_a_prepared_branch_is_undecided(bench: Bench) -> None:
    """Where the source is not on the group's home."""
    _, transfer = bench.across()
    gtrid = bench.gtrid(home="s2")
    branches = bench.prepare(gtrid, transfer)
    bench.end_session(branches["s1"].connection)
    assert isinstance(probe(bench.connect(), [transfer.id], soon())[transfer.id], Undecided)
    branches["s2"].roll_back(soon()).get()
    finish(bench.connect(), str(gtrid), ABORTED, soon())
    assert probe(bench.connect(), [transfer.id], soon()) == {}


def test_a_probe_waits_for_nobody_and_leaves_its_session_clean(bench: Bench) -> None:
    gtrid, transfer = bench.across()
    bench.prepare(gtrid, transfer)
    connection = bench.connect()
    begun = time.monotonic()
    probe(connection, [transfer.id], soon())
    assert time.monotonic() - begun < 0.5
    query = f"SELECT 1 FROM transfers WHERE id = '{transfer.id}'"
    assert connection.rows(query, soon()) == ()


# --- what was read counts after a write (rule R2) -------------------------------------------


def _touches(bench: Bench, call: Callable[[ShardConnection], object]) -> int:
    query = "SELECT touched FROM shard_identity"
    connection = bench.connect()
    before = int(connection.rows(query, soon())[0][0])
    call(connection)
    return int(connection.rows(query, soon())[0][0]) - before


def test_what_is_read_is_made_durable_where_the_server_does_not(bench: Bench) -> None:
    gtrid, transfer = bench.across()
    branches = bench.prepare(gtrid, transfer)
    branches["s1"].decide(["s2"], now(), soon()).get()
    branches["s2"].commit(soon()).get()
    for call in (
        lambda c: make_durable(c, soon()),
        lambda c: read_decision(c, str(gtrid), soon()),
        lambda c: probe(c, [transfer.id], soon()),
    ):
        touches = _touches(bench, call)
        if bench.connect().is_mariadb:
            assert touches >= 1
    assert bench.connect().is_durable_before_visible != bench.connect().is_mariadb


def test_errors_leave_no_usable_session(bench: Bench) -> None:
    connection = bench.connect()
    with pytest.raises(ShardError):
        finish(connection, str(bench.gtrid()), ABORTED, soon())
    assert not connection.is_open
