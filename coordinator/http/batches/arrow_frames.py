"""An Arrow IPC stream as it lies in a body: whether it is whole, and how large it becomes: pure.

A reader of Arrow makes the room that a stream says it needs. A compressed buffer may say anything,
and a few bytes of it may hold very much; so what a stream says of itself is looked at before it is
read. A stream is messages, each a head (a flatbuffer: Message) and a body (its buffers); see
"Serialization and interprocess communication" of the Arrow columnar format, and its files
Message.fbs and Schema.fbs.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from coordinator.http.json_text import TooLong

# The columns, their types and what pandas notes of them take some 3,000. One of this size can share
# its parts so that a reader sees 20,000 columns, for 30 ms.
HEAD_BYTES_MAX = 16 * 1024
# Record batches and dictionaries: each is some work, however small it is.
MESSAGES_MAX = 256

# Before each head; then its length, which is 0 at the end of the stream.
_CONTINUATION = 0xFFFFFFFF
_MARK = struct.Struct("<Ii")

# Since 2020. Older ones know other compressions, which are noted elsewhere.
_VERSION_5 = 4
_SCHEMA, _DICTIONARY, _RECORDS = 1, 2, 3
# The members of the tables, by their number.
_MESSAGE_VERSION, _MESSAGE_KIND, _MESSAGE_HEADER, _MESSAGE_BODY_LENGTH = 0, 1, 2, 3
_DICTIONARY_DATA, _DICTIONARY_IS_DELTA = 1, 2
_RECORDS_BUFFERS, _RECORDS_COMPRESSION = 2, 3

# Where a buffer lies in the body, and its length.
_BUFFER = struct.Struct("<qq")
# A compressed buffer begins with its length when it is not; -1: it is not.
_PLAIN_LENGTH = struct.Struct("<q")
_NOT_COMPRESSED = -1


class _Message(NamedTuple):
    head: bytes
    body: memoryview


class _Table(NamedTuple):
    """A table of a flatbuffer, which begins at this byte of it. Its methods raise struct.error
    where the flatbuffer is broken.
    """

    data: bytes
    at: int

    def number(self, member: int, form: str) -> int:
        """A number, 0 if it is not there."""
        at = self._place(member)
        return _unpack(form, self.data, at) if at else 0

    def table(self, member: int) -> "_Table | None":
        at = self._place(member)
        return _Table(self.data, at + _unpack("<I", self.data, at)) if at else None

    def structs(self, member: int, form: struct.Struct) -> Iterator[tuple[int, ...]]:
        """The structs of a list, all of one form."""
        at = self._place(member)
        if not at:
            return
        at += _unpack("<I", self.data, at)
        count = _unpack("<I", self.data, at)
        for place in range(at + 4, at + 4 + count * form.size, form.size):
            yield form.unpack_from(self.data, place)

    def _place(self, member: int) -> int:
        """Where a member stands, 0 if it is not there."""
        members = self.at - _unpack("<i", self.data, self.at)
        place = 4 + 2 * member
        if place >= _unpack("<H", self.data, members):
            return 0
        offset = _unpack("<H", self.data, members + place)
        return self.at + offset if offset else 0


def _unpack(form: str, data: bytes, at: int) -> int:
    """A number at a place. Raises struct.error."""
    if at < 0:
        # To Python that is a place before the end.
        raise struct.error(f"byte {at} is before the beginning")
    (number,) = struct.unpack_from(form, data, at)
    return int(number)


def check(data: bytes, bytes_max: int) -> None:
    """Refuse what is no whole stream, or would take more than so many bytes when it is read.

    Raises ValueError, TooLong; both say what is wrong.
    """
    size = 0
    for number, message in enumerate(_messages(data)):
        if number > MESSAGES_MAX:
            raise TooLong(
                f"the stream has more than {MESSAGES_MAX} record batches and dictionaries: "
                "put more rows into each"
            )
        try:
            size += _size(message, is_first=number == 0)
        except struct.error as error:
            raise ValueError(f"message {number} of the stream is broken: {error}") from None
        if size > bytes_max:
            raise TooLong(f"the stream takes more than {bytes_max} bytes when it is decompressed")


def _messages(data: bytes) -> Iterator[_Message]:
    """The messages of a stream, up to its end. Raises ValueError, TooLong."""
    view, at = memoryview(data), 0
    broken_off = ValueError(f"the Arrow stream breaks off at byte {len(data)}, without its end")
    while True:
        if at + _MARK.size > len(data):
            raise broken_off
        mark, length = _MARK.unpack_from(data, at)
        if mark != _CONTINUATION or length < 0:
            raise ValueError(f"at byte {at} no message of an Arrow stream begins")
        at += _MARK.size
        if length == 0:
            break
        if length > HEAD_BYTES_MAX:
            raise TooLong(f"a message has a head of {length} bytes, more than {HEAD_BYTES_MAX}")
        head = data[at : at + length]
        at += length
        if at > len(data):
            raise broken_off
        body_length = _body_length(head)
        if body_length > len(data) - at:
            raise broken_off
        yield _Message(head, view[at : at + body_length])
        at += body_length
    if at < len(data):
        raise ValueError(f"something follows the end of the Arrow stream at byte {at}")


def _body_length(head: bytes) -> int:
    """Raises ValueError."""
    try:
        length = _root(head).number(_MESSAGE_BODY_LENGTH, "<q")
    except struct.error as error:
        raise ValueError(f"the head of a message is broken: {error}") from None
    if length < 0:
        raise ValueError(f"a message says that its body has {length} bytes")
    return length


def _root(head: bytes) -> _Table:
    """The table Message that a head is. Raises struct.error."""
    return _Table(head, _unpack("<I", head, 0))


def _size(message: _Message, *, is_first: bool) -> int:
    """How many bytes the buffers of a message take when it is read. Raises ValueError,
    struct.error.
    """
    root = _root(message.head)
    if root.number(_MESSAGE_VERSION, "<h") != _VERSION_5:
        raise ValueError("the stream is not of metadata version V5, which alone is taken")
    kind, header = root.number(_MESSAGE_KIND, "<B"), root.table(_MESSAGE_HEADER)
    if header is None or (kind == _SCHEMA) != is_first:
        raise ValueError("the stream does not begin with its one schema")
    if kind == _SCHEMA:
        return 0
    if kind == _DICTIONARY:
        if header.number(_DICTIONARY_IS_DELTA, "<B"):
            raise ValueError("the stream has a delta dictionary, and only whole ones are taken")
        header = header.table(_DICTIONARY_DATA)
    elif kind != _RECORDS:
        raise ValueError(f"the stream has a message of kind {kind}, which is no record batch")
    return _size_of_records(header, message.body) if header else 0


def _size_of_records(records: _Table, body: memoryview) -> int:
    """Raises ValueError, struct.error."""
    is_compressed = records.table(_RECORDS_COMPRESSION) is not None
    size = 0
    for at, length in records.structs(_RECORDS_BUFFERS, _BUFFER):
        if at < 0 or not 0 <= length <= len(body) - at:
            raise ValueError(f"a buffer of {length} bytes at {at} is not in its message")
        if is_compressed and length:
            (plain,) = _PLAIN_LENGTH.unpack_from(body, at)
            length = length if plain == _NOT_COMPRESSED else plain
        if length < 0:
            raise ValueError(f"a compressed buffer says that it holds {length} bytes")
        size += length
    return size
