"""Which TCP ports of 127.0.0.1 the servers listen on."""

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tandem.local.errors import LocalError

HOST = "127.0.0.1"
FIRST = 8080
# Below the range from which systems give ports to outgoing connections, so that the port of a
# stopped server is still free when it starts again.
LAST = 32_000
STEP = 20


@contextmanager
def reserved(count: int, first: int | None = None, beyond: int = FIRST) -> Iterator[list[int]]:
    """`count` consecutive free ports, kept from others during the block: from `first` if given,
    else the first ones found from `beyond` on.

    Servers that allow the reuse of addresses, as MySQL, Java and gunicorn do, can listen on them
    within the block already. Raises LocalError naming the ports if `first` does not do.
    """
    starts = range(first, first + 1) if first else range(beyond, LAST - count, STEP)
    for start in starts:
        with ExitStack() as stack:
            ports = list(range(start, start + count))
            taken = [port for port in ports if not _reserve(port, stack, patient=first is not None)]
            if not taken:
                yield ports
                return
            if first is not None:
                raise LocalError(
                    f"the ports {start} to {start + count - 1} are needed, but something else "
                    f"listens on {', '.join(map(str, taken))}; choose other ones with --port"
                )
    raise LocalError(f"no {count} consecutive ports are free between {beyond} and {LAST}")


def is_free(port: int) -> bool:
    """Whether a server could listen on it now."""
    with ExitStack() as stack:
        return _reserve(port, stack, patient=True)


def _reserve(port: int, stack: ExitStack, *, patient: bool) -> bool:
    """Bind the port without listening, until `stack` ends.

    `patient`: also if connections of a server that has ended are still being forgotten there, or
    if somebody else has reserved it.
    """
    if not 0 < port < 65_536:
        raise LocalError(f"{port} is no port: they go from 1 to 65535")
    holder = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    if patient:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        holder.bind((HOST, port))
    except OSError:
        return False
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sys.platform != "linux":
        # Elsewhere a bound socket keeps our own server out too.
        holder.close()
    return True
