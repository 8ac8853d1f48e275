"""Who may call the service: tokens, what each may do and how often; and where it may listen.

The file of tokens holds only their hashes. A token is 256 random bits, so there is nothing to guess
and nothing that a slow hash would protect: plain SHA-256 is right, and costs a request nothing.
"""

import hashlib
import hmac
import ipaddress
import logging
import os
import re
import secrets
import stat
import threading
import time
import tomllib
from collections.abc import Callable, Iterable
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from coordinator.security.secret_files import readable_by_others
from coordinator.security.tls import check_tls
from coordinator.settings import Settings, SettingsError
from coordinator.telemetry.logs import few

log = logging.getLogger(__name__)

# Makes a token that has got lost easy to find, and to know for what it is.
_PREFIX = "tandem_"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
# How often at most the file is looked at.
_LOOK_EVERY_S = 1.0
# Some thousand tokens are as much.
_FILE_MAX_BYTES = 4 << 20
# Stands in a file that is to let nobody in.
_NOBODY = "nobody"


_FINGERPRINT = r"^([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}\Z"


class TokensError(Exception):
    """The file of tokens cannot be used; the text says why, and never shows a value from it."""


class Scope(StrEnum):
    """What a token may do. None includes another."""

    READ = "read"
    TRANSFER = "transfer"
    ADMIN = "admin"


class Terms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token as it stands in the file."""

    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    scopes: Annotated[list[Scope], Meta(min_length=1)]
    expires: Annotated[datetime, Meta(tz=True)] | None = None
    rate_per_s: Annotated[float, Meta(gt=0, le=1_000_000)] | None = None
    # Of the certificate with which alone it is good; as openssl shows it, with colons or without.
    certificate_sha256: Annotated[str, Meta(pattern=_FINGERPRINT)] | None = None


class Bucket:
    """Lets so much through on average, and what a second brings at once.

    What costs more than is there is let through, and paid off before anything else is: so that a
    batch of any length gets its turn.
    """

    def __init__(self, rate_per_s: float, now: float) -> None:
        self._rate_per_s = rate_per_s
        self._full = max(rate_per_s, 1.0)
        self._level = self._full
        self._at = now
        self._lock = threading.Lock()

    def take(self, now: float) -> float:
        """Take one; gives the seconds to wait for it instead, 0 if it was there."""
        with self._lock:
            self._level = min(self._full, self._level + (now - self._at) * self._rate_per_s)
            self._at = now
            if self._level < 1:
                return (1 - self._level) / self._rate_per_s
            self._level -= 1
            return 0.0

    def charge(self, count: int) -> None:
        """Take so many more, whether they are there or not."""
        with self._lock:
            self._level -= count


class Token(NamedTuple):
    """A token that is known; its own text is not."""

    name: str
    digest: bytes
    scopes: frozenset[Scope]
    expires: datetime | None
    rate_per_s: float | None
    bucket: Bucket | None
    # SHA-256 of the client's certificate that has to come with it.
    certificate: bytes | None = None


# --- the file -------------------------------------------------------------------------------


def parse(text: str) -> dict[str, Terms]:
    """The tokens of a file's text, by name; none if it says `nobody = true`. Raises TokensError."""
    found, is_for_nobody = _parse(text)
    if not found and not is_for_nobody:
        raise TokensError(
            f"it lists no token; if nobody is to get in, let it say so: {_NOBODY} = true"
        )
    return found


def _parse(text: str) -> tuple[dict[str, Terms], bool]:
    """The tokens, and whether the text says that nobody is to get in."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise TokensError(f"it is no TOML: {error}") from None
    if text and not text.endswith("\n"):
        raise TokensError("its last line has no end: it may have been cut off")
    tokens, nobody = document.pop("tokens", {}), document.pop(_NOBODY, False)
    if document or not isinstance(tokens, dict) or not isinstance(nobody, bool):
        raise TokensError(
            f"it may have tables [tokens.NAME], or {_NOBODY} = true, and nothing else"
        )
    if nobody and tokens:
        raise TokensError(f"it lists tokens and says {_NOBODY} = true: take one of them out")
    found: dict[str, Terms] = {}
    for name, table in tokens.items():
        check_name(name)
        try:
            found[name] = msgspec.convert(table, Terms)
        except msgspec.ValidationError as error:
            raise TokensError(f"[tokens.{name}] cannot be used: {error}") from None
    if len({terms.sha256 for terms in found.values()}) < len(found):
        raise TokensError("two names stand for one token")
    return found, nobody


def check_name(name: str) -> None:
    """Raise TokensError unless a token can be called so."""
    if not _NAME.fullmatch(name):
        raise TokensError(f"{name!r} is no name of a token, which is 1 to 64 of A-Z a-z 0-9 _ -")


def read(path: Path) -> dict[str, Terms]:
    """The tokens of a file, by name. Raises TokensError."""
    text = _text_of(path)
    try:
        return parse(text)
    except TokensError as error:
        raise TokensError(f"{path.absolute()}: {error}") from None


def _text_of(path: Path) -> str:
    """Raises TokensError. It never waits, whatever stands in the file's place."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError("it is no file")
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(_FILE_MAX_BYTES + 1)
        finally:
            os.close(descriptor)
        if len(data) > _FILE_MAX_BYTES:
            raise OSError(f"it has more than {_FILE_MAX_BYTES} bytes")
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise TokensError(f"{path.absolute()} cannot be read: {error}") from None
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o027:
        raise TokensError(
            f"{path.absolute()} is open to others (mode {mode:04o}): whoever can write it can let "
            "himself in; chmod 600, or 640 for a group that may read it"
        )
    return text


def new_token() -> str:
    return _PREFIX + secrets.token_urlsafe(32)


def table_of(
    name: str,
    token: str,
    scopes: Iterable[Scope],
    expires: datetime | None,
    rate_per_s: float | None,
    certificate: str | None = None,
) -> str:
    """What the file has to say of a token. Raises TokensError if the name cannot be used."""
    check_name(name)
    listed = ", ".join(f'"{scope}"' for scope in scopes)
    lines = [f"[tokens.{name}]", f'sha256 = "{_digest(token).hex()}"', f"scopes = [{listed}]"]
    if expires:
        lines.append(f"expires = {expires.isoformat(timespec='seconds')}")
    if rate_per_s:
        lines.append(f"rate_per_s = {rate_per_s:g}")
    if certificate:
        lines.append(f'certificate_sha256 = "{certificate}"')
    return "\n".join(lines) + "\n"


def add(path: Path, name: str, table: str) -> None:
    """Add a token's table to a file, which is made if it is not there. Raises TokensError."""
    before = ""
    if path.exists():
        before = _text_of(path)
        try:
            found, is_for_nobody = _parse(before)
        except TokensError as error:
            raise TokensError(f"{path.absolute()}: {error}; nothing was changed") from None
        if is_for_nobody:
            raise TokensError(f"{path} says {_NOBODY} = true: take that out; nothing was changed")
        if name in found:
            raise TokensError(f"{path} has a token called {name} already; nothing was changed")
    text = f"\n{table}" if before else table
    parse(before + text)
    try:
        _append(path, text.encode())
    except OSError as error:
        raise TokensError(f"{path} cannot be written: {error}") from None


def _append(path: Path, data: bytes) -> None:
    """In one piece, so that nobody reads half of it; what a full disk has cut off is taken back."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        if os.write(descriptor, data) < len(data):
            os.ftruncate(descriptor, size)
            raise OSError("there is no room for it")
    finally:
        os.close(descriptor)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


# --- in use ---------------------------------------------------------------------------------


class Tokens:
    """The tokens of a file, as they are in force in one of `workers` processes.

    The file is read again when it has changed, and has then stayed as it is for a second: half of
    a file that is being written may be good to read, and give a token more than the whole.
    One that is broken is reported and ignored: the tokens of the last good one stay in force.
    """

    def __init__(
        self, path: Path, workers: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._workers = workers
        self._clock = clock
        self._tokens: tuple[Token, ...] = ()
        # The file as it is in force, and as it was when it was looked at last.
        self._seen: tuple[int, ...] | None = None
        self._looked_at: tuple[int, ...] | None = None
        self._look_at = float("-inf")
        self._lock = threading.Lock()
        self.trouble: str | None = None
        self.was_read = False
        self.look()

    def find(self, secret: str) -> Token | None:
        """The token, expired or not; None if it is not known.

        Every hash is compared, and each in constant time: how long it takes tells nothing.
        """
        self.look()
        digest = _digest(secret)
        found = None
        for token in self._tokens:
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found

    def wait_s(self, token: Token) -> float:
        """How long a request with this token has to wait; if not at all, it is counted."""
        return token.bucket.take(self._clock()) if token.bucket else 0.0

    def look(self) -> None:
        """Read the file if it has changed, looking once a second at most."""
        with self._lock:
            now = self._clock()
            if now < self._look_at:
                return
            self._look_at = now + _LOOK_EVERY_S
            seen, before = self._stamp(), self._looked_at
            self._looked_at = seen
            # Nobody may have looked for long, and a file may have come from another machine.
            is_old = max(seen[1:3], default=0) < (time.time() - _LOOK_EVERY_S) * 1e9
            is_settled = seen == before or is_old or not self.was_read
            if is_settled and (seen != self._seen or self.trouble):
                self._take(seen)

    def _stamp(self) -> tuple[int, ...]:
        """What changes when the file does, also its mode, with the times of its last changes in
        nanoseconds; empty if it is not there.
        """
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size

    def _take(self, seen: tuple[int, ...]) -> None:
        try:
            listed = read(self._path)
        except TokensError as error:
            if self.trouble != str(error):
                kept = "the tokens of before stay in force" if self.was_read else "nobody gets in"
                extra = {"event": "tokens.unusable"}
                log.error("the file of tokens is not used, %s: %s", kept, error, extra=extra)
            self.trouble = str(error)
            return
        known = {(token.digest, token.rate_per_s): token.bucket for token in self._tokens}
        self._tokens = tuple(self._token(name, terms, known) for name, terms in listed.items())
        self._seen, self.trouble, self.was_read = seen, None, True
        log.info(
            "%d tokens are in force",
            len(listed),
            extra={"event": "tokens.in_force", "count": len(listed), "tokens": few(listed)},
        )

    def _token(
        self, name: str, terms: Terms, known: dict[tuple[bytes, float | None], Bucket | None]
    ) -> Token:
        digest, rate = bytes.fromhex(terms.sha256), terms.rate_per_s
        # A token that stays keeps its bucket: changing the file gives nobody a fresh start.
        bucket = known.get((digest, rate))
        if rate and not bucket:
            bucket = Bucket(rate / self._workers, self._clock())
        given = terms.certificate_sha256
        certificate = bytes.fromhex(given.replace(":", "")) if given else None
        scopes = frozenset(terms.scopes)
        return Token(name, digest, scopes, terms.expires, rate, bucket, certificate)


# --- where a coordinator listens ------------------------------------------------------------


def is_loopback(listen: str) -> bool:
    """Whether only this machine reaches this address, `host:port`."""
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_access(loaded: Settings) -> list[str]:
    """What whoever starts a coordinator should know. Raises SettingsError if it may not be started:
    it would be open to others than this machine, or its files cannot be used.
    """
    access, listen = loaded.access, loaded.coordinator.listen
    told = []
    if access.tokens_file:
        try:
            read(Path(access.tokens_file))
        except TokensError as error:
            raise SettingsError(f"access.tokens_file cannot be used: {error}") from None
    elif is_loopback(listen):
        told.append(
            f"there is no access control: everybody on this machine may do everything at {listen}; "
            "access.tokens_file is empty"
        )
    else:
        raise SettingsError(
            f"coordinator.listen = {listen!r} is not a loopback address, and access.tokens_file is "
            "empty: whoever reached it could move money. Make a token with `tandem token new NAME "
            "--scope read --scope transfer --file FILE` and set access.tokens_file, or listen on "
            "127.0.0.1"
        )
    check_tls(loaded)
    if not access.tls_certificate and not is_loopback(listen):
        told.append(
            f"tokens travel in the clear to {listen}: set access.tls_certificate and "
            "access.tls_key, or put something in front that speaks TLS"
        )
    return told + readable_by_others(loaded)
