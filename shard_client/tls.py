"""TLS towards servers: who they are is verified where authorities are given.

The files are looked at for each new connection, so that new ones need no restart.
"""

import ssl
from functools import lru_cache
from os import stat
from typing import NamedTuple


class Tls(NamedTuple):
    """PEM files: authorities that servers are verified by, and the certificate shown to them with
    its key. Without authorities nothing is verified; then what connects encrypts if it can.
    """

    ca: str = ""
    certificate: str = ""
    key: str = ""

    @property
    def verifies(self) -> bool:
        return bool(self.ca)


def context_of(tls: Tls) -> ssl.SSLContext:
    """For a connection that begins now. Raises OSError if a file cannot be used."""
    return _context(tls, tuple(stamp_of(file) for file in tls if file))


def stamp_of(file: str) -> tuple[int, ...]:
    """What changes when the file does. Raises OSError."""
    found = stat(file)
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


# Reading files for each connection would hold up everything else in this process.
@lru_cache(maxsize=8)
def _context(tls: Tls, _: tuple[tuple[int, ...], ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not tls.verifies:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    # These alone: the system's authorities sign for anybody.
    context.load_verify_locations(tls.ca)
    if tls.certificate:
        # A passphrase would be asked for at the terminal, again and again.
        context.load_cert_chain(tls.certificate, tls.key, password=lambda: "")
    return context
