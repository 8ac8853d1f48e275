"""Whatever does not fit is refused with its values: every truncation, and every flip of a bit."""

from collections.abc import Callable

import numpy as np
import pytest

from eventstore.commands import Packer
from eventstore.rows import COMMANDS_MAX, DETAIL, Code, Outcomes
from eventstore.wire.answers import (
    Answer,
    Piece,
    pack_answer,
    pack_firsts,
    read_answer,
    read_firsts,
)
from eventstore.wire.commands import pack_commands, read_commands
from eventstore.wire.errors import Malformed, TooLarge, WireError
from eventstore.wire.failures import Failed, FailureKind, error_of
from eventstore.wire.messages import (
    HEAD_BYTES,
    MESSAGE_BYTES_MAX,
    PROOF_BYTES_MAX,
    Head,
    Kind,
    pack,
    read_head,
)
from eventstore.wire.proofs import CLIENT, SERVER, Challenge, Hello, Proof, Welcome, sign
from eventstore.wire.questions import (
    Accounts,
    At,
    Barrier,
    Describe,
    Find,
    Finding,
    First,
    Follow,
    Known,
    NodeQuestion,
    ReadQuestion,
)
from eventstore.wire.values import decode, encode
from ledger.errors import Bug
from ledger.model import Transfer

WISH = Transfer("", "salary", "bank", "alice", 1250, "EUR", '{"n":1}', "saga", 0)
COMMANDS = Packer().open("bank", "EUR", None).open("alice", "USDC").transfer(WISH).packed
_FIRST = WISH._replace(id="0ab-" + "1" * 32), "insufficient-funds", "too little", At(4, 5)
FIRST, KNOWN = First(*_FIRST), Known(*_FIRST)


def outcomes(codes: list[Code], details: list[tuple[int, ...]]) -> Outcomes:
    return Outcomes(np.array(codes, np.uint8), np.array(details, DETAIL))


FUNDS = (1, 0, -5, 0, 10, 0)
PIECES = [
    Piece(0, 7, 3, 1_000_000, outcomes([Code.DONE, Code.FUNDS, Code.DONE], [FUNDS])),
    Piece(3, 8, 0, 1_000_001, outcomes([Code.REPLAYED], [(0, 0, 7 << 16, 0, 0, 0)])),
]
ANSWERS = [Answer([], "the disk is full"), Answer(PIECES, None), Answer(PIECES, "müde")]
VALUES: list[tuple[object, object]] = [
    (NodeQuestion, Find(["0ab-" + "0" * 32])),
    (NodeQuestion, Barrier()),
    (NodeQuestion, Describe()),
    (NodeQuestion, Follow()),
    (ReadQuestion, Accounts(["a", "b"], 17)),
    (At, At(2**40, 2**62)),
    (Finding, Finding(At(1, 2), {"x": FIRST})),
    (Failed, Failed(FailureKind.BUSY, "later")),
    (Challenge, Challenge(1, b"n" * 32)),
    (Proof, Proof(b"n" * 32, "c", b"s" * 32)),
    (Welcome, Welcome(b"s" * 32, Hello("c", "g", 0, 1, ("127.0.0.1", 9700)))),
    (list[tuple[int, Known]], [(0, KNOWN), (9, KNOWN)]),
]


# Of each body: how it is read, and made again of what was read.
def remade_commands(body: bytes) -> bytes:
    return pack_commands(*read_commands(body))


def remade_answer(body: bytes) -> bytes:
    return pack_answer(read_answer(body))


BODIES: list[tuple[bytes, Callable[[bytes], bytes]]] = [
    (pack_commands(*COMMANDS), remade_commands),
    (pack_commands(COMMANDS.commands[:0], b""), remade_commands),
    *((pack_answer(answer), remade_answer) for answer in ANSWERS),
    *(
        (encode(value), lambda body, kind=kind: encode(decode(body, kind)))  # type: ignore[misc]
        for kind, value in VALUES
    ),
]
EACH = pytest.mark.parametrize(("body", "remade"), BODIES, ids=[f"{n}" for n in range(len(BODIES))])


@EACH
def test_what_was_packed_is_read(body: bytes, remade: Callable[[bytes], bytes]) -> None:
    assert remade(body) == body
    assert remade(bytearray(body)) == body


@EACH
def test_no_part_of_a_body_is_one(body: bytes, remade: Callable[[bytes], bytes]) -> None:
    for end in range(len(body)):
        with pytest.raises(Malformed, match="should be"):
            remade(body[:end])
    for more in (b"\0", b"\x93", body[:1] or b"x"):
        with pytest.raises(Malformed, match="should be"):
            remade(body + more)


@EACH
def test_a_flipped_bit_is_refused_or_is_another_body(
    body: bytes, remade: Callable[[bytes], bytes]
) -> None:
    """What is read of it says all of what came, and nothing else: nothing is guessed."""
    refused = 0
    for at in range(len(body)):
        for bit in range(8):
            flipped = bytearray(body)
            flipped[at] ^= 1 << bit
            try:
                assert remade(bytes(flipped)) == flipped
            except Malformed:
                refused += 1
    assert refused > 8


def test_values_are_what_they_were() -> None:
    for kind, value in VALUES:
        assert decode(encode(value), kind) == value  # type: ignore[arg-type]
    commands, texts = read_commands(pack_commands(*COMMANDS))
    assert commands.tobytes() == COMMANDS.commands.tobytes()
    assert texts == COMMANDS.texts
    for answer in ANSWERS:
        pieces, rest = read_answer(pack_answer(answer))
        assert rest == answer.rest
        for found, piece in zip(pieces, answer.pieces, strict=True):
            assert found[:4] == piece[:4]
            assert found.outcomes.codes.tolist() == piece.outcomes.codes.tolist()
            assert found.outcomes.details.tolist() == piece.outcomes.details.tolist()


def test_a_value_in_another_spelling_is_refused() -> None:
    packed = encode(At(1, 2))
    assert packed[:1] == b"\x82"
    twice = b"\x83" + packed[1:] + encode("seq") + encode(1)
    wide = packed.replace(encode("seq") + b"\x01", encode("seq") + b"\xcc\x01")
    more = b"\x83" + packed[1:] + encode("more") + encode(1)
    for body in (twice, wide, more):
        with pytest.raises(Malformed, match=r"body of At is [0-9a-f]+, and should be spelled as"):
            decode(body, At)


# --- answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"first": 1}, r"place of a piece is \(1, 3\)"),
        ({"seq": 0}, r"frame of a piece is \(0, "),
        ({"time_us": -1}, "frame of a piece"),
        ({"at": COMMANDS_MAX - 2}, "end of a piece in its frame is 65536"),
        ({"outcomes": outcomes([], [])}, r"place of a piece is \(0, 0\)"),
        ({"outcomes": outcomes([max(Code) + 1], [])}, rf"outcomes is \[{max(Code) + 1}\]"),  # type: ignore[list-item]
        ({"outcomes": outcomes([Code.FUNDS], [FUNDS])}, r"details' commands is \[1\]"),
        (
            {"outcomes": outcomes([Code.FUNDS] * 2, [FUNDS, FUNDS])},
            r"details' commands is \[1, 1\]",
        ),
    ],
)
def test_an_answer_that_does_not_fit_itself(changes: dict[str, object], says: str) -> None:
    piece = PIECES[0]._replace(**changes)  # type: ignore[arg-type]
    with pytest.raises(Malformed, match=says):
        read_answer(pack_answer(Answer([piece], None)))


def test_pieces_are_of_frames_in_their_order() -> None:
    second = PIECES[1]._replace(seq=PIECES[0].seq)
    with pytest.raises(Malformed, match=r"frame of a piece is \(7, "):
        read_answer(pack_answer(Answer([PIECES[0], second], None)))


def test_a_reason_has_words() -> None:
    with pytest.raises(Bug, match="needs a reason"):
        pack_answer(Answer([], ""))


def test_firsts_come_in_bodies_of_some_size() -> None:
    long = Known(WISH._replace(metadata="m" * 10_000), None, None, At(1, 2))
    firsts = [(n, long) for n in range(500)]
    bodies = list(pack_firsts(firsts))
    assert len(bodies) > 3
    assert max(map(len, bodies)) < 2**21
    assert [value for body in bodies for value in read_firsts(body)] == firsts
    assert list(pack_firsts([])) == []


# --- commands -----------------------------------------------------------------------------------


def test_commands_that_do_not_fit_themselves() -> None:
    commands, texts = COMMANDS
    with pytest.raises(Bug, match="sum of the lengths"):
        pack_commands(commands, texts[:-1])
    many = np.zeros(COMMANDS_MAX + 1, commands.dtype)
    with pytest.raises(Bug, match="65536, and should be at most 65535"):
        pack_commands(many, b"")
    with pytest.raises(Bug, match="commands are rows"):
        pack_commands(np.zeros(1, DETAIL), b"")
    body = bytearray(pack_commands(commands, texts))
    # The second one's text is longer, by its row: at the end one byte is missing.
    body[8 + 48 + 42] += 1
    with pytest.raises(Malformed, match="sum of the lengths of the commands' texts"):
        read_commands(bytes(body))


# --- heads --------------------------------------------------------------------------------------


def test_a_head() -> None:
    message = pack(2**64 - 1, Kind.ANSWER, b"body")
    assert read_head(message[:HEAD_BYTES]) == Head(2**64 - 1, Kind.ANSWER, 4)
    assert message[HEAD_BYTES:] == b"body"
    with pytest.raises(Bug, match="cannot have the number"):
        pack(2**64, Kind.ANSWER)


def test_no_part_of_a_head_is_one() -> None:
    message = pack(1, Kind.ANSWER)
    for end in range(HEAD_BYTES):
        with pytest.raises(Malformed, match="length of a message's head"):
            read_head(message[:end])


def test_a_flipped_bit_in_a_head_is_refused_or_is_another_head() -> None:
    message = pack(7, Kind.PUSH, b"12345")[:HEAD_BYTES]
    refused = 0
    for at in range(HEAD_BYTES):
        for bit in range(8):
            flipped = bytearray(message)
            flipped[at] ^= 1 << bit
            try:
                number, kind, body_bytes = read_head(flipped)
            except WireError:
                refused += 1
            else:
                assert pack(number, kind, bytes(body_bytes))[:HEAD_BYTES] == flipped
    assert refused > 8


def test_sizes_have_ends() -> None:
    room = MESSAGE_BYTES_MAX - HEAD_BYTES
    assert read_head(pack(1, Kind.REPLY, bytes(room))[:HEAD_BYTES]).body_bytes == room
    with pytest.raises(TooLarge, match="16,777,217 bytes, and may have 16,777,216"):
        pack(1, Kind.REPLY, bytes(room + 1))
    head = (2**32 - 1).to_bytes(4, "little") + bytes(8) + bytes([Kind.REPLY])
    with pytest.raises(TooLarge, match="4,294,967,299 bytes"):
        read_head(head)
    with pytest.raises(TooLarge, match="may have 1,024"):
        read_head(pack(0, Kind.PROOF, bytes(PROOF_BYTES_MAX))[:HEAD_BYTES], PROOF_BYTES_MAX)
    short = (8).to_bytes(4, "little") + bytes(8) + bytes([Kind.REPLY])
    with pytest.raises(Malformed, match="size of a message is 12, and should be at least 13"):
        read_head(short)


def test_a_kind_that_is_not_known() -> None:
    for kind in (0, len(Kind) + 1, 255):
        head = pack(1, Kind.REPLY)[: HEAD_BYTES - 1] + bytes([kind])
        with pytest.raises(Malformed, match=f"kind of a message is {kind}"):
            read_head(head)


# --- signs and failures -------------------------------------------------------------------------


def test_a_sign_is_of_all_that_it_is_made_of() -> None:
    nonces = b"1" * 32, b"2" * 32
    made = [
        sign(b"secret", CLIENT, *nonces, "c"),
        sign(b"secret", SERVER, *nonces, "c"),
        sign(b"secreT", CLIENT, *nonces, "c"),
        sign(b"secret", CLIENT, *reversed(nonces), "c"),
        sign(b"secret", CLIENT, *nonces, "d"),
        # Where one part ends and the next begins is signed, too.
        sign(b"secret", CLIENT, nonces[0], nonces[1] + b"c", ""),
    ]
    assert len(set(made)) == len(made)
    assert made[0] == sign(b"secret", CLIENT, *nonces, "c")
    assert {len(one) for one in made} == {32}


def test_each_failure_is_an_error() -> None:
    for kind in FailureKind:
        assert str(error_of(Failed(kind, "why"))) == "why"
