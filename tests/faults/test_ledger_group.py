"""A ledger group whose processes are killed, frozen and restarted while money moves: over HTTP,
with real processes. Answers stay true, nothing is lost or doubled, and what waits gets its end.

A file system that is full is not here, for to mount a small one takes root: a node whose files may
grow no more is. That it takes nothing when its disk is almost full is in tests/eventstore.
"""

import os
import re
import shutil
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from faults.points import GROUP_POINTS
from ledger.ids import transfer_id
from tandem.chaos.faults import Hands
from tandem.local import state
from tandem.local.cluster import LocalCluster, Options
from tests.bank import Bank, Load, client, post, post_one, together, transfer
from tests.cluster import Cluster, wait_until
from tests.faults.conftest import SHORT
from tests.faults.victims import Victim, new_name, started

NODE, READS = "s1", "s1-reads"
FUNDS = 1000
# Few: they send again at once what is refused at once, while a process has to start.
CLIENTS = 4


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A ledger group and two coordinators, all of which a test may kill."""
    local = LocalCluster(
        tmp_path_factory.mktemp("group") / "cluster", coordinator_environment=SHORT
    )
    try:
        local.up(Options(coordinators=2, engine="eventstore"))
        yield Cluster(local)
    finally:
        local.down()


def bank_of(group: Cluster, accounts: int = 20) -> Bank:
    # Whatever the test before has done to it.
    await_well(group)
    bank = Bank(group, accounts, FUNDS)
    bank.protocols = ["tcc", "saga"]
    return bank


def await_well(group: Cluster) -> None:
    """Wait until all coordinators use the group, and its read side answers them."""

    def troubles() -> list[str]:
        with client(group.urls[0]) as http:
            answers = [http.get(f"{url}/readyz") for url in group.urls]
        return [answer.text for answer in answers if answer.json()["troubles"]]

    wait_until(lambda: not troubles(), 60, lambda: f"not well: {troubles()}")


def check(bank: Bank, items: Mapping[str, dict], told: Mapping[str, str | None]) -> None:
    """Send all again: what was told stands, all have an outcome, and each has moved its money once
    or not at all. `items` and `told` are by keys.
    """
    expected = Counter(dict.fromkeys(bank.accounts, FUNDS))
    for url in bank.cluster.urls:
        with client(url) as http:
            results = post(http, "/v1/transfers/batch", {"transfers": list(items.values())})
        outcomes = {}
        for (key, item), result in zip(items.items(), results["results"], strict=True):
            outcomes[key] = result["status"]
            assert result["status"] in ("committed", "rejected"), (item, result)
            assert told[key] in (None, result["status"]), (item, told[key], result)
    for key, item in items.items():
        if outcomes[key] == "committed":
            expected[item["source"]] -= item["amount"]
            expected[item["destination"]] += item["amount"]
    assert bank.balances() == dict(expected)
    bank.check()


def check_load(bank: Bank, load: Load) -> None:
    items = {key: item for key, (item, _) in load.told.items()}
    check(bank, items, {key: told for key, (_, told) in load.told.items()})
    assert not {kind for kind in load.counts if kind.startswith("500")}, load.counts


def statements(bank: Bank, url: str) -> dict[str, list[dict]]:
    """The entries of some accounts, the oldest first."""
    with client(url) as http:
        return {
            account: http.get(f"/v1/accounts/{account}/entries", params={"limit": 1000}).json()[
                "entries"
            ]
            for account in bank.accounts[:4]
        }


@contextmanager
def frozen(group: Cluster, name: str) -> Iterator[None]:
    """A process stands still for the block."""
    pid = group.pid(name)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_node_killed_under_load(group: Cluster) -> None:
    """Whatever was acknowledged is there when it is back, and what was told pending ends."""
    bank = bank_of(group)
    load = Load(bank, group.urls)
    with load.running(CLIENTS):
        load.wait_for("201", 100)
        group.local.stop(NODE, kill=True)
        load.wait_for("503", 4 * CLIENTS)
        group.local.start(NODE)
        load.wait_for("201", load.counts["201"] + 50)
    await_well(group)
    check_load(bank, load)


def test_disk_takes_no_more_under_load(group: Cluster) -> None:
    """A frame is written in part: the node ends at once, and answers nothing that rests on it."""
    bank = bank_of(group)
    load = Load(bank, group.urls)
    hands = Hands(group.local)
    with load.running(CLIENTS):
        load.wait_for("201", 100)
        hands.tear(NODE)
        load.wait_for("503", 4 * CLIENTS)
        assert "see to the disk" in hands.log(NODE)
        group.local.start(NODE)
        load.wait_for("201", load.counts["201"] + 50)
    assert list((group.local.data_dir / NODE).glob("*.cut"))
    await_well(group)
    check_load(bank, load)


def test_frozen_node(group: Cluster) -> None:
    """While it stands still transfers are pending, or refused in words; those that were refused
    have not happened when it goes on, and those that are pending come to their ends.
    """
    bank = bank_of(group)
    url = group.urls[0]
    answers: dict[str, httpx.Response] = {}
    items = {
        f"{bank.prefix}-{index}": transfer(
            bank.accounts[index], bank.accounts[-1], 1, f"{bank.prefix}-{index}"
        )
        for index in range(16)
    }

    def pay(key: str) -> None:
        with client(url) as http:
            answers[key] = post_one(http, items[key])

    keys = list(items)
    with frozen(group, NODE):
        # The first ones are on their way before anybody knows.
        together(8, lambda index: pay(keys[index]))
        # From here on it is known.
        together(8, lambda index: pay(keys[8 + index]))
    told = {key: answer.status_code for key, answer in answers.items()}
    assert set(told.values()) <= {202, 503}, told
    assert [told[key] for key in keys[8:]] == [503] * 8
    for key in keys[8:]:
        problem = answers[key].json()
        assert problem["type"] == "/problems/shard-unavailable"
        assert NODE in problem["detail"]
        assert answers[key].headers["Retry-After"]
        assert answers[key].elapsed.total_seconds() < 4
    await_well(group)
    with client(url) as http:

        def status_of(key: str) -> str | None:
            id_ = answers[key].json()["id"]
            return http.get(f"/v1/transfers/{id_}").json().get("status")

        pending = [key for key in keys if told[key] == 202]
        assert pending
        wait_until(
            lambda: {status_of(key) for key in pending} == {"committed"},
            30,
            lambda: f"{[status_of(key) for key in pending]}",
        )
        # It goes on where it was: those that were refused have done nothing.
        assert bank.balances()[bank.accounts[-1]] == FUNDS + len(pending)
    check(bank, items, {key: "committed" if key in pending else None for key in keys})


@pytest.mark.parametrize("point", GROUP_POINTS)
def test_coordinator_killed_with_commands_under_way(
    group: Cluster, tmp_path: Path, point: str
) -> None:
    """Its client hears nothing. Others know what became of the transfer, and make it once."""
    bank = bank_of(group)
    key = f"{bank.prefix}-1"
    item = transfer(*bank.accounts[:2], 1, key)
    victim = Victim(group, new_name(), tmp_path, f"{point}=kill*1")
    with started([victim]):
        assert victim.call(item).wait() is None
        victim.wait_dead()
    is_decided = point == "before-telling"
    with client(group.urls[0]) as http:
        found = http.get(f"/v1/transfers/{transfer_id(item['source'], key)}")
        assert found.status_code == (200 if is_decided else 404)
        again = post_one(http, item)
    assert again.status_code == 201
    assert ("Idempotent-Replayed" in again.headers) == is_decided
    check(bank, {key: item}, {key: "committed"})


def test_commands_of_a_killed_coordinator_happen_once(group: Cluster, tmp_path: Path) -> None:
    """They lie before a node that stands still when their coordinator dies; another one is asked
    for the same.
    """
    bank = bank_of(group)
    items = eight_payments(bank)
    ends: list[int | None] = []
    with group.coordinator("c9", tmp_path / "c9.log", SHORT) as coordinator:

        def pay(item: dict) -> None:
            try:
                with client(coordinator.url) as http:
                    ends.append(post_one(http, item).status_code)
            except httpx.TransportError:
                ends.append(None)

        threads = [threading.Thread(target=pay, args=(item,)) for item in items.values()]
        with frozen(group, NODE):
            for thread in threads:
                thread.start()
            wait_until(
                lambda: waiting_at(coordinator.url) == len(items), 30, "not all are under way"
            )
            coordinator.kill()
            for thread in threads:
                thread.join()
    # Those that were not lost were told that they are pending.
    assert set(ends) <= {None, 202}, ends
    await_well(group)
    check(bank, items, dict.fromkeys(items))


def eight_payments(bank: Bank) -> dict[str, dict]:
    """Of 1 each, from eight accounts to the last one, by their keys."""
    keys = [f"{bank.prefix}-{index}" for index in range(8)]
    return {
        key: transfer(source, bank.accounts[-1], 1, key)
        for key, source in zip(keys, bank.accounts, strict=False)
    }


def waiting_at(url: str) -> int:
    """How many transfers have no answer, as a coordinator's metrics say."""
    with client(url) as http:
        found = re.search(
            r"^coordinator_queue_length (\S+)$", http.get("/metrics").text, re.MULTILINE
        )
    return int(float(found[1])) if found else 0


def test_node_restarted_while_batches_are_sent(group: Cluster) -> None:
    """What a batch leaves open can be sent again, and has happened once."""
    bank = bank_of(group)
    batches = [
        [
            transfer(bank.accounts[i % 19], bank.accounts[19], 1, f"{bank.prefix}-{n}-{i}")
            for i in range(100)
        ]
        for n in range(40)
    ]
    told: dict[str, str | None] = {}
    is_begun, is_back = threading.Event(), threading.Event()

    def send() -> None:
        with client(group.urls[0]) as http:
            for batch in batches:
                results = post(http, "/v1/transfers/batch", {"transfers": batch})["results"]
                for item, result in zip(batch, results, strict=True):
                    is_final = result["status"] in ("committed", "rejected")
                    told[item["idempotency_key"]] = result["status"] if is_final else None
                is_begun.set()
                if is_back.is_set():
                    return

    sender = threading.Thread(target=send)
    sender.start()
    try:
        assert is_begun.wait(30)
        group.local.stop(NODE)
        group.local.start(NODE)
    finally:
        is_back.set()
        sender.join()
    await_well(group)
    sent = {item["idempotency_key"]: item for batch in batches for item in batch}
    check(bank, {key: sent[key] for key in told}, told)


def test_read_side_lost_while_money_moves(group: Cluster) -> None:
    """Transfers go on without it. It is made anew from the list, and tells the same."""
    bank = bank_of(group)
    url = group.urls[0]
    load = Load(bank, group.urls)
    with load.running(CLIENTS):
        load.wait_for("201", 100)
        before = statements(bank, url)
        group.local.stop(READS, kill=True)
        shutil.rmtree(group.local.data_dir / READS)
        load.wait_for("201", load.counts["201"] + 100)
        with client(url) as http:
            answer = http.get(f"/v1/accounts/{bank.accounts[0]}")
        assert answer.status_code == 503
        assert "read side" in answer.json()["detail"]
        group.local.start(READS)
        load.wait_for("201", load.counts["201"] + 50)
    after = statements(bank, url)
    assert {account: after[account][: len(before[account])] for account in before} == before
    assert sum(map(len, after.values())) > sum(map(len, before.values()))
    check_load(bank, load)


def test_second_node_on_the_same_folder(group: Cluster) -> None:
    """It is refused, by the name of what it is in the way of; the first one does not notice."""
    bank = bank_of(group)
    file = (group.local.data_dir / state.FILE).read_bytes()
    command = list(msgspec.json.decode(file, type=state.State).process(NODE).command)
    command[command.index("--listen") + 1] = "127.0.0.1:0"
    second = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert f"is in use by process {group.pid(NODE)}" in second.stdout + second.stderr
    with client(group.urls[0]) as http:
        item = transfer(*bank.accounts[:2], 1, f"{bank.prefix}-1")
        assert post_one(http, item).status_code == 201
    bank.check()
