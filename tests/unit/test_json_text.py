"""JSON text is read in pieces, and what has two readings is said to have."""

import json
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.http import json_text
from coordinator.http.json_text import VALUE_MAX, TooLong, read, read_list


def listed(data: bytes, name: str = "transfers") -> list[json_text.Value]:
    return list(read_list(data, name, lambda: None))


TWICE = [
    '{"amount": 1, "amount": 2}',
    '{"amount": 1, "amount": 1}',
    '{"amount": 1, "\\u0061mount": 2}',
    '{"a": 1, "b": [{"c": {"d": 1, "d": 1}}]}',
    '{"metadata": {"": 1, "": 2}}',
    '{"a": "\\"", "\\u0061": 1}',
]


@pytest.mark.parametrize("text", TWICE)
def test_a_member_that_occurs_twice(text: str) -> None:
    assert "occurs twice" in (read(text.encode())[1] or "")
    before, twice, after = listed(f'{{"transfers": [{{}}, {text}, {{}}]}}'.encode())
    assert "occurs twice" in (twice[1] or "")
    assert (before, after) == (({}, None), ({}, None))


ONCE = [
    '{"a": {"a": 1}, "b": {"a": 1}}',
    '[{"a": 1}, {"a": 1}]',
    '{"a": "\\"a\\":1", "A": 1}',
    "{}",
]


@pytest.mark.parametrize("text", ONCE)
def test_members_that_only_look_like_it(text: str) -> None:
    assert read(text.encode()) == (json.loads(text), None)


@pytest.mark.parametrize("text", ['"\\ud800"', '{"\\uDC00": 1}', '[{"a": ["\\ude00\\ud83d"]}]'])
def test_half_of_a_surrogate_pair(text: str) -> None:
    assert "surrogate" in (read(text.encode())[1] or "")
    _, found, _ = listed(f'{{"transfers": ["\\ud83d\\ude00", {text}, "\\u00e9"]}}'.encode())
    assert "surrogate" in (found[1] or "")


@pytest.mark.parametrize("text", ["1e400", "-1e999", "[1E5000]", "1" * 4097, "-" + "1" * 5000])
def test_a_number_that_cannot_be_kept(text: str) -> None:
    assert read(text.encode())[1]
    _, found = listed(f'{{"transfers": [1, {text}]}}'.encode())
    assert found[1]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "NaN",
            "[Infinity]",
            "-Infinity",
            "01",
            "+1",
            "1.",
            ".5",
            "1 2",
            "{} //",
            "[1,]",
        ),
        *("{'a': 1}", '{"a": 1,}', '"\n"', '"\\x"', "\ufeff{}", "[" * 10_000, "nul", "tru", "0x1"),
    ],
)
def test_what_is_no_json(text: str) -> None:
    with pytest.raises((ValueError, RecursionError)):
        read(text.encode())
    with pytest.raises((ValueError, RecursionError)):
        listed(f'{{"transfers": [1, {text}]}}'.encode())


@pytest.mark.parametrize(
    "data", [b"\xff", b'"\xff"', b'"\xed\xa0\x80"', b'"\xc0\x80"', b'"\xf0\x9f"']
)
def test_what_is_no_text(data: bytes) -> None:
    with pytest.raises(ValueError, match="utf-8"):
        read(data)
    with pytest.raises(ValueError, match="utf-8"):
        listed(b'{"transfers": [1, %s]}' % data)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "null", '{"transfers": null}', '{"transfers": {}}', '{"more": []}'),
        *(
            '{"transfers": [], "more": 1}',
            '{"transfers": [], "transfers": []}',
            '{"transfers": []} 1',
        ),
        *('{"transfers": [1], "transfers": [1]}', '{"transfers": [1]', '{"transfers": [1}'),
        *('{"transfers" [1]}', "{transfers: [1]}", '{"transfers": [1 2]}', '{"transfers": [,1]}'),
    ],
)
def test_an_object_that_has_not_one_list_alone(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        listed(text.encode())


_flat = st.dictionaries(st.sampled_from(["a", "b", "an account", ""]), st.text() | st.integers())


@given(
    objects=st.lists(_flat),
    twice=st.booleans(),
    indent=st.sampled_from([None, 1]),
    ascii_=st.booleans(),
    data=st.data(),
)
def test_many_plain_objects_and_one_with_a_name_that_occurs_twice(
    objects: list[dict[str, Any]],
    twice: bool,
    indent: int | None,
    ascii_: bool,
    data: st.DataObject,
) -> None:
    """Nothing escapes who reads many at a time."""
    texts = [
        json.dumps(value, indent=indent, ensure_ascii=ascii_).encode("utf-8", "replace").decode()
        for value in objects
    ]
    expected: list[json_text.Value] = [(json.loads(text), None) for text in texts]
    places = [n for n, value in enumerate(objects) if value]
    if twice and places:
        place = data.draw(st.sampled_from(places))
        name = data.draw(st.sampled_from(list(objects[place])))
        more = data.draw(st.sampled_from(["1", '"x"', '""', "null"]))
        texts[place] = texts[place].rstrip()[:-1] + f", {json.dumps(name)}: {more}}}"
        expected[place] = (json.loads(texts[place]), f"the member {name!r} occurs twice")
    text = f'{{"transfers": [{", ".join(texts)}]}}'
    assert [(v, f) for v, f in listed(text.encode())] == expected


def test_what_is_not_plain_is_read_one_by_one_from_there_on() -> None:
    """A text that cannot be read many values at a time is not tried again and again."""
    plain, rich = '{"a": 1}', '{"a": {"b": 1}}'
    text = f'{{"transfers": [{", ".join([plain, rich] * 9000)}]}}'
    calls = []
    read_plain = json_text._plain

    def counted(part: str) -> list[json_text.Value] | None:
        calls.append(part)
        return read_plain(part)

    with patch.object(json_text, "_plain", counted):
        assert len(listed(text.encode())) == 18_000
    assert len(calls) == 1


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)  # fmt: skip


@given(values=st.lists(_json), indent=st.sampled_from([None, 3]), ascii_=st.booleans())
def test_a_list_is_read_as_a_whole_would_be(
    values: list[Any], indent: int | None, ascii_: bool
) -> None:
    text = json.dumps({"transfers": values}, indent=indent, ensure_ascii=ascii_)
    data = text.encode(errors="surrogatepass")
    try:
        data.decode()
    except UnicodeDecodeError:
        with pytest.raises(ValueError, match="utf-8"):
            listed(data)
    else:
        assert [(value, None) for value in values] == listed(data)


@pytest.mark.parametrize("pad", range(7))
def test_values_and_characters_that_pieces_cut_in_two(
    pad: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_text, "_PIECE_BYTES", 7)
    monkeypatch.setattr(json_text, "VALUE_MAX", 60)
    values = [12345678, "käthe 😀 алиса", {"a": [1.5, None]}, True, "", -7, "x" * 40]
    text = " " * pad + json.dumps({"transfers": values}, ensure_ascii=False) + "\n" * 20
    assert [value for value, _ in listed(text.encode())] == values


def test_a_value_that_is_too_long() -> None:
    longest = '"' + "x" * (VALUE_MAX - 2) + '"'
    assert len(listed(f'{{"transfers": [{longest}, 1]}}'.encode())) == 2
    with pytest.raises(TooLong, match=str(VALUE_MAX + 1)):
        listed(f'{{"transfers": [1, {longest[:-1]}x"]}}'.encode())
    with pytest.raises(ValueError, match=f"longer than {VALUE_MAX}"):
        listed(f'{{"transfers": [1, [{longest}, {longest}, {longest}]]}}'.encode())


# --- nobody waits for long ------------------------------------------------------------------

HOSTILE = {
    "lists": b"[],",
    "objects": b"{},",
    "numbers": b"1,",
    "texts": b'"",',
    "nested": b'{"metadata":{"a":[[],[],{"":{}}]}},',
    "escapes": b'{"\\u0061":"\\u0061"},',
    "blanks": b" ",
}


@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE)
def test_not_much_is_read_at_one_go(piece: bytes) -> None:
    """Between two pauses: a piece of the text, and 200 values, whatever they are."""
    data = b'{"transfers":[' + piece * (2**18 // len(piece)) + b"1]}"
    turns = [0]
    most = 0

    def pause() -> None:
        turns.append(0)

    for count, _ in enumerate(read_list(data, "transfers", pause)):
        turns[-1] += 1
        most = count
    assert max(turns) <= 200
    assert len(turns) >= max(len(data) // json_text._PIECE_BYTES, most // 200)


def test_what_is_left_is_not_read() -> None:
    """Whoever has enough stops: what follows is not decoded."""
    found = read_list(b'{"transfers":[' + b"1," * 100_000 + b"\xff", "transfers", lambda: None)
    assert [next(found)[0] for _ in range(10)] == [1] * 10


def test_many_members_are_compared_once() -> None:
    """The last of 2,000 is the first again: found without comparing each with each."""

    class Name(str):
        compared = 0

        def __hash__(self) -> int:
            return super().__hash__()

        def __eq__(self, other: object) -> bool:
            Name.compared += 1
            return super().__eq__(other)

    members = [(Name(number), None) for number in range(2_000)] + [(Name(1_999), None)]
    assert json_text._twice(members) == "1999"
    assert Name.compared < 10_000
