"""Which TCP ports of 127.0.0.1 the servers listen on."""

import socket
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
def reserved(
    count: int, first: int | None = None, beyond: int | None = None
) -> Iterator[list[int]]:
    """`count` consecutive free ports: from `first` if given, else the first found from `beyond` on,
    or from FIRST on.

    During the block nobody else who asks here gets them, and servers can listen on them already.
    Raises LocalError naming the ports if `first` does not do.
    """
    beyond = FIRST if beyond is None else beyond
    starts = range(first, first + 1) if first else range(beyond, LAST - count, STEP)
    for start in starts:
        with ExitStack() as stack:
            ports = list(range(start, start + count))
            # Marked first: who had the mark until now may listen by the time that one looks.
            taken = [port for port in ports if not (_mark(port, stack) and is_free(port))]
            if not taken:
                yield ports
                return
            if first is not None:
                raise LocalError(
                    f"the ports {start} to {start + count - 1} are needed, but something else "
                    f"uses {', '.join(map(str, taken))}; choose other ones with --port"
                )
    raise LocalError(f"no {count} consecutive ports are free between {beyond} and {LAST}")


def is_free(port: int) -> bool:
    """Whether a server could listen on it now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: the traces of connections that have ended do not matter.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return _bound(probe, port)


def _mark(port: int, stack: ExitStack) -> bool:
    """Hold the UDP port of the same number until `stack` ends; False if somebody holds it.

    It tells others that start a cluster at the same moment, and is in no server's way.
    """
    return _bound(stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)), port)


def _bound(probe: socket.socket, port: int) -> bool:
    if not 0 < port < 65_536:
        raise LocalError(f"{port} is no port: they go from 1 to 65535")
    try:
        probe.bind((HOST, port))
    except OSError:
        return False
    return True
