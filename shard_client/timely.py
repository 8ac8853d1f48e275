"""PyMySQL with one deadline for all that it sends and receives, however slowly it trickles.

The driver's own time limits are for each wait: a server that sends a byte now and then would hold
its caller for as long as it likes.
"""

import select
import socket
import ssl
import time
from contextlib import suppress
from typing import Any

import pymysql
from pymysql.constants import CR
from pymysql.protocol import MysqlPacket

from shard_client.plain import PlainConnection

_PIECE = 16_384
_PIECE_MAX = 1 << 20
_PIECE_SENT = 1 << 16
# Of a packet: the bytes of its size and its number, a size that goes on in a further packet, and
# what an error begins with.
_HEADER, _SIZE_MAX, _ERROR = 4, 0xFFFFFF, 0xFF
_WAITS = {ssl.SSLWantReadError: select.POLLIN, ssl.SSLWantWriteError: select.POLLOUT}


class TimelyConnection(PlainConnection):
    """Raises TimeoutError where `deadline` (monotonic) has passed. What has arrived by then is read
    all the same: that its reader was busy elsewhere must not turn an answer into a loss.
    """

    def __init__(self, deadline: float, **options: Any) -> None:
        self.deadline = deadline
        # What has arrived, and how much of it was read.
        self._arrived = b""
        self._read = 0
        super().__init__(**options, defer_connect=True)
        # The driver asks its context for TLS.
        self.ctx: Any = _Handshakes(self, self.ctx)
        self.connect()

    def has_unread(self) -> bool:
        """Whether something has arrived that was not read yet."""
        return self._read < len(self._arrived)

    def left_s(self) -> float:
        return self.deadline - time.monotonic()

    def _read_packet(self, packet_type: Any = MysqlPacket) -> Any:
        """The next packet. One that is there as a whole, as most are, is taken in one step; what is
        to be waited for, an error and whatever is odd is the driver's business.
        """
        arrived, start = self._arrived, self._read + _HEADER
        if start < len(arrived):
            size = int.from_bytes(arrived[start - _HEADER : start - 1], "little")
            end = start + size
            is_whole = 0 < size < _SIZE_MAX and end <= len(arrived)
            if is_whole and arrived[start - 1] == self._next_seq_id and arrived[start] != _ERROR:
                self._read = end
                self._next_seq_id: int = (self._next_seq_id + 1) % 256
                return packet_type(arrived[start:end], self.encoding)
        return super()._read_packet(packet_type)

    def _read_bytes(self, num_bytes: int) -> bytes:
        end = self._read + num_bytes
        if end > len(self._arrived):
            self._wait_for(num_bytes)
            end = num_bytes
        data = self._arrived[self._read : end]
        self._read = end
        return data

    def _wait_for(self, count: int) -> None:
        """Receive until at least so many bytes are there that were not read yet."""
        pieces = [self._arrived[self._read :]]
        missing = count - len(pieces[0])
        while missing > 0:
            piece = self._receive(min(max(missing, _PIECE), _PIECE_MAX))
            if not piece:
                text = "the server has closed the connection"
                raise pymysql.err.OperationalError(CR.CR_SERVER_LOST, text)
            pieces.append(piece)
            missing -= len(piece)
        self._arrived, self._read = b"".join(pieces), 0

    def _receive(self, count: int) -> bytes:
        """What has arrived; waits for it, until the deadline."""
        try:
            while True:
                self._sock.settimeout(0)
                with suppress(BlockingIOError, ssl.SSLWantReadError):
                    return bytes(self._sock.recv(count))
                if (left_s := self.left_s()) <= 0:
                    raise TimeoutError("there was no answer in time")
                # Beneath TLS, which waits anew for each byte of what it has to have as a whole.
                self._sock.settimeout(left_s)
                with suppress(TimeoutError):
                    socket.socket.recv(self._sock, 1, socket.MSG_PEEK)
        except TimeoutError:
            raise
        except OSError as error:
            raise pymysql.err.OperationalError(CR.CR_SERVER_LOST, str(error)) from error

    def _write_bytes(self, data: bytes) -> None:
        rest = memoryview(data)
        self._sock.settimeout(0)
        try:
            while rest:
                sent = 0
                with suppress(BlockingIOError, ssl.SSLWantWriteError):
                    sent = self._sock.send(rest[:_PIECE_SENT])
                rest = rest[sent:]
                if not sent and not _waited(self._sock, select.POLLOUT, self.left_s()):
                    raise TimeoutError("it did not take the packet in time")
        except TimeoutError:
            raise
        except OSError as error:
            raise pymysql.err.OperationalError(CR.CR_SERVER_GONE_ERROR, repr(error)) from error


def _waited(sock: socket.socket, event: int, left_s: float) -> bool:
    """Wait until a socket can be read from or written to; says whether it can."""
    poller = select.poll()
    poller.register(sock.fileno(), event)
    return bool(poller.poll(max(left_s, 0) * 1000))


class _Handshakes:
    """Begins TLS for a connection, by its deadline."""

    def __init__(self, connection: TimelyConnection, context: ssl.SSLContext) -> None:
        self._connection = connection
        self._context = context

    def wrap_socket(self, sock: Any, server_hostname: str) -> ssl.SSLSocket:
        if self._connection.has_unread():
            # It would be read as if it had come through TLS.
            raise OSError("the server has sent something unasked before TLS began")
        sock.settimeout(0)
        wrapped = self._context.wrap_socket(
            sock, server_hostname=server_hostname, do_handshake_on_connect=False
        )
        try:
            self._shake_hands(wrapped)
        except BaseException:
            wrapped.close()
            raise
        return wrapped

    def _shake_hands(self, wrapped: ssl.SSLSocket) -> None:
        while True:
            try:
                wrapped.do_handshake()
                return
            except tuple(_WAITS) as wanted:
                event = _WAITS[type(wanted)]
            if not _waited(wrapped, event, self._connection.left_s()):
                raise TimeoutError("it did not begin TLS in time")
