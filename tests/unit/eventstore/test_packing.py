"""Transfers in columns become the rows, texts and ids that they become one by one."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eventstore.commands import Packer
from eventstore.packing import Packing, pack
from eventstore.rows import ProtocolCode, currency_number
from ledger.columns import Columns
from ledger.ids import transfer_id
from ledger.model import AMOUNT_MAX, Transfer


def columns_of(transfers: list[Transfer]) -> Columns:
    data = bytearray(b"before")
    spans: list[list[tuple[int, int]]] = [[], [], []]
    for transfer in transfers:
        texts = (transfer.key, transfer.source, transfer.destination)
        for text, column in zip(texts, spans, strict=True):
            column.append((len(data), len(data) + len(text)))
            data += text.encode()
    key, source, destination = (np.array(c, np.int32).reshape(-1, 2) for c in spans)
    return Columns(
        np.frombuffer(bytes(data), np.uint8),
        key,
        source,
        destination,
        np.array([currency_number(transfer.currency) for transfer in transfers], np.int64),
        np.array([transfer.amount for transfer in transfers], np.int64),
        np.array([CODES[transfer.protocol] for transfer in transfers], np.uint8),
    )


CODES = {"": 0, "tcc": ProtocolCode.TCC, "saga": ProtocolCode.SAGA}
ACCOUNTS = st.text("az09_.:{}-", min_size=1, max_size=12) | st.sampled_from(
    ["a" * 64, "{" * 64, "a{}{b}", "a{b", "a}b{c}{d}", "{{a}", "{a}b", "}{", "{}"]
)
KEYS = st.text("!~ k", min_size=1, max_size=12) | st.sampled_from(["k" * 62, "k" * 63, "k" * 128])
TRANSFERS = st.builds(
    lambda key, source, destination, amount, currency, protocol: Transfer(
        "", key, source, destination, amount, currency, None, protocol, 0
    ),
    KEYS,
    ACCOUNTS,
    ACCOUNTS,
    st.integers(1, AMOUNT_MAX),
    st.sampled_from(["EUR", "USD1", "ABCDEFGH"]),
    st.sampled_from(sorted(CODES)),
)


def transfer(key: str, source: str = "a", protocol: str = "") -> Transfer:
    return Transfer("", key, source, "b", 5, "EUR", None, protocol, 0)


def ids_of(packing: Packing) -> list[str]:
    return [
        f"{slot:03x}-{digest.tobytes().hex()}"
        for slot, digest in zip(packing.slots.tolist(), packing.digests, strict=True)
    ]


@given(st.lists(TRANSFERS, max_size=8), st.sampled_from(["tcc", "saga"]))
@example([], "tcc")
@example([transfer("k" * length, "a" * 64) for length in range(1, 129)], "saga")
def test_rows_and_texts_are_those_of_one_by_one(transfers: list[Transfer], default: str) -> None:
    packer = Packer()
    for wish in transfers:
        packer.transfer(wish._replace(protocol=wish.protocol or default))
    wanted, found = packer.packed, pack(columns_of(transfers), CODES[default])
    assert found.commands.dtype == wanted.commands.dtype
    assert found.commands.tobytes() == wanted.commands.tobytes()
    assert found.texts == wanted.texts
    assert ids_of(found) == [transfer_id(wish.source, wish.key) for wish in transfers]


@pytest.mark.parametrize("part", [slice(2, 5), slice(0, 0)])
def test_a_part_of_columns(part: slice) -> None:
    transfers = [transfer(f"k{number}") for number in range(9)]
    data, *others = columns_of(transfers)
    found = pack(Columns(data, *(column[part] for column in others)), ProtocolCode.TCC)
    alone = pack(columns_of(transfers[part]), ProtocolCode.TCC)
    assert (found.commands.tobytes(), found.texts) == (alone.commands.tobytes(), alone.texts)
