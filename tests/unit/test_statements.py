"""Rows as SQL text."""

import pytest

from ledger.model import Account
from shard_client.branch import accounts_of
from shard_client.statements import insert


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([("a", 1, None), ("b", -2, "c")], '("a",1,null),("b",-2,"c")'),
        ([("é", 2**63 - 1)], '("é",9223372036854775807)'),
        ([("a],[b", 1)], "('a],[b',1)"),
        ([("[", 1), ("a", None)], "('[',1),('a',NULL)"),
        ([('a"b', 1)], "('a\"b',1)"),
        ([("it's", 1)], '("it\'s",1)'),
        ([("it's]", 1)], "('it\\'s]',1)"),
        ([("a\\", 1)], "('a\\\\',1)"),
        ([("%s", 1)], '("%s",1)'),
        ([("(a),(b)", 1)], '("(a),(b)",1)'),
    ],
)
def test_rows_become_literals(rows: list[tuple[object, ...]], text: str) -> None:
    assert insert("INSERT INTO t VALUES %s", rows) == f"INSERT INTO t VALUES {text}"


A = "a\tEUR\t-5\t\topen\t2\t7\tchain\t3\t0"
B = "b\tEUR\t5\t10\tfrozen\t1\t8\tchain\t0\t4"


def test_accounts_come_as_lines() -> None:
    a = Account("a", "EUR", -5, None, "open", 2, 7, "chain", held=3)
    b = Account("b", "EUR", 5, 10, "frozen", 1, 8, "chain", expected=4)
    assert accounts_of([A, B]) == {"a": a, "b": b}
    assert accounts_of([]) == {}
