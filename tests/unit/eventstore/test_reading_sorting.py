"""Entries are sorted and merged as Python sorts them, and nothing is lost."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore.reading.merging import due
from eventstore.reading.shapes import ENTRY, ENTRY_WORDS, Entries, Words, as_entries
from eventstore.reading.sorting import gather, merge, sorted_by_account, spans_of

ACCOUNTS = st.lists(st.integers(0, 5) | st.integers(0, 2**32 - 2), max_size=200)


def entries_of(accounts: list[int]) -> Entries:
    """Of each account entries from number 1 on; their order is noted as `seq`."""
    entries = np.zeros(len(accounts), ENTRY)
    seen: dict[int, int] = {}
    for at, account in enumerate(accounts):
        seen[account] = seen.get(account, 0) + 1
        entries[at]["account"], entries[at]["number"], entries[at]["seq"] = (
            account,
            seen[account],
            at,
        )
    return entries


def words_of(entries: Entries) -> Words:
    return entries.view(np.uint64).reshape(-1, ENTRY_WORDS)


@settings(deadline=None)
@given(ACCOUNTS)
def test_sorting_is_stable(accounts: list[int]) -> None:
    order = sorted_by_account(np.array(accounts, np.uint32))
    assert order.tolist() == sorted(range(len(accounts)), key=lambda at: accounts[at])
    into = np.zeros((len(accounts), ENTRY_WORDS), np.uint64)
    gather(words_of(entries_of(accounts)), order, into)
    assert as_entries(into)["seq"].tolist() == order.tolist()


@settings(deadline=None)
@given(ACCOUNTS, st.integers(0, 2**40))
def test_spans_are_where_accounts_stand(accounts: list[int], first: int) -> None:
    entries = entries_of(accounts)[sorted_by_account(np.array(accounts, np.uint32))]
    spans = spans_of(words_of(entries), first)
    assert spans["account"].tolist() == sorted(set(accounts))
    for account, count, at, number in spans.tolist():
        assert entries["account"][at - first : at - first + count].tolist() == [account] * count
        assert count == accounts.count(account)
        assert number == 1


@settings(deadline=None)
@given(ACCOUNTS, st.integers(1, 5), st.integers(1, 20), st.integers(1, 30))
def test_merging_is_sorting(accounts: list[int], parts: int, piece: int, room: int) -> None:
    """Whatever the sizes of what is read and written at once."""
    entries = entries_of(accounts)
    cuts = np.array_split(np.arange(len(accounts)), parts)
    runs = [entries[cut][sorted_by_account(entries["account"][cut])] for cut in cuts]
    pieces = np.zeros((parts, piece, ENTRY_WORDS), np.uint64)
    starts, ends, are_last = np.zeros((3, parts), np.int64)
    read, found = [0] * parts, []
    while len(found) < len(accounts):
        for part, run in enumerate(runs):
            if starts[part] == ends[part] and not are_last[part]:
                more = run[read[part] : read[part] + piece]
                pieces[part, : len(more)] = words_of(more)
                starts[part], ends[part] = 0, len(more)
                read[part] += len(more)
                are_last[part] = read[part] == len(run)
        into = np.zeros((room, ENTRY_WORDS), np.uint64)
        count = merge(pieces, starts, ends, are_last, into)
        found += as_entries(into)["seq"][:count].tolist()
    assert found == sorted(range(len(accounts)), key=lambda at: accounts[at])


def test_runs_of_one_level_are_merged_when_there_are_enough() -> None:
    assert due([], 2) is None
    assert due([1, 0], 2) is None
    assert due([1, 0, 0], 2) == 1
    assert due([1, 1, 0], 2) == 0
    assert due([1, 1, 0, 0, 0], 2) == 3
    assert due([0] * 7, 8) is None
    assert due([0] * 8, 8) == 0


def test_an_accounts_entries_are_never_in_many_runs() -> None:
    levels: list[int] = []
    most = 0
    for _ in range(5000):
        levels.append(0)
        while (start := due(levels, 8)) is not None:
            levels[start : start + 8] = [levels[start] + 1]
        most = max(most, len(levels))
    # At a million entries each, that is five thousand millions.
    assert most <= 7 * 5
