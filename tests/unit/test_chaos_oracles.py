"""Every way to be wrong is found in a small history made by hand; a good history is let pass."""

import json
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from ledger.ids import SLOT_COUNT, slot_of
from ledger.model import Account
from tandem.chaos import fitting, hostile, nemesis, oracles
from tandem.chaos.history import (
    Attempt,
    History,
    Order,
    Reply,
    Told,
    Via,
    longest_gap_s,
    read_get,
    read_item,
    read_post,
)
from tandem.chaos.hostile import status_of
from tandem.chaos.oracles import Line, Violation
from tandem.chaos.report import Result, grouped, summary
from tandem.chaos.workload import account_names
from tandem.cli.chaos import command_line
from tandem.local.servers import Engine

ORDER = Order("k1", "a", "b", 5, "EUR")
OTHER = Order("k2", "b", "a", 1, "EUR")
BODY = {"id": ORDER.id, "status": "committed", "amount": 5, "committed_at": "noon"}
REFUSAL = {"type": "/problems/insufficient-funds", "status": 422, "detail": "3 is less than 5"}
VIEWED_REFUSAL = {"id": ORDER.id, "status": "rejected", "reason": "insufficient-funds"}


def attempt(
    told: Told, began: float, ended: float, via: Via = Via.POST, body: dict | None = None
) -> Attempt:
    reason = "insufficient-funds" if told is Told.REJECTED else ""
    if body is None and told is Told.COMMITTED and via is not Via.BATCH:
        body = BODY
    return Attempt(ORDER, via, "http://c1", began, ended, told, reason, body)


def ways(found: list[Violation]) -> list[str]:
    return [violation.way for violation in found]


def fold(attempts: list[Attempt]) -> list[str]:
    """What is found when these come in this order."""
    found: list[Violation] = []
    history = History(lambda earlier, new: found.extend(oracles.check_attempt(earlier, new)))
    for one in attempts:
        history.add(one)
    return ways(found)


# Answers


PENDING, ABSENT, UNKNOWN, NOTHING = Told.PENDING, Told.ABSENT, Told.UNKNOWN, Told.NOTHING
COMMITTED, REJECTED = Told.COMMITTED, Told.REJECTED


@pytest.mark.parametrize(
    "attempts",
    [
        [attempt(UNKNOWN, 0, 1), attempt(NOTHING, 2, 3), attempt(COMMITTED, 4, 5)],
        [attempt(PENDING, 0, 1), attempt(ABSENT, 2, 3, Via.GET), attempt(REJECTED, 4, 5)],
        [attempt(ABSENT, 0, 1, Via.GET), attempt(COMMITTED, 2, 3, Via.GET)],
        [attempt(COMMITTED, 0, 1), attempt(COMMITTED, 2, 3, Via.GET), attempt(UNKNOWN, 4, 5)],
        [attempt(COMMITTED, 0, 1), attempt(COMMITTED, 2, 3, Via.BATCH)],
        # After it is committed a write may still not know (202), or do nothing (503).
        [attempt(COMMITTED, 0, 1), attempt(PENDING, 2, 3), attempt(NOTHING, 4, 5)],
        # What was asked for before the outcome was known may say that it is not.
        [attempt(COMMITTED, 1, 2), attempt(PENDING, 0, 3, Via.GET)],
        [attempt(COMMITTED, 1, 2), attempt(ABSENT, 0, 3, Via.GET)],
        [
            attempt(REJECTED, 0, 1, body=REFUSAL),
            attempt(REJECTED, 2, 3, Via.GET, VIEWED_REFUSAL),
            attempt(REJECTED, 4, 5, body=REFUSAL),
        ],
    ],
)
def test_true_answers_are_let_pass(attempts: list[Attempt]) -> None:
    assert fold(attempts) == []


@pytest.mark.parametrize(
    ("way", "attempts"),
    [
        ("acknowledged-is-lost", [attempt(COMMITTED, 0, 1), attempt(ABSENT, 2, 3, Via.GET)]),
        ("acknowledged-is-lost", [attempt(COMMITTED, 0, 1), attempt(REJECTED, 2, 3)]),
        # At the same time, so either may have been first: both cannot be.
        ("acknowledged-is-lost", [attempt(COMMITTED, 0, 3), attempt(REJECTED, 1, 2)]),
        ("definite-error-took-effect", [attempt(REJECTED, 0, 1), attempt(COMMITTED, 2, 3)]),
        (
            "definite-error-took-effect",
            [attempt(REJECTED, 0, 1), attempt(COMMITTED, 2, 3, Via.BATCH)],
        ),
        ("status-went-backwards", [attempt(COMMITTED, 0, 1), attempt(PENDING, 2, 3, Via.GET)]),
        ("status-went-backwards", [attempt(REJECTED, 0, 1), attempt(PENDING, 2, 3, Via.GET)]),
        (
            "answer-changed",
            [
                attempt(COMMITTED, 0, 1),
                attempt(COMMITTED, 2, 3, Via.GET, {**BODY, "committed_at": "later"}),
            ],
        ),
        (
            "answer-changed",
            [
                attempt(REJECTED, 0, 1, body=REFUSAL),
                attempt(REJECTED, 2, 3)._replace(reason="account-frozen"),
            ],
        ),
        (
            "answer-changed",
            [
                attempt(REJECTED, 0, 1, body=REFUSAL),
                attempt(REJECTED, 2, 3, body={**REFUSAL, "detail": "4 is less than 5"}),
            ],
        ),
    ],
)
def test_an_untrue_answer_is_found(way: str, attempts: list[Attempt]) -> None:
    assert fold(attempts) == [way]


def test_order_is_that_of_time_not_of_arrival() -> None:
    late = [attempt(PENDING, 2, 3, Via.GET), attempt(COMMITTED, 0, 1)]
    assert fold(late) == ["status-went-backwards"]


# Before keys are sent again


def test_a_definite_error_took_effect() -> None:
    nothing = [attempt(NOTHING, 0, 1), attempt(NOTHING, 2, 3), attempt(UNKNOWN, 3, 4, Via.GET)]
    looked = attempt(COMMITTED, 9, 10, Via.GET)
    assert ways(oracles.check_looked(nothing, looked)) == ["definite-error-took-effect"]
    assert oracles.check_looked(nothing, attempt(ABSENT, 9, 10, Via.GET)) == []
    unknown = [*nothing, attempt(UNKNOWN, 4, 5)]
    for told in (COMMITTED, REJECTED, ABSENT):
        assert oracles.check_looked(unknown, attempt(told, 9, 10, Via.GET)) == []


def test_a_key_without_outcome_at_the_end() -> None:
    pending = attempt(PENDING, 9, 10, Via.GET)
    assert ways(oracles.check_looked([attempt(PENDING, 0, 1)], pending)) == ["in-doubt-left"]
    unknown = attempt(UNKNOWN, 9, 10, Via.GET)
    assert ways(oracles.check_looked([], unknown)) == ["locked-left"]
    assert ways(oracles.check_resent(attempt(NOTHING, 9, 10))) == ["locked-left"]
    assert oracles.check_resent(attempt(REJECTED, 9, 10)) == []


# Balances


def test_balances_of_one_moment() -> None:
    assert oracles.check_balances({"a": 60, "b": 40, "c": 0}, 100, "now") == []
    assert ways(oracles.check_balances({"a": 60, "b": 41}, 100, "now")) == ["total-changed"]
    assert ways(oracles.check_balances({"a": 101, "b": -1}, 100, "now")) == ["negative-balance"]


# Statements


def lines(order: Order) -> list[Line]:
    return [
        Line(order.id, order.source, -order.amount, order.destination),
        Line(order.id, order.destination, order.amount, order.source),
    ]


@pytest.mark.parametrize(
    ("way", "told", "found"),
    [
        ("", Told.COMMITTED, lines(ORDER)),
        ("", Told.REJECTED, []),
        ("", Told.UNKNOWN, []),
        ("acknowledged-is-lost", Told.COMMITTED, []),
        ("key-has-two-effects", Told.COMMITTED, [*lines(ORDER), *lines(ORDER)]),
        ("half-a-transfer", Told.COMMITTED, lines(ORDER)[:1]),
        ("half-a-transfer", Told.COMMITTED, [lines(ORDER)[0], Line(ORDER.id, "b", 6, "a")]),
        ("refusal-changed-something", Told.REJECTED, lines(ORDER)),
    ],
)
def test_effects(way: str, told: Told, found: list[Line]) -> None:
    outcomes = {ORDER: told, OTHER: Told.COMMITTED}
    assert ways(oracles.check_effects(outcomes, found + lines(OTHER))) == ([way] if way else [])


def test_an_effect_that_nobody_has_asked_for() -> None:
    assert ways(oracles.check_effects({}, lines(OTHER))) == ["half-a-transfer"]
    assert oracles.check_effects({}, lines(OTHER), known={OTHER.id}) == []


def test_books() -> None:
    told = lines(ORDER) + lines(OTHER)
    assert oracles.check_books({"a": -4, "b": 4}, told) == []
    assert ways(oracles.check_books({"a": -4, "b": 5}, told)) == ["books-do-not-agree"]


# In doubt, and locked


def test_what_is_prepared_is_in_the_view() -> None:
    g1, g2 = ("g1", "s1"), ("g2", "s2")
    assert oracles.check_in_view({g1, g2}, {g1}, {g1}, ()) == []
    found = oracles.check_in_view({g1, g2}, {g1}, {g1, g2}, ())
    assert [(v.way, v.subject) for v in found] == [("prepared-not-in-view", "g2")]
    assert oracles.check_in_view({g1, g2}, {g1}, {g1, g2}, {"s2"}) == []


def test_what_is_left() -> None:
    assert oracles.check_nothing_left((), (), 1) == []
    left = oracles.check_nothing_left({("g1", "s1")}, {("g1", "s1"), ("g2", "s1")}, 60)
    assert ways(left) == ["in-doubt-left"] * 2
    assert oracles.check_paid("a", "from", Told.COMMITTED, "") == []
    assert ways(oracles.check_paid("a", "from", Told.NOTHING, "503")) == ["locked-left"]


def test_every_way_that_is_found_has_a_meaning() -> None:
    said = {way for way in oracles.WAYS if way not in ("does-not-come-back", "ended-by-itself")}
    source = oracles.__file__
    with open(source) as file:
        text = file.read()
    assert all(text.count(f'"{way}"') >= 2 for way in said)


# What answers mean


PROBLEM = {"type": "/problems/account-busy", "detail": "nothing has happened by this request"}


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Reply(201, BODY, ""), COMMITTED),
        (Reply(422, REFUSAL, ""), REJECTED),
        (Reply(202, {"status": "pending"}, ""), PENDING),
        (Reply(409, PROBLEM, ""), NOTHING),
        (Reply(429, PROBLEM, ""), NOTHING),
        (Reply(503, PROBLEM, ""), NOTHING),
        (Reply(500, PROBLEM, ""), NOTHING),
        (
            Reply(500, {**PROBLEM, "detail": "whether anything has happened is not known"}, ""),
            UNKNOWN,
        ),
        (
            Reply(503, {**PROBLEM, "detail": "whether anything has happened is not known"}, ""),
            UNKNOWN,
        ),
        # Not Tandem's: that of a proxy, say.
        (Reply(503, None, ""), UNKNOWN),
        (Reply(502, "bad gateway", ""), UNKNOWN),
        (Reply(0, None, "lost connection"), UNKNOWN),
        (Reply(0, None, "refused connection", was_sent=False), NOTHING),
    ],
)
def test_what_an_answer_says(reply: Reply, told: Told) -> None:
    assert read_post(reply)[0] is told


def test_what_a_status_says() -> None:
    assert read_get(Reply(200, BODY, "")) == (COMMITTED, "", BODY)
    assert read_get(Reply(200, VIEWED_REFUSAL, ""))[:2] == (REJECTED, "insufficient-funds")
    assert read_get(Reply(200, {"status": "pending"}, ""))[0] is PENDING
    assert read_get(Reply(404, PROBLEM, ""))[0] is ABSENT
    assert read_get(Reply(503, PROBLEM, ""))[0] is UNKNOWN


def test_what_an_item_says() -> None:
    assert read_item({"status": "committed"}) == (COMMITTED, "")
    assert read_item({"status": "rejected", "reason": "x"}) == (REJECTED, "x")
    assert read_item({"status": "failed", "reason": "account-busy"}) == (NOTHING, "account-busy")
    assert read_item({"status": "pending"}) == (PENDING, "")


# What is tried, and what is shown


SERVERS = {"coordinator": ["c1", "c2", "c3"], "mysql": ["s1", "s2", "s3"], "zookeeper": ["zk"]}
GROUP = {"coordinator": ["c1", "c2"], "node": ["s1"], "reads": ["s1-reads"], "zookeeper": ["zk"]}


@pytest.mark.parametrize("parts", [SERVERS, GROUP], ids=["servers", "group"])
def test_somebody_can_always_go_on(parts: dict[str, list[str]]) -> None:
    chance = random.Random(1)
    tried = Counter()
    for _ in range(2000):
        away: set[str] = set()
        while chosen := nemesis.choose(chance, nemesis.DEEDS, parts, away):
            assert chosen.target not in away
            assert chosen.deed.least_s <= chosen.for_s <= chosen.deed.most_s
            away.add(chosen.target)
            tried[chosen.deed] += 1
        assert 0 < len(away) <= nemesis.AWAY_MAX
        assert not away.issuperset(parts["coordinator"])
        assert not away.issuperset(parts.get("mysql", ["a server"]))
    assert set(tried) == {deed for deed in nemesis.DEEDS if deed.kind in parts}


def test_the_same_seed_gives_the_same_choices() -> None:
    parts = {"coordinator": ["c1", "c2"], "mysql": ["s1", "s2"], "zookeeper": ["zk"]}
    runs = [
        [nemesis.choose(chance, nemesis.DEEDS, parts, ()) for _ in range(50)]
        for chance in (random.Random(7), random.Random(7))
    ]
    assert runs[0] == runs[1]
    assert nemesis.points(random.Random(7)) == nemesis.points(random.Random(7))


def test_what_the_words_of_faults_bring() -> None:
    def kinds(*words: str) -> set[tuple[str, str]]:
        return {(deed.name, deed.kind) for deed in nemesis.deeds_of(words)}

    assert kinds("workers") == {("kill -9 a worker of", "coordinator")}
    shards = {"mysql", "node", "reads"}
    assert {kind for _, kind in kinds("freezes")} == {"coordinator", "zookeeper", *shards}
    every = {(name, kind) for name in ("kill -9", "stop", "freeze") for kind in shards}
    assert kinds("shards", "freezes") == {
        *every,
        (nemesis.EMPTY, "reads"),
        (nemesis.TEAR, "node"),
    }
    assert nemesis.deeds_of(("points",)) == []


@pytest.mark.parametrize("parts", [SERVERS, GROUP], ids=["servers", "group"])
def test_nuisances_leave_each_other_room(parts: dict[str, list[str]]) -> None:
    chance = random.Random(1)
    tried = Counter()
    for _ in range(2000):
        lasting: list[nemesis.Disturbance] = []
        while chosen := nemesis.choose_nuisance(chance, nemesis.NUISANCES, parts, lasting):
            assert chosen.target in parts[chosen.deed.kind]
            taken = [(other.deed.fault, other.target) for other in lasting]
            assert (chosen.deed.fault, chosen.target) not in taken
            lasting.append(chosen)
            tried[chosen.deed] += 1
        assert 0 < len(lasting) <= nemesis.NUISANCES_MAX
    assert set(tried) == {deed for deed in nemesis.NUISANCES if deed.kind in parts}


@pytest.mark.parametrize("engine", get_args(Engine))
def test_each_fault_that_fits_a_kind_of_shard_brings_something(engine: Engine) -> None:
    kinds = set(GROUP if engine == "eventstore" else SERVERS)
    deeds = [*nemesis.DEEDS, *nemesis.NUISANCES]
    brought = {deed.fault for deed in deeds if deed.kind in kinds}
    # These bring no deeds: coordinators strike themselves, a hand and an attacker are for all.
    others = {"points", nemesis.LOSSES, nemesis.REQUESTS}
    fit = fitting.fitting(nemesis.FAULTS, engine)
    assert fit - others == brought
    assert fitting.misfit(fit, engine) == ""
    for word in set(nemesis.FAULTS) - fit:
        assert word in fitting.misfit([word], engine)


def test_each_planted_bug_is_in_the_way_of_one_kind_of_shard() -> None:
    for plant in nemesis.PLANTS:
        assert fitting.plant_fits(plant, "mysql") == fitting.plant_fits(plant, "mariadb")
        assert fitting.plant_fits(plant, "mysql") != fitting.plant_fits(plant, "eventstore")
        for engine in get_args(Engine):
            if fitting.plant_fits(plant, engine):
                assert not fitting.misfit(fitting.PLANT_FAULTS.get(plant, ()), engine)


def test_what_only_a_cluster_of_its_own_can_bear_is_among_the_words() -> None:
    assert nemesis.OWN_CLUSTER.issubset(nemesis.FAULTS)
    assert nemesis.points(random.Random(7), faults=("clocks",)).startswith("seed=")
    assert "=" not in nemesis.points(random.Random(7), faults=("clocks",)).removeprefix("seed=")
    assert {deed.name for deed in nemesis.nuisances_of(("clocks",))} == {nemesis.CLOCK}
    assert nemesis.nuisances_of(("shards", "points")) == []


# What a read side tells


def test_a_read_side_that_tells_something_else() -> None:
    alice = Account("alice", "EUR", 5, 0, "open", 1, 7, "")
    bob = alice._replace(id="bob", chain="c0ffee")
    wanted = {"alice": alice, "bob": bob._replace(chain="")}
    assert oracles.check_told("s1", wanted, {"alice": alice, "bob": bob}) == []
    wrong = [
        {"alice": alice},
        {"alice": alice, "bob": bob._replace(balance=6)},
        {"alice": alice, "bob": bob, "carl": bob},
    ]
    for told in wrong:
        assert ways(oracles.check_told("s1", wanted, told)) == ["read-side-differs"]


# Requests that are to be refused


def test_what_a_hostile_request_may_be_answered() -> None:
    def found(answer: bytes) -> list[str]:
        return ways(oracles.check_hostile("odd", status_of(answer), answer))

    assert found(b"") == []
    assert found(b"HTTP/1.1 400 Bad Request\r\n\r\n{}") == []
    assert found(b"HTTP/1.1 503 Service Unavailable\r\n\r\n{}") == []
    assert found(b"HTTP/1.1 200 OK\r\n\r\n" + b'{"results":[{"status":"failed"}]}') == []
    assert found(b"HTTP/1.1 500 Oh\r\n\r\n{}") == ["refusal-is-our-fault"]
    taken = b'HTTP/1.1 201 Created\r\n\r\n{"status":"committed"}'
    assert found(taken) == ["hostile-request-taken"]


def test_every_hostile_request_is_another_one() -> None:
    made = hostile.requests("alice", "bob", "key-1")
    assert len({request.name for request in made}) == len(made)
    assert len({request.parts for request in made}) == len(made)
    plain = json.dumps({"source": "alice", "destination": "bob", "amount": 1, "currency": "EUR"})
    odd_heads = {"a key given twice", "an unknown parameter", "two lengths", "an odd origin"}
    for request in made:
        body = b"".join(request.parts).partition(b"\r\n\r\n")[2]
        assert (body == plain.encode()) == (request.name in odd_heads)


def test_a_time_that_has_not_come() -> None:
    now = datetime(2026, 11, 30, 12, tzinfo=UTC)
    assert oracles.check_times("a", [now, now - timedelta(days=1)], now) == []
    assert ways(oracles.check_times("a", [now + timedelta(hours=1)], now)) == ["time-ahead"]


def test_accounts_are_spread_over_the_slots() -> None:
    names = account_names("run", 12)
    assert [slot_of(name) * 12 // SLOT_COUNT for name in names] == list(range(12))


def test_the_longest_time_without_a_commit() -> None:
    assert longest_gap_s([], 1, 4) == 3
    assert longest_gap_s([0.5, 2, 9], 1, 4) == 2
    assert longest_gap_s([3, 2], 1, 4) == 1


def test_the_command_to_repeat_a_run() -> None:
    options = {
        "seconds": 60.0,
        "seed": 7,
        "data_dir": None,
        "url": ("http://a", "http://b"),
        "faults": frozenset({"workers", "shards"}),
    }
    assert command_line(options) == (
        "tandem chaos --seconds 60 --seed 7 --url http://a --url http://b --faults shards,workers"
    )


def test_answers_in_groups() -> None:
    answers = {"201": 3, "422 x": 1, "409 y": 1, "503 z": 2, "lost connection": 1, "batch: 200": 9}
    answers |= {"refused connection": 4, "no answer within 12 s": 1, "500 w": 1, "202": 1}
    assert list(grouped(answers).values()) == [3, 1, 2, 2, 2, 4, 1]


def test_the_table_names_every_way_that_was_found() -> None:
    violations = [Violation("total-changed", "read 1", "99"), Violation("audit: x", "y", "z")]
    result = Result(7, 60, "again", {"kill -9 shard": 2}, {"201": 5}, {"n": "1"}, violations)
    cells = [str(cell) for column in summary(result).columns for cell in column.cells]
    assert any(cell.startswith("total-changed: the balances") for cell in cells)
    assert {"tried", "clients saw", "measured", "found", "kill -9 shard"} <= set(cells)
    assert result.document["violations"][0]["way"] == "total-changed"
