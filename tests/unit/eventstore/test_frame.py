"""A frame's bytes: they stand in files for ever, so what is made of them may never change."""

import random
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.rows import COMMAND, DETAIL, Outcomes, pack_texts
from eventstore.segments.chain import GENESIS, Link, follow, link_of, seal
from eventstore.segments.errors import Damaged, NewerFormat, OtherList, Where
from eventstore.segments.frame import (
    ALIGNMENT,
    FRAME_BYTES_MAX,
    HEADER_BYTES,
    IDENTITY_AT,
    MAGIC,
    Body,
    Draft,
    Frame,
    decode,
    encode,
    frame_bytes,
    length_of,
)
from ledger.errors import Bug
from tests.eventstore.drafts import IDENTITY, body, draft

HERE = Where("a file", 4096)
GOLDEN = """
544e44ffffff0100 0000000000000000 00000000000000c1 0000000000000000
000000000000006b 0100000000000000 4001000002000000 0100000004000000
0300000000000000 0600000000000000 00401e18240a0600 0400000000000000
6300000000000000 0700000001000000 6868686868686868 6868686868686868
6868686868686868 6868686868686868 a54e8f984924c509 ce08ee2f011e4f01
a85b2d3b6766dddb 12b461f888f07ad5 0100000000000000 0200000000000000
f401000000000000 0300000000000000 4555520000000000 0301040000000000
0100000000000000 0200000000000000 f401000000000000 0400000000000000
5553444332303234 0302000000000000 0009010000000000 0000ffffffffffff
ffff000000000000 0000000000000000 0000090000000000 0000020061620000
"""


def example(commands: int = 5, flushed: int = 0) -> bytes:
    return encode(draft(GENESIS, commands), IDENTITY, flushed, bytes(32))[0]


def same(one: Body, other: Body) -> bool:
    return (
        one.commands.tobytes() == other.commands.tobytes()
        and one.outcomes.codes.tobytes() == other.outcomes.codes.tobytes()
        and one.outcomes.details.tobytes() == other.outcomes.details.tobytes()
        and one.texts == other.texts
    )


def again(data: bytes) -> bytes:
    """The same bytes with the hash that belongs to them."""
    digest = sha256(data[: HEADER_BYTES - 32] + data[HEADER_BYTES:]).digest()
    return data[: HEADER_BYTES - 32] + digest + data[HEADER_BYTES:]


def test_golden_bytes() -> None:
    commands = np.zeros(2, COMMAND)
    commands["id"], commands["amount"], commands["source"] = (1, 2), 500, (3, 4)
    commands["kind"], commands["protocol"], commands["text"] = 3, (1, 2), (4, 0)
    commands["currency"] = tuple(b"EUR\0\0\0\0\0"), tuple(b"USDC2024")
    details = np.zeros(1, DETAIL)
    details["command"], details["a"], details["d"] = 1, -1, 9
    codes = np.array([0, 9], np.uint8)
    content = Body(commands, Outcomes(codes, details), b"\2\0ab")
    made = Draft(6, 1_700_000_000_000_000, 3, 7, 99, 1, content)
    data, digest = encode(made, IDENTITY, 4, b"h" * 32)
    assert data.hex(" ", -8).split() == GOLDEN.split()
    assert digest == data[144:176] == sha256(data[:144] + data[176:]).digest()


@given(st.integers(0, 40), st.integers(0, 2**64 - 1), st.integers(1, 2**63 - 1))
def test_what_is_made_is_read(commands: int, draw: int, time_us: int) -> None:
    made = draft(GENESIS, commands)._replace(draw=draw, time_us=time_us)
    data, digest = encode(made, IDENTITY, 0, b"p" * 32)
    header, read, length = decode(data + b"what follows", HERE)
    assert header == (IDENTITY, 1, 1, time_us, 0, draw, 7, 1, b"p" * 32, digest)
    assert same(read, made.body)
    assert length == len(data) == length_of(data[:HEADER_BYTES], HERE)
    assert length % ALIGNMENT == 0
    assert length == frame_bytes(commands, len(made.body.outcomes.details), len(made.body.texts))


def test_an_empty_frame_is_a_header() -> None:
    assert len(example(0)) == HEADER_BYTES
    assert len(decode(example(0), HERE).body.commands) == 0


def test_what_is_read_cannot_be_written_to() -> None:
    commands, (codes, details), _ = decode(example(), HERE).body
    assert not any(part.flags.writeable for part in (commands, codes, details))


def test_every_bit_is_missed() -> None:
    data = example(3)
    for at in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            with pytest.raises((Damaged, NewerFormat)) as refused:
                decode(bytes(changed), HERE)
            assert (refused.value.file, refused.value.offset) == HERE


@pytest.mark.parametrize("length", [0, 1, 8, 48, HEADER_BYTES - 1, HEADER_BYTES, -8, -1])
def test_every_missing_byte_is_missed(length: int) -> None:
    data = example(3)
    with pytest.raises(Damaged, match="number of bytes that are there") as refused:
        decode(data[:length], HERE)
    assert refused.value.offset == 4096


@pytest.mark.parametrize(
    ("at", "put", "what"),
    [
        (0, b"tnd", "magic"),
        (6, b"\0\0", "format"),
        (48, b"\x08", "length, by its counts,"),
        (52, b"\x03", "length, by its counts,"),
        (56, b"\x07", "length, by its counts,"),
        (60, b"\xff", "length, by its counts,"),
        (72, b"\x09", "hash"),
        (112, b"!", "hash"),
        (144, b"!", "hash"),
        (HEADER_BYTES, b"!!!!", "hash"),
    ],
)
def test_what_does_not_hold_is_named_with_both_values(at: int, put: bytes, what: str) -> None:
    data = example(2)
    with pytest.raises(Damaged) as refused:
        decode(data[:at] + put + data[at + len(put) :], HERE)
    error = refused.value
    assert error.what == what
    assert error.found != error.expected
    for part in ("a file, frame at byte 4096: ", what, str(error.found), str(error.expected)):
        assert part in str(error)
    assert "Nothing was changed" in str(error)


def test_a_length_beyond_the_limit_is_named() -> None:
    count = FRAME_BYTES_MAX // COMMAND.itemsize
    data = bytearray(example(0))
    data[48:56] = frame_bytes(count, 0, 0).to_bytes(4, "little") + count.to_bytes(4, "little")
    with pytest.raises(Damaged, match=f"should be at most {FRAME_BYTES_MAX}"):
        length_of(bytes(data), HERE)


def test_a_newer_format_is_refused_by_name() -> None:
    data = bytearray(example())
    data[6] = 9
    with pytest.raises(NewerFormat, match="its format is 9, and this version knows") as refused:
        decode(bytes(data), HERE)
    assert not isinstance(refused.value, Damaged)


def test_texts_that_do_not_add_up_are_found_under_a_right_hash() -> None:
    data = bytearray(example(2))
    data[HEADER_BYTES + 42] ^= 1
    with pytest.raises(Damaged, match="sum of the lengths of the commands' texts"):
        decode(again(bytes(data)), HERE)


@pytest.mark.parametrize("command", [2, 2**32 - 1])
def test_details_of_no_command_are_found_under_a_right_hash(command: int) -> None:
    data = bytearray(example(2))
    at = HEADER_BYTES + 2 * COMMAND.itemsize + 2
    data[at : at + 4] = command.to_bytes(4, "little")
    with pytest.raises(Damaged, match=r"order of the details' commands is .* rising, below 2"):
        decode(again(bytes(data)), HERE)


# --- what cannot be made --------------------------------------------------------------------------


def _twice(content: Body) -> Body:
    details = content.outcomes.details
    return content._replace(
        outcomes=content.outcomes._replace(details=np.concatenate([details, details]))
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (body(3)._replace(texts=b""), "sum of the lengths"),
        (body(3)._replace(outcomes=body(2).outcomes), "number of outcomes is 2, and should be 3"),
        (_twice(body(3)), "order of the details' commands"),
        (body(1)._replace(commands=np.zeros(1, np.uint64)), "type of commands"),
        (Body(np.zeros(0, COMMAND), Outcomes(np.zeros(0, bool), np.zeros(0, DETAIL)), b""), "type"),
    ],
)
def test_a_body_that_does_not_fit_itself_is_our_own_mistake(content: Body, why: str) -> None:
    with pytest.raises(Bug, match=why):
        encode(draft(GENESIS, content=content), IDENTITY, 0, bytes(32))


@pytest.mark.parametrize(
    "changes",
    [{"draw": 2**64}, {"node": -1}, {"machine": 2**32}, {"epoch": -1}, {"time_us": 2**63}],
)
def test_a_number_that_does_not_fit_is_our_own_mistake(changes: dict[str, int]) -> None:
    with pytest.raises(Bug, match=f"frame 1 has no header: .*{next(iter(changes.values()))}"):
        encode(draft(GENESIS)._replace(**changes), IDENTITY, 0, bytes(32))


def test_a_frame_has_a_largest_length() -> None:
    most = (FRAME_BYTES_MAX - HEADER_BYTES) // (COMMAND.itemsize + 1)
    for count in (most, most + 1):
        content = Body(
            np.zeros(count, COMMAND),
            Outcomes(np.zeros(count, np.uint8), np.zeros(0, DETAIL)),
            b"",
        )
        large = draft(GENESIS, content=content)
        if count == most:
            assert len(encode(large, IDENTITY, 0, bytes(32))[0]) <= FRAME_BYTES_MAX
        else:
            with pytest.raises(Bug, match=f"more than {FRAME_BYTES_MAX}"):
                encode(large, IDENTITY, 0, bytes(32))


@given(st.lists(st.lists(st.text(), max_size=4)))
def test_no_text_looks_like_the_beginning_of_a_frame(commands: list[list[str]]) -> None:
    texts = b"".join(pack_texts(parts) for parts in commands)
    assert MAGIC[3:] not in texts


def test_not_even_texts_whose_lengths_look_like_it_do() -> None:
    high = "\U0010ffff"
    for length in range(65_000, 65_534):
        assert MAGIC[3:] not in pack_texts(["x" * (length - 4) + high])[-9:] + pack_texts([high])
        assert MAGIC[3:] not in pack_texts(["", "x" * (length - 6) + high])[:12]


def test_the_identity_stands_where_it_is_looked_for() -> None:
    packed = IDENTITY.pack()
    assert example()[IDENTITY_AT : IDENTITY_AT + len(packed)] == packed


# --- one behind the other -------------------------------------------------------------------------

BEFORE = Link(5, 3, 1000, b"h" * 32)


def framed(**changes: object) -> Frame:
    """What follows on BEFORE, but for what is changed."""
    values = {"identity": IDENTITY, "flushed": 5, "previous": BEFORE.hash} | changes
    made = draft(BEFORE, 1, epoch=3)
    fields = {name: value for name, value in values.items() if name in made._fields}
    identity, flushed, previous = (values[n] for n in ("identity", "flushed", "previous"))
    return decode(encode(made._replace(**fields), identity, flushed, previous)[0], HERE)


def test_a_frame_follows() -> None:
    frame = framed()
    link = follow(BEFORE, frame.header, IDENTITY, HERE)
    assert link == link_of(frame.header) == (6, 3, 1001, frame.header.hash)
    assert follow(BEFORE, framed(epoch=4).header, IDENTITY, HERE).epoch == 4


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"seq": 7}, "seq is 7, and should be 6"),
        ({"seq": 5, "flushed": 4}, "seq is 5, and should be 6"),
        ({"epoch": 2}, "epoch is 2, and should be at least 3"),
        ({"time_us": 1000}, "time is 1000, and should be more than 1000"),
        ({"flushed": 6}, "flushed is 6, and should be less than 6"),
        ({"previous": b"i" * 32}, f"frame before is {'69' * 32}, and should be {'68' * 32}"),
    ],
)
def test_a_frame_that_does_not_follow_is_damage(changes: dict[str, object], text: str) -> None:
    with pytest.raises(Damaged, match=text) as refused:
        follow(BEFORE, framed(**changes).header, IDENTITY, HERE)
    assert not isinstance(refused.value, OtherList)


@pytest.mark.parametrize("part", ["cluster", "group", "branch"])
def test_a_frame_of_another_list_is_told_from_damage(part: str) -> None:
    other = IDENTITY._replace(**{part: 2 if part == "branch" else type(IDENTITY.group)(int=5)})
    with pytest.raises(OtherList, match=f"list is cluster .*{getattr(other, part)}"):
        follow(BEFORE, framed(identity=other).header, IDENTITY, HERE)


@pytest.mark.parametrize(
    "changes", [{"seq": 7}, {"seq": 5}, {"epoch": 2}, {"time_us": 1000}, {"time_us": -1}]
)
def test_a_draft_that_does_not_follow_is_our_own_mistake(changes: dict[str, int]) -> None:
    with pytest.raises(Bug, match="cannot be appended"):
        seal(draft(BEFORE, epoch=3)._replace(**changes), IDENTITY, BEFORE, 2)


def test_chance_makes_no_frame() -> None:
    for seed in range(300):
        with pytest.raises(Damaged):
            decode(MAGIC + b"\1\0" + random.Random(seed).randbytes(400), HERE)
