"""A server and its clients on real sockets: who gets in, what is refused, and who is cut off."""

import socket
import threading
import time
from concurrent.futures import Future

import msgspec
import pytest

from eventstore.client import Client
from eventstore.node.errors import NotServing, OutcomeUnknown
from eventstore.rows import Commands
from eventstore.server.handling import Asker, Decided, Handlers, NoRequest
from eventstore.server.limits import Limits
from eventstore.wire.answers import Answer
from eventstore.wire.errors import (
    Busy,
    CannotAnswer,
    Lost,
    NotSent,
    NotTaken,
    NotYet,
    Rejected,
    TooLarge,
    Unknown,
    Unreachable,
)
from eventstore.wire.failures import Failed, FailureKind
from eventstore.wire.messages import MESSAGE_BYTES_MAX, Kind, pack
from eventstore.wire.questions import Accounts, At, Entries, Lag, LagIs, ReadQuestion
from eventstore.wire.values import decode, encode
from ledger.errors import Bug
from tests.cluster import wait_until
from tests.eventstore.groups import PATIENCE_S, accounts
from tests.eventstore.serving import CLUSTER, HELLO, SECRET, connected, plain, served

LAG = LagIs(At(1, 2), At(3, 4), 5, 6, At(0, 0))
# More than sockets hold by themselves, each way.
LONG = "x" * 2**22


class Waits:
    """Handlers of a read side: what `Accounts` asks is answered when it is let."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.askers: list[Asker] = []
        self.ended = threading.Event()
        self.later: list[Future[msgspec.Struct]] = []
        self.raises: Exception | None = None

    def question(self, question: object, asker: Asker) -> "msgspec.Struct | Future[msgspec.Struct]":
        self.asked.append(question)
        self.askers.append(asker)
        asker.at_end(self.ended.set)
        if self.raises:
            raise self.raises
        if isinstance(question, Entries):
            return Failed(FailureKind.BUSY, LONG)
        if isinstance(question, Accounts):
            self.later.append(Future())
            return self.later[-1]
        return LAG

    @property
    def handlers(self) -> Handlers:
        return Handlers(ReadQuestion, self.question)


@pytest.fixture
def waits() -> Waits:
    return Waits()


# --- who gets in --------------------------------------------------------------------------------


def test_who_knows_the_secret_gets_in(waits: Waits) -> None:
    with served(waits.handlers) as server:
        client = Client(*server.address, SECRET, CLUSTER)
        assert client.connect() == HELLO
        assert client.is_alive
        assert client.ask(Lag(), LagIs, PATIENCE_S) == LAG
        client.close()
        assert not client.is_alive


@pytest.mark.parametrize(
    ("secret", "cluster", "says"),
    [
        (SECRET[:-1], CLUSTER, "the secret is not the one that is known here"),
        (SECRET, "other", "this is cluster 'bank', and 'other' was asked for"),
    ],
)
def test_who_does_not_is_told_why(waits: Waits, secret: bytes, cluster: str, says: str) -> None:
    with served(waits.handlers) as server:
        client = Client(*server.address, secret, cluster)
        with pytest.raises(Rejected, match=says):
            client.connect()
        future = client.ask_soon(Lag(), LagIs)
        with pytest.raises(NotSent):
            future.result(PATIENCE_S)
    assert waits.asked == []


def test_a_server_that_does_not_know_it_is_not_believed() -> None:
    """It lets everybody in, and cannot prove itself."""
    listener = socket.create_server(("127.0.0.1", 0))

    def lie() -> None:
        from eventstore.wire.proofs import Challenge, Welcome
        from eventstore.wire.stream import Stream

        sock, _ = listener.accept()
        stream = Stream(sock)
        stream.send(pack(0, Kind.CHALLENGE, encode(Challenge(1, b"n" * 32))))
        stream.receive()
        stream.send(pack(0, Kind.HELLO, encode(Welcome(b"s" * 32, HELLO))))
        stream.receive()
        stream.close()

    liar = threading.Thread(target=lie)
    liar.start()
    with listener, pytest.raises(Rejected, match="does not know the secret of cluster 'bank'"):
        Client(*listener.getsockname(), SECRET, CLUSTER).connect()
    liar.join()


def test_nobody_is_there(waits: Waits) -> None:
    with served(waits.handlers) as server:
        address = server.address
    with pytest.raises(Unreachable, match="refused"):
        Client(*address, SECRET, CLUSTER).connect()


def test_somebody_is_there_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(*silent.getsockname(), SECRET, CLUSTER, connect_timeout_s=0.05)
        with pytest.raises(Unreachable, match="timed out"):
            client.connect()


def test_who_proves_nothing_is_not_waited_for(waits: Waits) -> None:
    """Not even one that sends a byte now and then."""
    limits = Limits(proof_s=0.2)
    with (
        served(waits.handlers, limits) as server,
        plain(server.address, proves=False) as (sock, stream),
    ):
        start = time.monotonic()
        assert stream.receive()
        sock.settimeout(0.02)
        while is_open(sock):
            assert time.monotonic() < start + PATIENCE_S
        assert time.monotonic() - start >= 0.2


def is_open(sock: socket.socket) -> bool:
    """Whether the other end has not closed it; a byte more is sent."""
    try:
        sock.sendall(b"\1")
        return bool(sock.recv(1024))
    except TimeoutError:
        return True
    except OSError:
        return False


def test_so_many_and_no_more(waits: Waits) -> None:
    with served(waits.handlers, Limits(connections=2)) as server:
        with connected(server.address), connected(server.address):
            client = Client(*server.address, SECRET, CLUSTER)
            with pytest.raises((Rejected, Unreachable), match=r"2 connections are open|reset"):
                client.connect()

        def is_let_in() -> bool:
            try:
                with connected(server.address) as one:
                    return one.ask(Lag(), LagIs, PATIENCE_S) == LAG
            except (Rejected, Unreachable):
                return False

        wait_until(is_let_in, PATIENCE_S, "those that have ended leave no room")


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "a message has 542,393,675 bytes, and may have"),
        (pack(1, Kind.REPLY), "a request is REPLY, and should be"),
        (pack(0, Kind.QUESTION, encode(Lag())), "number of a request is 0"),
        (pack(1, Kind.QUESTION, b"\x80"), "body of"),
        (pack(1, Kind.QUESTION, encode({"type": "lag", "more": 1})), "spelled as"),
        (pack(1, Kind.COMMANDS, b"123"), "length of a body with commands is 3"),
        (
            (MESSAGE_BYTES_MAX - 3).to_bytes(4, "little") + bytes(8) + bytes([Kind.COMMANDS]),
            "a message has 16,777,217 bytes, and may have 16,777,216",
        ),
    ],
)
def test_what_is_no_request_ends_the_connection(waits: Waits, sent: bytes, says: str) -> None:
    with served(waits.handlers) as server:
        with plain(server.address) as (sock, stream):
            # More may be on its way: the reason arrives all the same.
            sock.sendall(sent + bytes(100_000))
            message = stream.receive()
            assert message is not None
            failed = decode(message.body, Failed)
            assert (message.number, message.kind) == (0, Kind.FAILED)
            assert failed.kind == FailureKind.MALFORMED
            assert says in failed.text
            assert stream.receive() is None
        with connected(server.address) as other:
            assert other.ask(Lag(), LagIs, PATIENCE_S) == LAG


def test_garbage_before_a_proof(waits: Waits) -> None:
    with served(waits.handlers) as server, plain(server.address, proves=False) as (sock, stream):
        stream.receive()
        sock.sendall(pack(0, Kind.COMMANDS, bytes(2000)))
        message = stream.receive()
        assert message is not None
        assert decode(message.body, Failed) == Failed(
            FailureKind.REJECTED, "a message has 2,013 bytes, and may have 1,024: send less at once"
        )
        assert stream.receive() is None


def test_a_message_that_is_cut_off_is_no_request(waits: Waits) -> None:
    whole = pack(1, Kind.QUESTION, encode(Lag()))
    with served(waits.handlers) as server:
        for end in range(1, len(whole)):
            with plain(server.address) as (sock, stream):
                sock.sendall(whole[:end])
                sock.shutdown(socket.SHUT_WR)
                message = stream.receive()
                assert message is not None
                assert decode(message.body, Failed).kind == FailureKind.MALFORMED
    assert waits.asked == []


def test_a_number_that_is_under_way_is_none(waits: Waits) -> None:
    with served(waits.handlers) as server, plain(server.address) as (sock, stream):
        question = pack(1, Kind.QUESTION, encode(Accounts([])))
        sock.sendall(question + question)
        message = stream.receive()
        assert message is not None
        assert "number of a request is 1" in decode(message.body, Failed).text


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (NotServing("it ends"), NotTaken),
        (OutcomeUnknown("it died"), Unknown),
        (Busy("too much"), Busy),
        (NotTaken("no"), NotTaken),
        (CannotAnswer("no"), CannotAnswer),
        (NotYet("frame 7 was not seen"), NotYet),
        (NoRequest("what?"), Bug),
        (ZeroDivisionError("oh"), Unknown),
    ],
)
def test_what_a_handler_raises_is_told(
    waits: Waits, raised: Exception, kind: type[Exception]
) -> None:
    with served(waits.handlers) as server, connected(server.address) as client:
        waits.raises = raised
        with pytest.raises(kind) as told:
            client.ask(Lag(), LagIs, PATIENCE_S)
        assert type(told.value) is kind
        assert str(raised) in str(told.value)
        later = client.ask_soon(Accounts([]), LagIs)
        with pytest.raises(kind):
            later.result(PATIENCE_S)
        waits.raises = None
        late = client.ask_soon(Accounts([]), LagIs)
        wait_until(lambda: waits.later, PATIENCE_S, "it is not asked")
        waits.later[0].set_exception(raised)
        with pytest.raises(kind):
            late.result(PATIENCE_S)
        assert client.ask(Lag(), LagIs, PATIENCE_S) == LAG


def test_commands_for_a_process_that_takes_none(waits: Waits) -> None:
    with served(waits.handlers) as server, connected(server.address) as client:
        with pytest.raises(Bug, match="takes none"):
            client.submit(*accounts("a")).result(PATIENCE_S)
        with pytest.raises(Bug, match="sum of the lengths"):
            client.submit(accounts("a")[0], b"")
        assert client.ask(Lag(), LagIs, PATIENCE_S) == LAG


def test_more_than_a_message_holds_is_not_sent(waits: Waits) -> None:
    with served(waits.handlers) as server, connected(server.address) as client:
        with pytest.raises(TooLarge):
            client.ask_soon(Accounts(["x" * MESSAGE_BYTES_MAX]), LagIs)
        assert client.ask(Lag(), LagIs, PATIENCE_S) == LAG


def test_an_answer_that_is_too_long_is_none(waits: Waits) -> None:
    with served(waits.handlers) as server, connected(server.address) as client:
        asked = client.ask_soon(Accounts([]), Failed)
        wait_until(lambda: waits.later, PATIENCE_S, "it is not asked")
        waits.later[0].set_result(Failed(FailureKind.BUSY, LONG * 5))
        with pytest.raises(CannotAnswer, match="too long"):
            asked.result(PATIENCE_S)


# --- many at once -------------------------------------------------------------------------------


def test_answers_come_in_any_order(waits: Waits) -> None:
    with served(waits.handlers) as server, connected(server.address) as client:
        first, second = (client.ask_soon(Accounts([name]), At) for name in "ab")
        assert client.ask(Lag(), LagIs, PATIENCE_S) == LAG
        assert not first.done()
        assert [question.accounts for question in waits.asked[:2]] == [["a"], ["b"]]  # type: ignore[attr-defined]
        waits.later[1].set_result(At(2, 2))
        assert second.result(PATIENCE_S) == At(2, 2)
        waits.later[0].set_result(At(1, 1))
        assert first.result(PATIENCE_S) == At(1, 1)


def test_so_many_requests_and_no_more(waits: Waits) -> None:
    with served(waits.handlers, Limits(requests=2)) as server, connected(server.address) as client:
        under_way = [client.ask_soon(Accounts([]), At) for _ in range(2)]
        with pytest.raises(Busy, match="2 requests are under way"):
            client.ask(Lag(), LagIs, PATIENCE_S)
        waits.later[0].set_result(At(1, 1))
        assert under_way[0].result(PATIENCE_S) == At(1, 1)
        assert client.ask(Lag(), LagIs, PATIENCE_S) == LAG


def test_who_does_not_read_is_cut_off_and_holds_up_nobody(waits: Waits) -> None:
    limits = Limits(queued_bytes=2 * len(LONG))
    with (
        served(waits.handlers, limits) as server,
        plain(server.address) as (frozen, _),
        connected(server.address) as other,
    ):
        long = Entries("a", None, 1)

        def is_cut_off() -> bool:
            try:
                frozen.sendall(pack(len(waits.asked) + 1, Kind.QUESTION, encode(long)))
            except OSError:
                return True
            return other.ask(Lag(), LagIs, PATIENCE_S) != LAG

        wait_until(is_cut_off, PATIENCE_S, "it is not cut off")
        assert waits.ended.wait(PATIENCE_S)
        assert other.ask(Lag(), LagIs, PATIENCE_S) == LAG


def test_a_server_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody who sends hangs; what was sent in part is lost, and the next was not sent."""
    monkeypatch.setattr("eventstore.client.SEND_TIMEOUT_S", 0.1)
    reads = threading.Event()

    class Frozen(Waits):
        def question(self, question: object, asker: Asker) -> msgspec.Struct:
            assert reads.wait(PATIENCE_S)
            return LAG

    with served(Frozen().handlers) as server, connected(server.address) as client:
        asked = [client.ask_soon(Lag(), LagIs)]
        while client.is_alive:
            asked.append(client.ask_soon(Accounts([LONG]), LagIs))
        *sent, last = (future.exception(PATIENCE_S) for future in asked)
        assert {type(error) for error in sent} == {Lost}
        assert type(last) in (Lost, NotSent)
        assert type(client.ask_soon(Lag(), LagIs).exception(PATIENCE_S)) is NotSent
        reads.set()


def test_when_it_breaks_everybody_is_told(waits: Waits) -> None:
    with served(waits.handlers) as server, connected(server.address) as client:
        under_way = [client.ask_soon(Accounts([]), At) for _ in range(20)]
        wait_until(lambda: len(waits.later) == 20, PATIENCE_S, "it is not asked")
        server.close(0)
        for future in under_way:
            with pytest.raises(Lost, match="nobody knows"):
                future.result(PATIENCE_S)
        with pytest.raises(NotSent, match="no byte"):
            client.ask(Lag(), LagIs, PATIENCE_S)
        # Whoever answers now answers nobody.
        waits.later[0].set_result(At(1, 1))


def test_pushes_follow_the_reply() -> None:
    class Pushes(Waits):
        def question(self, question: object, asker: Asker) -> msgspec.Struct:
            asker.after_reply(lambda: [asker.push(At(n, n)) for n in (2, 3)])  # type: ignore[arg-type]
            return At(1, 1)

    told: list[object] = []
    both = threading.Event()

    def note(at: At) -> None:
        told.append(at)
        if len(told) == 2:
            both.set()
        raise ZeroDivisionError("who is told fails, and the connection goes on")

    with served(Pushes().handlers) as server, connected(server.address, on_push=note) as client:
        assert client.ask(Lag(), At, PATIENCE_S) == At(1, 1)
        assert both.wait(PATIENCE_S)
        assert told == [At(2, 2), At(3, 3)]
        assert client.ask(Lag(), At, PATIENCE_S) == At(1, 1)


def test_a_server_that_ends_says_what_is_to_be_said(waits: Waits) -> None:
    with served(waits.handlers) as server, plain(server.address) as (sock, stream):
        sock.sendall(pack(1, Kind.QUESTION, encode(Entries("a", None, 1))))
        (connection,) = server._connections
        wait_until(lambda: connection._outgoing._bytes, PATIENCE_S, "nothing is to be said")
        ending = threading.Thread(target=server.close)
        ending.start()
        message = stream.receive()
        assert message is not None
        assert decode(message.body, Failed).text == LONG
        assert stream.receive() is None
        ending.join(PATIENCE_S)
        assert not ending.is_alive()


# --- answers to commands ------------------------------------------------------------------------


def test_an_answer_that_does_not_fit_what_was_sent() -> None:
    def decide(commands: Commands, texts: bytes) -> "Future[Decided]":
        decided: Future[Decided] = Future()
        decided.set_result(Decided(Answer([], None)))
        return decided

    handlers = Handlers(ReadQuestion, Waits().question, decide)
    with served(handlers) as server, connected(server.address) as client:
        with pytest.raises(Lost, match=r"number of outcomes is \(0, None\), and should be 1"):
            client.submit(*accounts("a")).result(PATIENCE_S)
        assert not client.is_alive
