"""JSON text that has one reading, read in pieces: pure.

Decoders take the last of two members of one name and say nothing, and a proxy that reads the same
text with another one may see the first. So it is the decoder of the standard library that reads
requests: it shows every member. It also stops behind a value, so that the list of a batch is gone
through item by item, and what comes with it costs no more than its pieces, whatever it is.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

# A value in a list is this long at most, in characters: metadata of 4 KiB, all of it escaped, has
# some 25,000.
VALUE_MAX = 32 * 1024
_PIECE_BYTES = 16 * 1024
# So many values of a list are read at one go.
_AT_ONCE = 200
# Of more digits Python's own `int` takes too long; metadata has no room for them.
_DIGITS_MAX = 4096
_SHOWN_MAX = 80

_BLANKS = re.compile(r"[ \t\n\r]*")
_COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")

# A value, and why it has not one reading; None if it has.
Value = tuple[Any, str | None]


class TooLong(ValueError):
    """A value among many is longer than VALUE_MAX, or what is read is larger than it may be."""


def read(data: bytes) -> Value:
    """The one value that is the text. Raises ValueError, RecursionError."""
    decoder, text = _Decoder(), data.decode()
    value = decoder.decode(text)
    return value, decoder.fault or _fault_of_text(value, text, 0, len(text))


def read_list(data: bytes, name: str, pause: Callable[[], None]) -> Iterator[Value]:
    """The values of the list that is the only member, `name`, of an object, one by one.

    A text that is something else raises ValueError, TooLong or RecursionError, as late as at its
    end. `pause` is called now and then, so that in between others may have their turn.
    """
    text = _Text(data, pause)
    text.expect("{", "an object")
    if text.peek() == "}":
        raise ValueError(f"the member {name} is missing")
    found, _ = text.value()
    if found != name:
        raise ValueError(f"{shown(found)} is no member here; there is {name} alone")
    text.expect(":", "a colon")
    text.expect("[", f"a list as {name}")
    count = 0
    is_over = text.peek() == "]"
    while not is_over:
        for value in text.plain_values() or (text.value(),):
            yield value
            count += 1
            if count % _AT_ONCE == 0:
                pause()
        is_over = not text.has_comma()
    text.expect("]", "a comma or the end of the list")
    text.expect("}", f"the end of the object, which has {name} alone,")
    if text.peek():
        raise ValueError("something follows the object")


def read_lines(data: bytes, pause: Callable[[], None]) -> Iterator[Value]:
    """The values of lines that hold one each, one by one. A line that holds anything else has a
    fault; behind the last line end there need be none.

    A text that is not UTF-8 raises ValueError, and a line that is too long TooLong, as late as at
    its end. `pause` is called now and then.
    """
    is_plain, at = True, 0
    while at < len(data):
        end = data.rfind(b"\n", at, at + _PIECE_BYTES) + 1
        # Within a character of several bytes there is no line end.
        end = end or data.find(b"\n", at) + 1 or len(data)
        text = data[at:end].decode().removesuffix("\n")
        lines = [line.strip(" \t\r") for line in text.split("\n")]
        found = _plain_lines(lines) if is_plain else None
        is_plain = found is not None
        yield from found or read_each(lines)
        at = end
        pause()


def read_each(texts: Iterable[str]) -> Iterator[Value]:
    """The one value that each text is; a text that is anything else has a fault. Raises TooLong."""
    decoder = _Decoder()
    for text in texts:
        if len(text) > VALUE_MAX:
            raise TooLong(f"an item has {len(text)} characters, more than {VALUE_MAX}")
        yield _value_of(decoder, text)


def shown(value: object) -> str:
    """A value as it is put into an error, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "..."


class _Decoder(json.JSONDecoder):
    """Decodes values, and notes in `fault` what is ambiguous in one."""

    def __init__(self) -> None:
        self.fault: str | None = None
        super().__init__(
            object_pairs_hook=self._object,
            parse_int=self._integer,
            parse_float=self._float,
            parse_constant=self._constant,
        )

    def _object(self, members: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(members)
        if len(found) != len(members):
            self.fault = f"the member {shown(_twice(members))} occurs twice"
        return found

    def _integer(self, text: str) -> int:
        if len(text) <= _DIGITS_MAX:
            return int(text)
        self.fault = f"a number has {len(text)} digits, more than {_DIGITS_MAX}"
        return 0

    def _float(self, text: str) -> float:
        number = float(text)
        if abs(number) == float("inf"):
            self.fault = f"the number {text[:_SHOWN_MAX]} is out of range"
        return number

    def _constant(self, name: str) -> None:
        raise ValueError(f"{name} is no JSON")


def _fault_of_text(value: Any, text: str, at: int, end: int) -> str | None:
    """What is wrong with the texts in a value that stands there in a text: escapes may spell what
    is no character.
    """
    if text.find("\\u", at, end) < 0:
        return None
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "a text of the JSON has half of a surrogate pair, which is no character"
    return None


def _twice(members: list[tuple[str, Any]]) -> str:
    """A name that occurs more than once."""
    names: set[str] = set()
    for name, _ in members:
        if name in names:
            break
        names.add(name)
    return name


_PLAIN_TYPES = {str, int}
_read_plain = json.JSONDecoder().decode


def _plain(text: str) -> list[Value] | None:
    """The values of a list, without its brackets, if it has objects of texts and whole numbers
    alone and no escapes. All that is in quotes then is a name or a text: if as many are in the
    objects as in the text, none was there twice.
    """
    if "\\" in text:
        return None
    try:
        found = _read_plain(f"[{text}]")
    except (ValueError, RecursionError):
        return None
    if not all(type(value) is dict for value in found):
        return None
    types = [type(member) for value in found for member in value.values()]
    texts = types.count(str)
    if not _PLAIN_TYPES.issuperset(types) or text.count('"') != 2 * (len(types) + texts):
        return None
    return [(value, None) for value in found]


def _plain_lines(lines: list[str]) -> list[Value] | None:
    """The values of lines, if all are plain: each then begins an object, in which no other is, and
    no text goes over a line end. So as many objects as lines are one on each.
    """
    if not all(line[:1] == "{" and line[-1:] == "}" for line in lines):
        return None
    text = ",\n".join(lines)
    found = _plain(text) if len(text) <= VALUE_MAX else None
    return found if found and len(found) == len(lines) else None


def _value_of(decoder: _Decoder, text: str) -> Value:
    """The value that is the text."""
    if not text:
        return None, "the text is empty"
    decoder.fault = None
    try:
        value = decoder.decode(text)
        return value, decoder.fault or _fault_of_text(value, text, 0, len(text))
    except (ValueError, RecursionError) as error:
        return None, str(error)


class _Text:
    """A text that is gone through from its beginning, value by value."""

    def __init__(self, data: bytes, pause: Callable[[], None]) -> None:
        self._data = data
        self._decoded = 0
        self._is_all_here = not data
        self._pause = pause
        self._decoder = _Decoder()
        # What is at hand of it, and where in that the next thing is.
        self._text = ""
        self._at = 0
        # What has come so far could be read many values at a time.
        self._is_plain = True

    def peek(self) -> str:
        """The next character that is no blank; "" at the end. Raises ValueError."""
        while True:
            if blanks := _BLANKS.match(self._text, self._at):
                self._at = blanks.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if self._is_all_here:
                return ""
            self._fetch()

    def expect(self, mark: str, what: str) -> None:
        """Go over a mark. Raises ValueError."""
        found = self.peek()
        if found != mark:
            raise ValueError(f"{what} is expected, not {found or 'the end'}")
        self._at += 1

    def has_comma(self) -> bool:
        """Go over a comma, if one comes next. Raises ValueError."""
        found = _COMMA.match(self._text, self._at)
        if not found and self.peek() == ",":
            # It was not at hand yet.
            found = _COMMA.match(self._text, self._at)
        if found:
            self._at = found.end()
        return found is not None

    def value(self) -> Value:
        """Go over a value. Raises ValueError, TooLong, RecursionError."""
        self._have_at_hand()
        decoder = self._decoder
        decoder.fault = None
        try:
            value, end = decoder.raw_decode(self._text, self._at)
        except json.JSONDecodeError as error:
            # Its place within what is at hand says nothing to a client.
            why = f"{error.msg} at {shown(self._text[error.pos : error.pos + 20])}"
            if not self._is_all_here:
                why += f", or it is longer than {VALUE_MAX} characters"
            raise ValueError(why) from None
        if end - self._at > VALUE_MAX:
            raise TooLong(f"an item has {end - self._at} characters, more than {VALUE_MAX}")
        at, self._at = self._at, end
        return value, decoder.fault or _fault_of_text(value, self._text, at, end)

    def plain_values(self) -> list[Value] | None:
        """Go over as many values as are at hand, if all of them are plain, as nearly all are: that
        is some times as fast as one by one, with an eye on every member. None: they are not.
        """
        if not self._is_plain:
            return None
        self._have_at_hand()
        end = self._text.rfind("},", self._at, self._at + VALUE_MAX) + 1
        if not end:
            return None
        found = _plain(self._text[self._at : end])
        self._is_plain = found is not None
        self._at = end if found else self._at
        return found

    def _have_at_hand(self) -> None:
        """What a value may be long, as far as there is so much."""
        while not self._is_all_here and len(self._text) - self._at <= VALUE_MAX:
            self._fetch()
            self.peek()

    def _fetch(self) -> None:
        """Have the next piece at hand too."""
        self._pause()
        piece = self._data[self._decoded : self._decoded + _PIECE_BYTES]
        is_last = self._decoded + len(piece) == len(self._data)
        text, used = codecs.utf_8_decode(piece, "strict", is_last)
        self._decoded += used
        self._is_all_here = is_last
        self._text = self._text[self._at :] + text
        self._at = 0
