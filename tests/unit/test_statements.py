"""Rows as SQL text."""

import pytest

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
