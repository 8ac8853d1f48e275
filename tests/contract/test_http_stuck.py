"""An account that somebody keeps locked: who pays it waits, and nobody else does."""

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager

import httpx
import pytest

from tests.cluster import Cluster, wait_until
from tests.contract.http import Town, client, is_problem, item, results, visit

# Transfers after which a rate is told.
COUNT = 30


@pytest.fixture
def town(any_cluster: Cluster) -> Town:
    return visit(any_cluster)


@contextmanager
def meanwhile(count: int, call: Callable[[], object]) -> Iterator[None]:
    """So many threads call this again and again, beside a block."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            call()

    with ThreadPoolExecutor(count) as pool:
        calls = [pool.submit(work) for _ in range(count)]
        try:
            yield
        finally:
            stop.set()
    for made in calls:
        made.result()


def seconds_of(town: Town, source: str, destination: str) -> float:
    """How long so many transfers take, one after the other."""
    began = time.monotonic()
    for _ in range(COUNT):
        assert town.transfer(source, destination, 1).status_code == 201
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("any_cluster", "protocol"),
    [("mysql", "xa"), ("mysql", "tcc"), ("mysql", "saga"), ("mariadb", "xa")],
    indirect=["any_cluster"],
)
def test_a_stuck_payee_does_not_stop_who_pays_it(town: Town, protocol: str) -> None:
    hot = town.account("s1", overdraft_limit=None)
    stuck, good = town.account("s2"), town.account("s2")
    answers: list[httpx.Response] = []

    def pay() -> None:
        # A new connection each time, so that each process of the coordinator has some.
        with client(town.urls[0]) as api:
            answers.append(town.transfer(hot, stuck, 1, api=api, protocol=protocol))

    alone_s = seconds_of(town, hot, good)
    with town.locked(stuck), meanwhile(6, pay):
        wait_until(lambda: len(answers) >= 2, 30, "nobody has given up")
        beside_s = seconds_of(town, hot, good)
        batch = [item(hot, good, 1, uuid.uuid4().hex) for _ in range(200)]
        answer = town.api.post("/v1/transfers/batch", json={"transfers": batch})
    alone_s = max(alone_s, seconds_of(town, hot, good))
    assert {result["status"] for result in results(answer)} == {"committed"}
    assert beside_s < 2 * alone_s + 0.5
    for answer in answers:
        if answer.status_code not in (201, 202):
            is_problem(answer, 503, "account-busy")
    # What was let go is had: by those that were begun, and by whoever comes.
    begun = Counter(answer.status_code for answer in answers)
    for answer in answers:
        if answer.status_code == 202:
            where = answer.headers["Location"]
            wait_until(lambda where=where: is_committed(town, where), 30, f"{where} is not done")
    assert town.transfer(hot, stuck, 1, protocol=protocol).status_code == 201
    assert town.balance(stuck) == begun[201] + begun[202] + 1


def is_committed(town: Town, where: str) -> bool:
    return town.api.get(where).json()["status"] == "committed"


@pytest.mark.parametrize(
    ("any_cluster", "protocol"),
    [("mysql", "xa"), ("mysql", "saga"), ("mariadb", "xa")],
    indirect=["any_cluster"],
)
def test_what_waits_for_a_stuck_account_is_done_when_it_is_let_go(
    town: Town, protocol: str
) -> None:
    hot, stuck = town.account("s1", overdraft_limit=None), town.account("s2")
    items = [item(hot, stuck, 1, f"k{n}") | {"protocol": protocol} for n in range(50)]
    with ThreadPoolExecutor(1) as pool:
        with town.locked(stuck):
            sent = pool.submit(town.api.post, "/v1/transfers/batch", json={"transfers": items})
            # As long as a wait in line, and a pause.
            time.sleep(2.5)
            assert not sent.done()
        let_go = time.monotonic()
        statuses = {result["status"] for result in results(sent.result())}
    assert statuses == {"committed"}
    assert time.monotonic() - let_go < 10
    assert town.balance(stuck) == 50


def test_an_account_that_others_lock_again_and_again_is_had(town: Town) -> None:
    """Whoever tries without waiting would have to find a gap that is not there."""
    hot, good = town.account("s1", overdraft_limit=None), town.account("s2")
    wanted = town.account("s2")

    def pay_others() -> None:
        assert town.transfer(hot, good, 1).status_code == 201

    with locked_again_and_again(town, wanted), meanwhile(2, pay_others):
        for _ in range(3):
            assert town.transfer(hot, wanted, 1).status_code == 201
    assert town.balance(wanted) == 3


@contextmanager
def locked_again_and_again(town: Town, account: str) -> Iterator[None]:
    """Two sessions hand an account's lock to each other, in the server's own line."""
    stop = threading.Event()

    def hold() -> None:
        while not stop.is_set():
            with town.locked(account):
                stop.wait(0.1)

    with ThreadPoolExecutor(2) as pool:
        holders = [pool.submit(hold) for _ in range(2)]
        try:
            yield
        finally:
            stop.set()
    for holder in holders:
        holder.result()


def test_a_stuck_account_does_not_stop_reads_and_transfers_of_others(town: Town) -> None:
    hot, good = town.account("s1", overdraft_limit=None), town.account("s1")
    stuck = town.account("s2")
    answers: list[int] = []

    def read() -> None:
        with client(town.urls[0]) as api:
            answer = api.get("/v1/balances", params={"account": [hot, stuck]})
            answers.append(answer.status_code)

    alone_s = seconds_of(town, hot, good)
    with town.locked(stuck), meanwhile(4, read):
        wait_until(lambda: answers, 30, "no read has given up")
        beside_s = seconds_of(town, hot, good)
        began = time.monotonic()
        for _ in range(10):
            found = town.api.get("/v1/balances", params={"account": [hot, good]})
            assert found.status_code == 200
        reading_s = time.monotonic() - began
    alone_s = max(alone_s, seconds_of(town, hot, good))
    assert set(answers) == {503}
    assert beside_s < 2 * alone_s + 0.5
    assert reading_s < 3
    assert town.api.get("/v1/balances", params={"account": [hot, stuck]}).status_code == 200


# --- one process ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def narrow(
    mysql_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A coordinator of one process and one executor, with room for twenty."""
    overrides = {
        "TANDEM_ENGINE_REQUEST_DEADLINE_MS": "1000",
        "TANDEM_ENGINE_QUEUE_MAX": "20",
        "TANDEM_ENGINE_EXECUTORS": "1",
        "TANDEM_COORDINATOR_WORKERS": "1",
    }
    log = tmp_path_factory.mktemp("narrow") / "log"
    with (
        mysql_cluster.coordinator("narrow", log, overrides) as running,
        client(running.url) as api,
    ):
        yield api


def gauge(api: httpx.Client, name: str) -> float:
    # Not by the client, which holds answers against the document.
    lines = httpx.get(f"{api.base_url}/metrics", verify=False).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"coordinator_{name} "))


def test_a_full_room_is_full_for_who_has_filled_it(
    mysql_cluster: Cluster, narrow: httpx.Client
) -> None:
    town = visit(mysql_cluster)
    stuck, payee = town.account("s1", overdraft_limit=None), town.account("s2")
    alice, bob = town.pair(funds=5)
    batches = [[item(stuck, payee, 1, f"{n}-{m}") for m in range(20)] for n in range(2)]
    with ThreadPoolExecutor(1) as pool:
        with town.locked(stuck):
            sent = pool.submit(narrow.post, "/v1/transfers/batch", json={"transfers": batches[0]})
            wait_until(lambda: gauge(narrow, "queue_length") == 20, 20, "nothing waits")
            # Others come in and are served at once, also by the only executor.
            for n in range(5):
                assert town.transfer(alice, bob, 1, f"k{n}", api=narrow).status_code == 201
            wait_until(lambda: gauge(narrow, "stuck_accounts") == 1, 20, "it is not seen")
            assert gauge(narrow, "stuck_transfers") == 20
        assert {result["status"] for result in results(sent.result())} == {"committed"}
    wait_until(lambda: gauge(narrow, "stuck_accounts") == 0, 20, "it is seen still")


def test_towards_a_stuck_account_no_more_sagas_begin(
    mysql_cluster: Cluster, narrow: httpx.Client
) -> None:
    town = visit(mysql_cluster)
    alice, stuck = town.account("s1", funds=100), town.account("s2")
    with town.locked(stuck):
        first = town.transfer(alice, stuck, 1, "first", api=narrow, protocol="saga")
        assert first.status_code == 202
        with town.unchanged(), ThreadPoolExecutor(10) as pool:
            answers = pool.map(
                lambda n: town.transfer(alice, stuck, 1, f"k{n}", api=narrow, protocol="saga"),
                range(10),
            )
            for answer in answers:
                is_problem(answer, 503, "account-busy")
        assert town.balance(alice) == 99
    wait_until(lambda: is_committed(town, first.headers["Location"]), 30, "the first is not done")
    assert town.transfer(alice, stuck, 1, "k0", api=narrow, protocol="saga").status_code == 201
    assert (town.balance(alice), town.balance(stuck)) == (98, 2)


@pytest.mark.parametrize("any_cluster", ["mysql"], indirect=True)
@pytest.mark.parametrize("protocol", ["xa", "tcc", "saga"])
def test_slots_that_are_being_changed_are_waited_for(town: Town, protocol: str) -> None:
    source, destination = town.account("s1", overdraft_limit=None), town.account("s2")
    with ThreadPoolExecutor(1) as pool, town.cluster.sql("s1") as session:
        with session.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT 1 FROM slots FOR UPDATE")
        sent = pool.submit(town.transfer, source, destination, 1, protocol=protocol)
        try:
            # Who is refused is so at once.
            assert not wait([sent], timeout=0.5).done
        finally:
            session.rollback()
        assert sent.result().status_code == 201
