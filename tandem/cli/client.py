"""Talking to the service: where it is, one request, and the same request until there is an answer.

What a request can come to, and what is known then:

    Answer          the service has answered
    NoAnswer        it has not: is_ambiguous says whether the request may have been carried out
    GaveUp          the same after every attempt that the time allowed
"""

import os
import random
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import click
import httpx
import msgspec

from tandem.cli.terminal import Command, CommandError, UnknownOutcome, data_dir_option

DEFAULT_URL = "http://127.0.0.1:8080"

CONNECT_TIMEOUT_S = 5.0
# Longer than the service's own deadlines (engine.request_deadline_ms, batch_deadline_ms and the
# time to write), so that it is the service that says what has happened.
ANSWER_TIMEOUT_S = 30.0
BATCH_ANSWER_TIMEOUT_S = 120.0
# How long a command goes on trying before it says what is known.
PATIENCE_S = 30.0

PAUSE_FIRST_S = 0.2
PAUSE_MAX_S = 5.0

# A proxy that the environment names is not for this machine's own addresses.
DIRECT: dict[str, httpx.BaseTransport | None] = {
    f"all://{host}": None for host in ("127.0.0.1", "localhost", "[::1]")
}


class Answer(NamedTuple):
    """What the service said. `body` is None when it is not JSON."""

    status: int
    body: Any
    headers: Mapping[str, str]
    url: str

    @property
    def problem(self) -> str:
        """The stable name of a problem, such as "insufficient-funds"; "" if it is none."""
        kind = self.body.get("type", "") if isinstance(self.body, dict) else ""
        return str(kind).rpartition("/problems/")[2]

    @property
    def explanation(self) -> str:
        """What was wrong, in the service's words."""
        if isinstance(self.body, dict) and (
            said := self.body.get("detail") or self.body.get("title")
        ):
            return str(said)
        return f"{self.url} answered {self.status}, which is no answer of Tandem's"


class NoAnswer(Exception):
    """The request got no usable answer; the text says why.

    `is_ambiguous`: it was sent and may have been carried out. Otherwise nothing has happened by it.
    """

    def __init__(self, why: str, *, is_ambiguous: bool, retry_after_s: float = 0.0) -> None:
        super().__init__(why)
        self.is_ambiguous = is_ambiguous
        self.retry_after_s = retry_after_s


class GaveUp(Exception):
    """No answer in the given time; `is_ambiguous` is true if one of the attempts was."""

    def __init__(self, why: str, *, is_ambiguous: bool) -> None:
        super().__init__(why)
        self.is_ambiguous = is_ambiguous


def pauses(chance: Callable[[], float] = random.random) -> Iterator[float]:
    """Growing pauses in seconds, spread so that many clients do not come back together."""
    pause = PAUSE_FIRST_S
    while True:
        yield pause * (0.5 + chance() / 2)
        pause = min(2 * pause, PAUSE_MAX_S)


@dataclass
class Waiting:
    """How a client waits: when to give up, and whom to tell about a pause."""

    patience_s: float = PATIENCE_S
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    on_wait: Callable[[str, float], None] = lambda why, pause_s: None


def credentials(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The header with the token of TANDEM_TOKEN, or of the file TANDEM_TOKEN_FILE; none without.

    Raises click.UsageError, whose text never shows the token.
    """
    token, file = environ.get("TANDEM_TOKEN", ""), environ.get("TANDEM_TOKEN_FILE", "")
    if not token and file:
        try:
            token = Path(file).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise click.UsageError(f"TANDEM_TOKEN_FILE cannot be read: {error}") from None
    token = token.strip()
    if not re.fullmatch(r"[!-~]*", token):
        where = "TANDEM_TOKEN" if environ.get("TANDEM_TOKEN") else file
        raise click.UsageError(f"{where} holds more than a token (not shown)")
    return {"Authorization": f"Bearer {token}"} if token else {}


def trust(environ: Mapping[str, str] = os.environ) -> ssl.SSLContext | None:
    """Whom to trust and as whom to call by https, as TANDEM_CA, TANDEM_CLIENT_CERT and
    TANDEM_CLIENT_KEY say; None if they say nothing. Raises click.UsageError.
    """
    names = ("TANDEM_CA", "TANDEM_CLIENT_CERT", "TANDEM_CLIENT_KEY")
    authorities, certificate, key = (environ.get(name) or None for name in names)
    if not authorities and not certificate:
        return None
    try:
        context = ssl.create_default_context(cafile=authorities)
        if certificate:
            context.load_cert_chain(certificate, key)
    except OSError as error:
        given = ", ".join(f"{name}={environ[name]}" for name in names if environ.get(name))
        raise click.UsageError(f"these certificates cannot be used ({given}): {error}") from None
    return context


class Client:
    """Speaks to one of several coordinators, and to the next one when that gives no answer."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        first: int = 0,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.urls = [url.rstrip("/") for url in urls]
        self._next = first
        self._http = httpx.Client(
            timeout=httpx.Timeout(answer_timeout_s, connect=CONNECT_TIMEOUT_S),
            mounts=None if transport else DIRECT,
            transport=transport,
            headers=credentials(),
            # Nothing is verified by plain HTTP, and to read all authorities takes 50 ms.
            verify=trust() or any(url.startswith("https:") for url in self.urls),
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    @property
    def url(self) -> str:
        """The coordinator that the next request goes to."""
        return self.urls[self._next % len(self.urls)]

    def send(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request to the current coordinator. Raises NoAnswer, and then turns to the next."""
        try:
            return self._send(method, path, body, headers or {})
        except NoAnswer:
            self._next += 1
            raise

    def _send(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> Answer:
        url = self.url
        content = None if body is None else msgspec.json.encode(body)
        typed = {} if body is None else {"Content-Type": "application/json"}
        try:
            response = self._http.request(
                method, url + path, content=content, headers={**typed, **headers}
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise NoAnswer(f"{url} cannot be reached ({error})", is_ambiguous=False) from error
        except httpx.TimeoutException as error:
            raise NoAnswer(f"{url} has not answered in time", is_ambiguous=True) from error
        except httpx.TransportError as error:
            raise NoAnswer(
                f"the connection to {url} was lost ({error})", is_ambiguous=True
            ) from error
        answer = Answer(response.status_code, _decoded(response), response.headers, url)
        _raise_if_passing(answer)
        return answer

    def persist(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        waiting: Waiting | None = None,
    ) -> Answer:
        """The same request with growing pauses until there is an answer. Raises GaveUp.

        Only for requests that are safe to repeat, as all of Tandem's are.
        """
        waiting = waiting or Waiting()
        deadline = waiting.clock() + waiting.patience_s
        is_ambiguous = False
        failures = 0
        growing = pauses()
        while True:
            try:
                return self.send(method, path, body, headers)
            except NoAnswer as failure:
                failures += 1
                is_ambiguous |= failure.is_ambiguous
                # The other coordinators are asked at once, each one once.
                is_round_over = failures % len(self.urls) == 0
                pause = max(next(growing), failure.retry_after_s) if is_round_over else 0.0
                if waiting.clock() + pause >= deadline:
                    raise GaveUp(str(failure), is_ambiguous=is_ambiguous) from failure
                if pause:
                    waiting.on_wait(str(failure), pause)
                    waiting.sleep(pause)


def _decoded(response: httpx.Response) -> Any:
    try:
        return msgspec.json.decode(response.content)
    except msgspec.DecodeError:
        return None


def _raise_if_passing(answer: Answer) -> None:
    """Raise NoAnswer for what the same request may get over when it is sent again."""
    is_in_use = answer.status == 409 and answer.problem == "idempotency-key-in-use"
    if answer.status not in {429, 500, 502, 503, 504} and not is_in_use:
        return
    # 429 and 503 of Tandem's own say that nothing has happened; those of a proxy say nothing.
    is_definite = answer.status in {429, 503} and bool(answer.problem)
    raise NoAnswer(
        f"{answer.url} answered {answer.status}: {answer.explanation}"
        if answer.problem
        else answer.explanation,
        is_ambiguous=not is_definite,
        retry_after_s=_retry_after_s(answer.headers),
    )


def _retry_after_s(headers: Mapping[str, str]) -> float:
    text = headers.get("retry-after", "")
    return min(float(text), PAUSE_MAX_S) if text.isdecimal() else 0.0


def account_path(account_id: str) -> str:
    # Also the dots, or `..` would be taken for the folder above.
    return "/v1/accounts/" + quote(account_id, safe="").replace(".", "%2E")


def ask(client: Client, method: str, path: str, body: Any = None) -> Any:
    """The body of a good answer; a CommandError for everything else. For requests to read with."""
    try:
        answer = client.persist(method, path, body)
    except GaveUp as error:
        raise UnknownOutcome(f"{error}. {REACH_HINT}") from error
    if answer.status >= 400 or answer.body is None:
        raise refused(answer)
    return answer.body


REACH_HINT = (
    "Is the service running (tandem local status), and is this its address (--url, TANDEM_URL)?"
)


def refused(answer: Answer) -> CommandError:
    name = f" ({answer.problem})" if answer.problem else ""
    return CommandError(f"{answer.explanation}{name}")


def service_options(command: Command) -> Command:
    """--url and --data-dir; see `urls_of`."""
    option = click.option(
        "--url",
        multiple=True,
        envvar="TANDEM_URL",
        help="Address of a coordinator, such as http://127.0.0.1:8080; repeat it or separate "
        "several by commas (or TANDEM_URL). Unless given: the local cluster that runs in "
        f"--data-dir, else {DEFAULT_URL}.",
    )
    return option(data_dir_option(command))


def urls_of(given: Sequence[str], data_dir: Path) -> list[str]:
    """The coordinators' addresses: those given, else the local cluster's, else the default one."""
    urls = [part.strip() for item in given for part in item.split(",") if part.strip()]
    if not urls:
        # Not loaded by those who give an address: it brings the whole local cluster along.
        from tandem.cli.configuration import local_environment

        urls = local_environment(data_dir).get("TANDEM_URL", DEFAULT_URL).split(",")
    for url in urls:
        _check_url(url)
    return urls


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        raise click.UsageError(
            f"{url!r} is no address of a coordinator; give one like {DEFAULT_URL} "
            "(--url or TANDEM_URL)"
        )
