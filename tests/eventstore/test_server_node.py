"""A node behind its socket, in this process: what is asked and answered."""

import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from pathlib import Path

import pytest

from eventstore.client import Client
from eventstore.commands import Packer
from eventstore.node.intake import Limits as IntakeLimits
from eventstore.node.node import Node
from eventstore.rows import Code
from eventstore.segments.reader import Reader
from eventstore.wire.errors import Busy, NotTaken
from eventstore.wire.questions import (
    FIND_MAX,
    At,
    Barrier,
    Describe,
    Description,
    Find,
    Finding,
    Follow,
    Known,
    NowAnswerable,
)
from ledger.errors import Bug
from ledger.ids import transfer_id
from ledger.model import Status
from tests.cluster import wait_until
from tests.eventstore.groups import (
    GROUP,
    PATIENCE_S,
    SETTINGS,
    accounts,
    balances,
    new_folder,
    opened,
    transfers,
    wish,
)
from tests.eventstore.serving import codes, connected, served_node
from tests.eventstore.test_node import SlowDisk


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return new_folder(tmp_path / "group")


@pytest.fixture
def node(folder: Path) -> Node:
    return opened(folder, SETTINGS._replace(segment_bytes=2000))


@pytest.fixture
def client(node: Node, folder: Path) -> Iterator[Client]:
    with served_node(node, folder) as server, connected(server.address) as made:
        made.submit(*accounts("bank", "a", "b")).result(PATIENCE_S)
        yield made


# --- commands -----------------------------------------------------------------------------------


def test_commands_are_answered_as_the_node_answers(client: Client, node: Node) -> None:
    wishes = [wish("1", "bank", "a", 5), wish("2", "a", "b", 7), wish("3", "nobody", "a", 1)]
    answered = client.submit(*transfers(*wishes)).result(PATIENCE_S)
    assert codes(answered) == [Code.DONE, Code.FUNDS, Code.NO_SOURCE]
    assert answered.details[["command", "a", "b", "c"]].tolist() == [(1, 5, 0, 0)]
    assert (answered.firsts, answered.rest) == ({}, None)
    (piece,) = answered.pieces
    frame = Reader(node._list._folder, GROUP).find(piece.seq)
    assert frame.header.time_us == piece.time_us
    assert frame.body.outcomes.codes[piece.at :].tolist() == answered.codes.tolist()
    assert balances(node, "bank", "a", "b") == [-5, 5, 0]


def test_no_commands_are_answered_too(client: Client) -> None:
    assert codes(client.submit(*transfers()).result(PATIENCE_S)) == []


def test_details_count_over_all_pieces(client: Client) -> None:
    """More than a frame holds, of which every third is refused."""
    wishes = [
        wish(f"{n}", "b" if n % 3 == 0 else "bank", "a", 1, metadata="m" * 300)
        for n in range(4_500)
    ]
    answered = client.submit(*transfers(*wishes)).result(PATIENCE_S)
    assert len(answered.pieces) > 1
    assert codes(answered) == [Code.DONE if n % 3 else Code.FUNDS for n in range(4_500)]
    assert answered.details["command"].tolist() == list(range(0, 4_500, 3))


def test_a_known_id_is_answered_with_what_was_first(client: Client) -> None:
    done = wish("1", "bank", "a", 5, metadata='{"n":1}', protocol="tcc")
    dear = wish("2", "b", "a", 50)
    first = client.submit(*transfers(done, dear)).result(PATIENCE_S)
    (piece,) = first.pieces
    at = At(piece.seq, piece.time_us)
    # Between them other segments begin.
    for n in range(20):
        client.submit(*transfers(wish(f"{n} later", "bank", "b", 1))).result(PATIENCE_S)
    own = wish("own", "bank", "b", 1)
    asked = [own, done, done._replace(amount=6), wish("3", "bank", "a", 1), own, dear]
    again = client.submit(*transfers(*asked)).result(PATIENCE_S)
    assert [code.name for code in codes(again)] == (
        ["DONE", "REPLAYED", "REUSED", "DONE", "REPLAYED", "REPLAYED"]
    )
    assert again.firsts.keys() == {1, 2, 4, 5}
    stored = done._replace(id=transfer_id("bank", "1"), created_at=piece.time_us)
    # What was asked then is told where it was something else.
    assert again.firsts[1] == Known(None, None, None, at)
    assert again.firsts[2] == Known(stored, None, None, at)
    # The first one may be in the same frame.
    assert again.firsts[4].at == At(again.pieces[0].seq, again.pieces[0].time_us)
    assert again.firsts[5].reason == "insufficient-funds"
    assert again.firsts[5].detail == (
        "account b has 0 EUR and may go down to 0; 50 would leave -50"
    )
    assert again.firsts[5].at == at


def test_a_whole_batch_again(client: Client) -> None:
    batch = transfers(*(wish(f"{n}", "bank", "a", 1, metadata="m" * 3000) for n in range(700)))
    first = client.submit(*batch).result(PATIENCE_S)
    again = client.submit(*batch).result(PATIENCE_S)
    assert set(codes(again)) == {Code.REPLAYED}
    assert list(again.firsts) == list(range(700))
    assert {f.at.seq for f in again.firsts.values()} == {piece.seq for piece in first.pieces}


def test_accounts_by_numbers(client: Client) -> None:
    """A refusal between numbers is told with the accounts' ids."""
    packed = Packer().transfer(wish("1", "a", "b", 5)).packed
    row, key = packed.commands.copy(), b"\1\0" + b"1" + bytes(6)
    row["source"], row["destination"], row["text"] = 1, 2, len(key)
    refused = client.submit(row, key).result(PATIENCE_S)
    assert codes(refused) == [Code.FUNDS]
    again = client.submit(row, key).result(PATIENCE_S)
    (first,) = again.firsts.values()
    assert first.other is None
    assert "account a has 0 EUR" in (first.detail or "")
    row["amount"] = 6
    (other,) = client.submit(row, key).result(PATIENCE_S).firsts.values()
    assert other.other is not None
    assert other.other[:5] == (transfer_id("a", "1"), "1", "a", "b", 5)


def test_openings_and_status(client: Client) -> None:
    packed = Packer().open("c", "EUR").open("a", "EUR").status("c", Status.FROZEN).packed
    answered = client.submit(*packed).result(PATIENCE_S)
    assert codes(answered) == [Code.DONE, Code.EXISTS, Code.DONE]
    assert answered.firsts == {}


def test_what_is_no_command_is_the_senders_mistake(client: Client) -> None:
    commands, texts = transfers(wish("1", "bank", "a", 1))
    commands["amount"] = 0
    with pytest.raises(Bug, match=r"nothing of it was taken: .* moves 1 or more"):
        client.submit(commands, texts).result(PATIENCE_S)
    commands["amount"] = 1
    assert codes(client.submit(commands, texts).result(PATIENCE_S)) == [Code.DONE]


def test_a_node_that_is_busy_or_full_says_so(folder: Path) -> None:
    disk = SlowDisk()
    node = opened(folder, SETTINGS._replace(intake=IntakeLimits(commands=10)), files=disk)
    with served_node(node, folder) as server, connected(server.address) as client:
        client.submit(*accounts("bank", "a")).result(PATIENCE_S)
        disk.room_bytes = 0
        with pytest.raises(NotTaken, match="make room") as told:
            client.submit(*transfers(wish("1", "bank", "a", 1))).result(PATIENCE_S)
        assert not isinstance(told.value, Busy)
        disk.room_bytes = None
        disk.may_flush.clear()
        sent = [
            client.submit(*transfers(*(wish(f"{n}.{i}", "bank", "a", 1) for i in range(9))))
            for n in range(40)
        ]
        # More than there is room for; as long as nothing is flushed only a refusal is an answer.
        refused = wait(sent, PATIENCE_S, FIRST_COMPLETED).done
        assert refused
        for future in refused:
            with pytest.raises(Busy, match="wait to be decided"):
                future.result()
        disk.may_flush.set()
        taken = [future for future in sent if not future.exception(PATIENCE_S)]
        assert {code for future in taken for code in codes(future.result())} == {Code.DONE}
        assert 0 < len(taken) < 40


# --- questions ----------------------------------------------------------------------------------


def test_find(client: Client) -> None:
    done, refused = wish("1", "bank", "a", 5, metadata="{}"), wish("2", "b", "a", 50)
    (piece,) = client.submit(*transfers(done, refused)).result(PATIENCE_S).pieces
    ids = [transfer_id("bank", "1"), transfer_id("b", "2"), transfer_id("a", "absent")]
    found = client.ask(Find(ids), Finding, PATIENCE_S)
    assert found.found.keys() == set(ids[:2])
    assert found.found[ids[0]].transfer == done._replace(id=ids[0], created_at=piece.time_us)
    assert found.found[ids[0]].reason is None
    assert found.found[ids[1]].reason == "insufficient-funds"
    assert found.found[ids[1]].at == At(piece.seq, piece.time_us)
    assert found.as_of.seq >= piece.seq
    # The slot in front belongs to the id.
    other = "fff" + ids[0][3:]
    assert client.ask(Find([other]), Finding, PATIENCE_S).found == {}
    with pytest.raises(Bug, match="'x' is no id of a transfer"):
        client.ask(Find(["x"]), Finding, PATIENCE_S)
    with pytest.raises(Bug, match=f"more than {FIND_MAX}"):
        client.ask(Find([ids[0]] * (FIND_MAX + 1)), Finding, PATIENCE_S)


def test_find_sees_what_was_sent_before_and_nothing_that_is_not_durable(folder: Path) -> None:
    disk = SlowDisk()
    node = opened(folder, files=disk)
    with served_node(node, folder) as server, connected(server.address) as client:
        client.submit(*accounts("bank", "a")).result(PATIENCE_S)
        disk.may_flush.clear()
        sent = client.submit(*transfers(wish("1", "bank", "a", 5)))
        found = client.ask_soon(Find([transfer_id("bank", "1")]), Finding)
        now = client.ask(NowAnswerable(), At, PATIENCE_S)
        wait_until(lambda: node._machine.seq > now.seq, PATIENCE_S, "it decides nothing")
        assert not found.done()
        assert client.ask(NowAnswerable(), At, PATIENCE_S) == now
        disk.may_flush.set()
        (piece,) = sent.result(PATIENCE_S).pieces
        (first,) = found.result(PATIENCE_S).found.values()
        assert first.at == At(piece.seq, piece.time_us)
        assert found.result().as_of.seq >= piece.seq


def test_a_barrier_and_how_the_node_is(client: Client, node: Node) -> None:
    client.submit(*transfers(wish("1", "bank", "a", 5))).result(PATIENCE_S)
    at = client.ask(Barrier(), At, PATIENCE_S)
    assert client.ask(Barrier(), At, PATIENCE_S).seq > at.seq
    assert client.ask(NowAnswerable(), At, PATIENCE_S).seq > at.seq
    how = client.ask(Describe(), Description, PATIENCE_S)
    assert (how.epoch, how.accounts, how.transfers, how.commands) == (1, 3, 1, 4)
    assert how.answerable.seq > at.seq
    assert how.frames >= 4
    assert how.flushes >= 4
    assert how.flush_seconds > 0
    assert how.time_us >= how.answerable.time_us
    assert how.room_bytes > how.room_bytes_min > SETTINGS.room_bytes_min
    assert how.version


def test_the_bytes_of_the_list(client: Client, folder: Path) -> None:
    for n in range(40):
        client.submit(*transfers(wish(f"{n}", "bank", "a", 5))).result(PATIENCE_S)
        if n % 10 == 0:
            client.ask(Describe(), Description, PATIENCE_S)

    def is_told() -> bool:
        # A frame may have come in between.
        told = client.ask(Describe(), Description, PATIENCE_S).list_bytes
        return told == sum(path.stat().st_size for path in folder.glob("*.segment"))

    assert len(list(folder.glob("*.segment"))) > 3
    wait_until(is_told, PATIENCE_S, "its size is another one")


def test_who_follows_is_told(node: Node, folder: Path) -> None:
    told: list[At] = []
    came = threading.Condition()

    def note(at: At) -> None:
        with came:
            told.append(at)
            came.notify_all()

    with served_node(node, folder) as server:
        with connected(server.address, on_push=note) as client:
            at = client.ask(Follow(), At, PATIENCE_S)
            later = client.ask(Barrier(), At, PATIENCE_S)
            assert later.seq > at.seq
            with came:
                assert came.wait_for(lambda: told and told[-1].seq >= later.seq, PATIENCE_S)
            seqs = [at.seq, *(one.seq for one in told)]
            assert seqs == sorted(set(seqs))
        wait_until(lambda: not node._durable._told, PATIENCE_S, "who has left is told")


def test_two_clients_at_once(client: Client, node: Node) -> None:
    """Commands mixed with questions, from threads that share clients."""
    failed: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for n in range(30):
                one = wish(f"{name}{n}", "bank", "a", 1)
                assert codes(client.submit(*transfers(one)).result(PATIENCE_S)) == [Code.DONE]
                id_ = transfer_id("bank", one.key)
                found = client.ask(Find([id_]), Finding, PATIENCE_S)
                assert found.found[id_].transfer.key == one.key
                at = client.ask(Barrier(), At, PATIENCE_S)
                assert at.seq > found.found[id_].at.seq
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert balances(node, "a") == [120]
