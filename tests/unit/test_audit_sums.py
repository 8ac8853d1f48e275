"""The sums by which transfers are compared: zero for what is whole, and for nothing else."""

from zlib import crc32

import pytest

from coordinator.auditing.sums import PARTS, Adding, Sums, united
from shard_client.audit import PhaseOf, StepOf, Terms, TransferRow

KEY = bytes(range(16))
GTRID = "tandem.s1.c1.x.y"
TERMS = Terms("a", "b", 7, "EUR")
PART = crc32(b"t") % PARTS


class Books:
    """The sums of two shards: the source's and the destination's."""

    def __init__(self, *steps: StepOf, phases: tuple[PhaseOf, ...] = ()) -> None:
        self.source, self.destination = Adding(KEY), Adding(KEY)
        for phase in phases:
            self.source.phase(phase)
        for step in steps:
            self.destination.step(step)
        field = united([self.source.field, self.destination.field])
        self.source.field = self.destination.field = field

    def debit(self, stamp: int, terms: Terms = TERMS, times: int = 1) -> "Books":
        digest = self.source.digest(crc32(b"t"), "t", *terms, stamp)
        self.source.sums.debits[PART] += times * digest
        return self

    def refund(self, stamp: int, terms: Terms = TERMS) -> "Books":
        return self.debit(stamp, terms, -1)

    def credit(self, stamp: int, terms: Terms = TERMS) -> "Books":
        digest = self.destination.digest(crc32(b"t"), "t", *terms, stamp)
        self.destination.sums.credits[PART] += digest
        return self

    def committed(self, stamp: int, protocol: str = "xa") -> "Books":
        has_step = protocol != "xa"
        gtrid = GTRID if has_step else ""
        row = TransferRow("t", "committed", *TERMS, stamp, protocol, gtrid)
        self.source.committed(row, has_step=has_step)
        return self

    @property
    def parts(self) -> list[int]:
        sums = Sums.zero()
        sums.add(self.source.sums)
        sums.add(self.destination.sums)
        return sums.parts


def step(state: str, **changes: object) -> StepOf:
    return StepOf("t", GTRID, "b", 7, state)._replace(**changes)  # type: ignore[arg-type]


def test_one_time_by_two_phase_commit() -> None:
    assert Books().committed(5).debit(5).credit(5).parts == []
    for wrong in (
        Books().committed(5).debit(5).credit(6),
        Books().committed(5).debit(6).credit(5),
        Books().committed(6).debit(5).credit(5),
        Books().committed(5).debit(5),
        Books().committed(5).credit(5),
        Books().debit(5).credit(5),
        Books().committed(5).debit(5).credit(5, TERMS._replace(amount=8)),
        Books().committed(5).debit(5, TERMS._replace(currency="USD")).credit(5),
    ):
        assert wrong.parts == [PART]


def test_one_time_beside_steps_of_others() -> None:
    """The field says it of the others only."""
    others = [step("credited", transfer=f"o{number}") for number in range(9)]
    books = Books(*others).committed(5).debit(5).credit(6)
    assert PART in books.parts
    assert len(books.parts) == 1 + len({crc32(f"o{n}".encode()) % PARTS for n in range(9)})


@pytest.mark.parametrize(("protocol", "state"), [("tcc", "confirmed"), ("saga", "credited")])
def test_times_of_their_own_by_the_others(protocol: str, state: str) -> None:
    assert Books(step(state)).committed(9, protocol).debit(5).credit(7).parts == []
    for wrong in (
        Books(step(state)).committed(9, protocol).debit(5),
        Books(step(state)).committed(9, protocol).credit(7),
        Books(step(state)).debit(5).credit(7),
        Books(step(state, gtrid="another")).committed(9, protocol).debit(5).credit(7),
        Books(step(state, amount=8)).committed(9, protocol).debit(5).credit(7),
        Books(step(state, account="c")).committed(9, protocol).debit(5).credit(7),
        Books(step("cancelled")).committed(9, protocol).debit(9).credit(9),
        Books(step("refused")).committed(9, protocol).debit(5).credit(7),
        Books().committed(9, protocol).debit(9).credit(9),
    ):
        assert wrong.parts == [PART]


def test_a_refund_cancels_its_debit() -> None:
    assert Books(step("refused")).debit(5).refund(8).parts == []
    for wrong in (
        Books(step("refused")).debit(5),
        Books(step("refused")).refund(8),
        Books(step("refused")).debit(5).refund(8, TERMS._replace(amount=8)),
        # Without a step there is nothing that was refused.
        Books().debit(5).refund(8),
    ):
        assert wrong.parts == [PART]


def test_a_refund_that_no_transfer_allows_is_looked_at() -> None:
    for allowed, parts in (
        ({"t": TERMS}, []),
        ({}, [PART]),
        ({"t": TERMS._replace(amount=8)}, [PART]),
    ):
        books = Books(step("refused")).debit(5).refund(8)
        books.source.refunds([("t", TERMS)], allowed)
        assert books.parts == parts


def test_what_is_unfinished_is_looked_at() -> None:
    phase = PhaseOf("t", GTRID, "tcc", "trying", "a", 7)
    assert Books(phases=(phase,)).parts == [PART]
    assert Books(step("tried")).parts == [PART]
    assert Books(step("refused")).parts == []
    assert Books(step("cancelled")).parts == []


def test_fields_are_put_together() -> None:
    one, other = Adding(KEY), Adding(KEY)
    assert united([one.field, other.field]) is None
    one.step(step("credited", transfer="o1"))
    assert united([one.field, other.field]) == one.field
    other.step(step("refused", transfer="o2"))
    both = united([one.field, other.field])
    assert both is not None
    assert sum(byte.bit_count() for byte in both) == 2
