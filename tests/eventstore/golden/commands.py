"""The commands of a golden list: every kind of them, and every outcome that version 1 knows."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from eventstore.commands import Packed, Packer
from eventstore.rows import pack_texts
from ledger.model import AMOUNT_MAX, Status, Transfer

ACCOUNTS = 30

# A frame's commands; None asks for a frame, which is an empty one.
Wanted = Packed | None


def epochs(transfers: int) -> Iterator[list[Wanted]]:
    """The frames of each start of the node; the last has a frame of so many transfers besides."""
    yield _beginnings()
    yield _refusals()
    yield _texts()
    yield [*_bulk(10, 20), *([_join(*_bulk(1, transfers))] if transfers else [])]


def _beginnings() -> list[Wanted]:
    opened = Packer().open("bank", "EUR", None).open("alice", "EUR").open("bob", "EUR", 500)
    opened.open("mint", "EUR", None).open("vault", "EUR").open("spent", "EUR")
    opened.open("us:one", "USD", None).open("a{w1}.b-C_9", "POINTS99", 10**12)
    many = Packer()
    for number in range(ACCOUNTS):
        many.open(f"wallet-{number}", "EUR", 1000)
    return [
        # EXISTS, in the same frame and in a later one; other terms change nothing.
        opened.open("alice", "USD", 7).packed,
        Packer().open("bob", "EUR", None).open("bob", "EUR", 500).packed,
        many.packed,
        None,
        _paid(wish("k1", "bank", "alice", 1000), wish("k2", "alice", "bob", 250)),
        # REPLAYED, in the same frame and in later ones, and REUSED by each field.
        _paid(wish("k3", "bank", "alice", 5), wish("k3", "bank", "alice", 5)),
        _paid(wish("k1", "bank", "alice", 1000), wish("k1", "bank", "alice", 1001)),
        _paid(
            wish("k1", "bank", "bob", 1000),
            wish("k1", "bank", "alice", 1000, currency="USD"),
            wish("k1", "bank", "alice", 1000, metadata="{}"),
            wish("k1", "bank", "alice", 1000, protocol="saga"),
        ),
    ]


def _refusals() -> list[Wanted]:
    statuses = Packer().status("wallet-1", Status.FROZEN).status("wallet-2", Status.CLOSED)
    statuses.status("alice", Status.CLOSED).status("nobody", Status.FROZEN)
    return [
        statuses.packed,
        _paid(
            wish("r1", "nobody", "alice", 1),
            wish("r2", "alice", "alice", 1),
            wish("r3", "alice", "nobody", 1),
            wish("r4", "wallet-2", "alice", 1),
            wish("r5", "alice", "wallet-2", 1),
            wish("r6", "wallet-1", "alice", 1),
            wish("r7", "us:one", "alice", 1),
            wish("r8", "alice", "us:one", 1),
            wish("r9", "alice", "bob", 756),
            wish("r10", "bob", "alice", 751),
            # As far down as it may go.
            wish("r16", "bob", "alice", 750),
        ),
        # To the edges of 64 bits.
        _paid(
            wish("r11", "mint", "vault", AMOUNT_MAX),
            wish("r12", "bank", "vault", 1),
            wish("r13", "mint", "alice", 1),
            wish("r14", "vault", "mint", 1),
            wish("r15", "vault", "spent", 1),
        ),
        # A refusal that is recorded is replayed; NO_SOURCE is not recorded.
        _paid(wish("r9", "alice", "bob", 756), wish("r1", "nobody", "alice", 1)),
        Packer().open("nobody", "EUR", None).packed,
        _paid(wish("r1", "nobody", "alice", 1), wish("r9", "alice", "bob", 755)),
        Packer().status("wallet-1", Status.OPEN).status("wallet-1", Status.OPEN).packed,
        Packer().status("wallet-2", Status.OPEN).status("bob", Status.FROZEN).packed,
        None,
        None,
    ]


def _texts() -> list[Wanted]:
    zero, one = 0, 1
    said = '{"note":"Grüße, 世界 🎉","n":[1,2.5,null]}'
    return [
        # Accounts by their numbers: of both sides, of either; and who names them means the same.
        _join(
            _numbered(wish("n1", "bank", "alice", 11), zero, one),
            _numbered(wish("n2", "bank", "wallet-3", 12), zero, None),
            _numbered(wish("n3", "bank", "alice", 13), None, one),
            _paid(wish("n1", "bank", "alice", 11), wish("n1", "bank", "alice", 12)),
        ),
        _join(
            _paid(wish("n4", "bank", "alice", 14)),
            _numbered(wish("n4", "bank", "alice", 14), zero, one),
            _numbered(wish("n5", "alice", "alice", 1), one, one),
        ),
        _paid(
            wish("t1", "bank", "wallet-4", 1, metadata=said),
            wish("t1", "bank", "wallet-4", 1, metadata=said.replace("ü", "u")),
            wish("k" * 64, "bank", "wallet-4", 2, metadata="{}"),
            wish("A key: with~every [kind] 'of' sign!", "bank", "wallet-4", 3),
            wish("t2", "a{w1}.b-C_9", "a{w1}.b-C_9", 4, currency="POINTS99"),
            wish("t3", "bank", "wallet-4", 5, metadata='{"long":"' + "é" * 500 + '"}'),
        ),
        _paid(*(wish(f"p-{p}", "bank", "wallet-5", 6, protocol=p) for p in ("xa", "tcc", "saga"))),
        # Asked for again long after, and after starts.
        _paid(wish("k1", "bank", "alice", 1000), wish("p-xa", "bank", "wallet-5", 6)),
    ]


def _bulk(frames: int, transfers: int) -> list[Packed]:
    """Transfers between wallets, some of them beyond their limits."""
    return [
        _paid(*(_between_wallets(frame * transfers + n, frames) for n in range(transfers)))
        for frame in range(frames)
    ]


def _between_wallets(number: int, salt: int) -> Transfer:
    source, destination = number % ACCOUNTS, (number * 7 + 3) % ACCOUNTS
    key = f"bulk-{salt}-{number}"
    return wish(key, f"wallet-{source}", f"wallet-{destination}", 1 + number * 7919 % 400)


def wish(key: str, source: str, destination: str, amount: int, **more: Any) -> Transfer:
    fields = {"currency": "EUR", "metadata": None, "protocol": "", "created_at": 0} | more
    return Transfer("", key, source, destination, amount, **fields)


def _paid(*wishes: Transfer) -> Packed:
    packer = Packer()
    for each in wishes:
        packer.transfer(each)
    return packer.packed


def _numbered(wish: Transfer, source: int | None, destination: int | None) -> Packed:
    """A transfer whose accounts are given by their numbers, where they have one."""
    rows, _ = _paid(wish)
    names = [wish.source, wish.destination]
    for index, (side, number) in enumerate((("source", source), ("destination", destination))):
        if number is not None:
            rows[side], names[index] = number, ""
    texts = pack_texts([wish.key, wish.metadata or "", *names])
    rows["text"] = len(texts)
    return Packed(rows, texts)


def _join(*parts: Packed) -> Packed:
    rows = np.concatenate([part.commands for part in parts])
    return Packed(rows, b"".join(part.texts for part in parts))
