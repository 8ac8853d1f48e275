"""NDJSON: the values of lines, each by itself, with one reading."""

import json
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.http import json_text
from coordinator.http.json_text import VALUE_MAX, TooLong, Value, read_lines, read_list


def lines(data: bytes) -> list[Value]:
    return list(read_lines(data, lambda: None))


def faults(data: bytes) -> list[str | None]:
    return [fault for _, fault in lines(data)]


PLAIN = {"source": "a", "amount": 5}
ITEMS = st.lists(
    st.dictionaries(st.text(max_size=3), st.text(max_size=5) | st.integers() | st.none())
    | st.recursive(
        st.none() | st.floats(allow_nan=False, allow_infinity=False), st.lists, max_leaves=4
    ),
    max_size=8,
)


@given(ITEMS, st.booleans(), st.sampled_from(["\n", "\r\n", " \n", "\t\n"]), st.booleans())
def test_lines_are_read_as_the_items_of_a_list(
    items: list[Any], is_ascii: bool, end: str, is_ended: bool
) -> None:
    texts = [json.dumps(item, ensure_ascii=is_ascii) for item in items]
    data = end.join(texts) + (end if is_ended and texts else "")
    listed = list(read_list(f'{{"x": [{",".join(texts)}]}}'.encode(), "x", lambda: None))
    assert lines(data.encode()) == listed


FAULTY = [
    ('{"amount": 1, "amount": 2}', "occurs twice"),
    ('{"amount": 1, "\\u0061mount": 2}', "occurs twice"),
    ('{"a": [{"c": 1, "c": 1}]}', "occurs twice"),
    ('{"a": "\\ud800"}', "surrogate"),
    ('{"a": 1e400}', "out of range"),
    ('{"a": ' + "1" * 5000 + "}", "digits"),
    ('{"a": NaN}', "NaN"),
    ("[" * 5000, "recursion"),
    ("", "empty"),
    (" \t\r", "empty"),
    ("{", "line 1 column 2"),
    ('{"a": 1} {"a": 2}', "Extra data"),
    ('{"a": 1},', "Extra data"),
    ("no JSON", "Expecting value"),
    ('{"a": "b', "Unterminated"),
    ('\ufeff{"a": 1}', "Expecting value"),
    ("{} //", "Extra data"),
]


@pytest.mark.parametrize(("text", "why"), FAULTY)
def test_a_line_with_a_fault_is_refused_by_itself(text: str, why: str) -> None:
    plain = json.dumps(PLAIN)
    before, found, after = lines(f"{plain}\n{text}\n{plain}\n".encode())
    assert why in (found[1] or "")
    assert before == after == (PLAIN, None)
    # And so it is where it is the last one, and not ended.
    if text:
        assert why in (faults(f"{plain}\n{text}".encode())[1] or "")


TOGETHER = [
    # As many objects as lines, if one took the lines together.
    ['{"a": 1', '"b": 2}', '{"c": 3}, {"d": 4}'],
    ['{"a": "x', 'y"}', '{"c": "3"}, {"d": "4"}'],
    ['{"a": 1}, {"b": 2}', "", '{"c": 3}'],
    ['{"a": {"b": 1}', '{"c": 2}}', '{"d": 3}, {"e": 4}'],
    ['{"a": [{}', "{}]}", '{"d": 3}, {"e": 4}'],
]


@pytest.mark.parametrize("texts", TOGETHER)
def test_no_value_goes_over_a_line(texts: list[str]) -> None:
    found = lines("\n".join(texts).encode())
    assert len(found) == 3
    for (value, fault), text in zip(found, texts, strict=True):
        try:
            assert (value, fault) == (json.loads(text), None)
        except ValueError:
            assert fault


@pytest.mark.parametrize(
    ("data", "count"), [(b"", 0), (b"{}", 1), (b"{}\n", 1), (b"{}\n\n", 2), (b"\n", 1)]
)
def test_how_many_lines_there_are(data: bytes, count: int) -> None:
    assert len(lines(data)) == count


def test_what_others_take_for_a_line_end() -> None:
    text = '{"a": "x\u2028y\u0085z"}'
    assert lines(text.encode()) == [({"a": "x\u2028y\u0085z"}, None)]
    assert len(lines(b'{"a": 1}\r{"a": 2}')) == 1


@pytest.mark.parametrize("data", [b"\xff", b'{}\n{"a": "\xff"}\n{}', '{"a": "é"}'.encode()[:-3]])
def test_what_is_not_utf_8(data: bytes) -> None:
    with pytest.raises(ValueError, match="utf-8"):
        lines(data)


def test_many_lines_are_read_at_one_go_as_long_as_they_are_plain() -> None:
    items = [{"amount": number, "note": "é" * (number % 50)} for number in range(2000)]
    data = "\n".join(json.dumps(item, ensure_ascii=False) for item in items).encode()
    with patch.object(json_text, "read_each", None):
        assert lines(data) == [(item, None) for item in items]
    odd = data + b'\n{"amount": 1, "amount": 2}'
    assert [fault for fault in faults(odd) if fault] == ["the member 'amount' occurs twice"]


@pytest.mark.parametrize("blanks", [0, 100_000])
def test_a_line_has_a_limit(blanks: int) -> None:
    start = json.dumps(PLAIN) + "\n"
    pad = " " * blanks
    longest = '"' + "x" * (VALUE_MAX - 2) + '"'
    assert faults(f"{start}{pad}{longest}{pad}\n{start}".encode()) == [None] * 3
    for long in (f'"x{longest[1:]}', '{"a": "' + "x" * VALUE_MAX + '"}'):
        with pytest.raises(TooLong, match=str(VALUE_MAX)):
            lines(f"{start}{pad}{long}{pad}\n{start}".encode())


def test_others_have_their_turn() -> None:
    turns: list[None] = []
    data = b'{"a": 1}\n' * 10_000
    assert len(list(read_lines(data, lambda: turns.append(None)))) == 10_000
    assert len(turns) >= 5
