"""`python -m eventstore node`: begun, killed, told to end, and what its list is then."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from uuid import UUID

import pytest
from click.testing import CliRunner

from eventstore.__main__ import main
from eventstore.client import Answered, Client
from eventstore.look import ListView, identity_of
from eventstore.rows import Code
from eventstore.segments.writer import begin
from eventstore.server.beginning import cluster_uuid
from eventstore.wire.errors import Lost, NotSent, NotTaken, Rejected, Unknown
from eventstore.wire.questions import At, Barrier, Describe, Description, Find, Finding
from ledger.ids import transfer_id
from tests.eventstore.groups import PATIENCE_S, accounts, transfers, wish
from tests.eventstore.serving import CLUSTER, SECRET, NodeProcess, codes, plain, process

CLIENTS = 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "g1"
    made.mkdir()
    return made


@pytest.fixture
def node(folder: Path) -> Iterator[NodeProcess]:
    with process(folder, "--begin") as made:
        yield made


def balances(folder: Path) -> dict[str, int]:
    """What the list says, when nobody appends to it; every outcome is decided again."""
    machine, _ = ListView(folder).replayed()
    found = [machine.account(number).account for number in range(len(machine))]
    return {account.id: account.balance for account in found}


# --- limits -------------------------------------------------------------------------------------


def test_a_limit_is_told_with_its_option_and_can_be_raised(folder: Path) -> None:
    with process(folder, "--begin", "--accounts-max", "2", "--transfers-max", "1") as node:
        with node.connected() as client:
            client.submit(*accounts("bank", "a")).result(PATIENCE_S)
            client.submit(*transfers(wish("1", "bank", "a", 5))).result(PATIENCE_S)
            for limit, more in (
                ("transfers", transfers(wish("2", "bank", "a", 5))),
                ("accounts", accounts("b")),
            ):
                with pytest.raises(NotTaken, match=f"{limit} would be .* --{limit}-max"):
                    client.submit(*more).result(PATIENCE_S)
        node.signal(signal.SIGTERM)
        assert node.end() == 0
    with process(folder, "--transfers-max", "2") as node, node.connected() as client:
        answer = client.submit(*transfers(wish("2", "bank", "a", 5))).result(PATIENCE_S)
        assert codes(answer) == [Code.DONE]
        node.signal(signal.SIGTERM)
        assert node.end() == 0
    assert balances(folder) == {"bank": -10, "a": 10}


def test_a_limit_below_what_there_is(folder: Path) -> None:
    with process(folder, "--begin") as node:
        with node.connected() as client:
            client.submit(*accounts("bank", "a", "b")).result(PATIENCE_S)
        node.signal(signal.SIGTERM)
        assert node.end() == 0
    with process(folder, "--accounts-max", "2") as node:
        text = node.wait_for("node.not_started")["message"]
    assert "limit of 2 accounts" in text
    assert "--accounts-max" in text


# --- beginning ----------------------------------------------------------------------------------


def test_a_list_that_is_begun_and_opened_again(folder: Path, node: NodeProcess) -> None:
    serving = node.wait_for("node.serving")
    with node.connected() as client:
        hello = Client(*node.address, SECRET, CLUSTER).connect()
        client.submit(*accounts("bank", "a")).result(PATIENCE_S)
        client.submit(*transfers(wish("1", "bank", "a", 5))).result(PATIENCE_S)
        last = client.ask(Barrier(), At, PATIENCE_S)
    node.signal(signal.SIGTERM)
    assert node.end() == 0
    identity = identity_of(folder)
    assert identity == (cluster_uuid(CLUSTER), UUID(hello.group), 0)
    assert (hello.cluster, hello.branch, hello.epoch, hello.reads) == (CLUSTER, 0, 1, None)
    assert serving["group"] == hello.group
    # Whether it may begin one or not: there is one.
    for epoch, options in ((2, ["--begin", "--reads", "[::1]:7"]), (3, [])):
        # Once as it is run.
        with (
            process(folder, *options, is_forked=epoch == 2) as again,
            again.connected() as client,
        ):
            hello = Client(*again.address, SECRET, CLUSTER).connect()
            assert (hello.group, hello.epoch) == (str(identity.group), epoch)
            assert hello.reads == (("::1", 7) if options else None)
            told = client.submit(*transfers(wish("1", "bank", "a", 5))).result(PATIENCE_S)
            assert codes(told) == [Code.REPLAYED]
            found = client.ask(Find([transfer_id("bank", "1")]), Finding, PATIENCE_S)
            assert found.found.keys() == {transfer_id("bank", "1")}
            assert found.as_of.seq > last.seq
            again.signal(signal.SIGINT)
            assert again.end() == 0
    assert balances(folder) == {"bank": -5, "a": 5}


def refused(folder: Path, *options: str, cluster: str = CLUSTER) -> str:
    """Why a process does not start."""
    with process(folder, *options, cluster=cluster) as made:
        assert made.end() == 1
        (line,) = made.lines
        assert (line["event"], line["level"]) == ("node.not_started", "CRITICAL")
        return str(line["message"])


def test_none_is_begun_by_accident(folder: Path) -> None:
    assert "holds no segment of a list" in refused(folder)
    assert list(folder.iterdir()) == []
    begin(folder)
    assert "was begun, and has no frame" in refused(folder)
    with process(folder, "--begin") as node:
        node.wait_for("node.serving")
    # It is lost: nothing but what nobody took away is there.
    for path in folder.glob("*.segment"):
        path.unlink()
    assert "says that it had a list" in refused(folder, "--begin")


def test_the_list_of_another_cluster(folder: Path, node: NodeProcess) -> None:
    assert "is in use by process" in refused_beside(folder, node)
    node.signal(signal.SIGTERM)
    assert node.end() == 0
    why = refused(folder, "--begin", cluster="other")
    assert str(cluster_uuid(CLUSTER)) in why
    assert f"that of 'other' is {cluster_uuid('other')}" in why


def refused_beside(folder: Path, node: NodeProcess) -> str:
    node.wait_for("node.serving")
    return refused(folder)


def test_what_is_given_wrongly(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "short").write_text("secret\n")
    for options, says in (
        (["--listen", "9700"], "is not like 127.0.0.1:9700"),
        (["--secret-file", str(tmp_path / "short")], "has 6 bytes"),
        (["--cluster", "c" * 256], "1 to 255 bytes"),
        (["--folder"], "No such option"),
    ):
        own = ["--listen", "127.0.0.1:0", "--cluster", "c", "--secret-file", __file__]
        done = CliRunner().invoke(main, ["node", str(folder), *own, *options])
        assert done.exit_code == 2
        assert says in done.output
    assert list(folder.iterdir()) == []


def test_a_place_that_is_taken(folder: Path, tmp_path: Path, node: NodeProcess) -> None:
    host, port = node.address
    other = tmp_path / "g2"
    other.mkdir()
    assert f"cannot listen at {host}:{port}" in refused(
        other, "--begin", "--listen", f"{host}:{port}"
    )


# --- its end ------------------------------------------------------------------------------------


def test_told_to_end_it_answers_what_it_took(folder: Path, node: NodeProcess) -> None:
    with node.connected() as client, node.connected() as idle:
        client.submit(*accounts("bank", "a")).result(PATIENCE_S)
        sent = []
        for n in range(400):
            sent.append(client.submit(*transfers(wish(f"{n}", "bank", "a", 1))))
            if n == 200:
                sent[100].result(PATIENCE_S)
                node.signal(signal.SIGTERM)
        outcomes = [outcome_of(future) for future in sent]
        assert node.end() == 0
        assert [line["event"] for line in node.lines] == (
            ["node.serving", "node.stopping", "node.stopped"]
        )
        # What came too late is said to have: of none does nobody know.
        assert set(outcomes) <= {Code.DONE, NotTaken, NotSent, Lost}
        done = outcomes.count(Code.DONE)
        assert done > 100
        assert outcomes[:done] == [Code.DONE] * done
        assert not idle.is_alive or idle.ask_soon(Barrier(), At).exception(PATIENCE_S)
    assert balances(folder) == {"bank": -done, "a": done}


def outcome_of(future: "Future[Answered]") -> object:
    error = future.exception(PATIENCE_S)
    return type(error) if error else codes(future.result())[0]


def test_killed_again_and_again(folder: Path) -> None:
    """Clients by two threads, with commands and questions; the process is killed in between. What
    was answered stays, and what nobody knows has happened once or not at all.
    """
    done: set[str] = set()
    asked: set[str] = set()
    for life in range(3):
        with process(folder, "--begin") as node:
            with node.connected() as client:
                client.submit(*accounts("bank", "a")).result(PATIENCE_S)
            work = [
                Work(node.address, [f"{life}.{name}.{n}" for n in range(100_000)])
                for name in range(CLIENTS)
            ]
            assert all(one.has_begun.wait(PATIENCE_S) for one in work)
            node.signal(signal.SIGKILL)
            for one in work:
                one.join(PATIENCE_S)
                assert not one.is_alive()
                assert {type(error) for error in one.errors} <= {Lost, NotSent}
                assert one.errors
                done |= one.done
                asked |= one.asked
            assert node.end() == -signal.SIGKILL
    with process(folder) as node, node.connected() as client:
        keys = sorted(asked)
        found: set[str] = set()
        for start in range(0, len(keys), 500):
            ids = [transfer_id("bank", key) for key in keys[start : start + 500]]
            answer = client.ask(Find(ids), Finding, PATIENCE_S)
            found |= {first.transfer.key for first in answer.found.values()}
        assert done <= found
        # The same again: what has an outcome is answered with it, and the rest happens now.
        again = client.submit(*transfers(*(wish(k, "bank", "a", 1) for k in keys)))
        outcomes = dict(zip(keys, codes(again.result(PATIENCE_S)), strict=True))
        assert {key for key, code in outcomes.items() if code == Code.REPLAYED} == found
        assert set(outcomes.values()) <= {Code.DONE, Code.REPLAYED}
        assert client.ask(Describe(), Description, PATIENCE_S).transfers == len(keys)
        node.signal(signal.SIGTERM)
        assert node.end() == 0
    assert balances(folder) == {"bank": -len(keys), "a": len(keys)}


class Work(threading.Thread):
    """Sends transfers through a client of its own, some at a time, and asks between them, until the
    connection breaks.
    """

    def __init__(self, address: tuple[str, int], keys: list[str]) -> None:
        super().__init__()
        self._address, self._keys = address, iter(keys)
        self.asked: set[str] = set()
        self.done: set[str] = set()
        self.errors: list[BaseException] = []
        self.has_begun = threading.Event()
        self.start()

    def run(self) -> None:
        client = Client(*self._address, SECRET, CLUSTER, connect_timeout_s=PATIENCE_S)
        client.connect()
        while not self.errors:
            sent = {}
            for _ in range(5):
                key = next(self._keys)
                self.asked.add(key)
                sent[key] = client.submit(*transfers(wish(key, "bank", "a", 1)))
            barrier = client.ask_soon(Barrier(), At)
            for key, future in sent.items():
                self._note(future, key)
            self._note(barrier)
            if len(self.done) > 50:
                self.has_begun.set()
        client.close()

    def _note(self, future: "Future[object]", key: str = "") -> None:
        if error := future.exception(PATIENCE_S):
            self.errors.append(error)
        elif key:
            self.done.add(key)


def test_a_node_that_fails_says_that_nobody_knows_and_ends(folder: Path, node: NodeProcess) -> None:
    with node.connected() as client:
        client.submit(*accounts("bank", "a")).result(PATIENCE_S)
        client.submit(*transfers(wish("1", "bank", "a", 5))).result(PATIENCE_S)
        node.write_no_more()
        with pytest.raises(Unknown, match="the node has failed"):
            client.submit(*transfers(wish("2", "bank", "a", 5))).result(PATIENCE_S)
    assert node.end() == 1
    assert [line["event"] for line in node.lines] == ["node.serving", "node.died"]
    assert "File too large" in node.lines[-1]["message"]
    with process(folder) as again, again.connected() as client:
        both = transfers(*(wish(n, "bank", "a", 5) for n in "12"))
        first, second = codes(client.submit(*both).result(PATIENCE_S))
        assert first == Code.REPLAYED
        assert second in (Code.DONE, Code.REPLAYED)


# --- its clients --------------------------------------------------------------------------------


def test_a_client_that_is_frozen_holds_up_nobody(node: NodeProcess) -> None:
    script = (
        "import sys, time\n"
        "from eventstore.client import Client\n"
        "from eventstore.wire.questions import At, Follow\n"
        "client = Client(sys.argv[1], int(sys.argv[2]), sys.argv[3].encode(), sys.argv[4])\n"
        "client.connect()\n"
        "client.ask(Follow(), At, 30)\n"
        "print('follows', flush=True)\n"
        "time.sleep(60)\n"
    )
    host, port = node.address
    command = [sys.executable, "-c", script, host, str(port), SECRET.decode(), CLUSTER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as frozen:
        try:
            assert frozen.stdout is not None
            assert frozen.stdout.readline() == "follows\n"
            os.kill(frozen.pid, signal.SIGSTOP)
            with node.connected() as client:
                client.submit(*accounts("bank", "a")).result(PATIENCE_S)
                for n in range(50):
                    sent = client.submit(*transfers(wish(f"{n}", "bank", "a", 1)))
                    assert codes(sent.result(PATIENCE_S)) == [Code.DONE]
            # It does not hold up the end either: what is left for it fits its socket.
            node.signal(signal.SIGTERM)
            assert node.end() == 0
        finally:
            frozen.kill()


def test_garbage_and_strangers_change_nothing(folder: Path, node: NodeProcess) -> None:
    with node.connected() as client:
        client.submit(*accounts("bank", "a")).result(PATIENCE_S)
        with pytest.raises(Rejected, match="the secret is not the one"):
            Client(*node.address, b"another secret", CLUSTER).connect()
        for sent in (b"\0" * 13, b"\xff" * 4096, os.urandom(4096)):
            with plain(node.address) as (sock, stream):
                sock.sendall(sent)
                assert stream.receive() is not None
                assert stream.receive() is None
        sent = client.submit(*transfers(wish("1", "bank", "a", 1)))
        assert codes(sent.result(PATIENCE_S)) == [Code.DONE]
    node.signal(signal.SIGTERM)
    assert node.end() == 0
    events = {line["event"] for line in node.lines if line["level"] != "INFO"}
    assert events == {"connection.refused"}
    assert balances(folder) == {"bank": -1, "a": 1}
