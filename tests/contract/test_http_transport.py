"""Requests that are broken below the API: each gets a 4xx with a problem document, with a token and
without, nothing happens, and the coordinator's log has no fault of its own.
"""

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from coordinator.security.tokens import Scope, add, new_token, table_of
from tests.cluster import Cluster
from tests.logs import events, lines

_HOST = "Host: HOST\r\n"
_JSON = "Content-Type: application/json\r\nIdempotency-Key: k\r\n"
_MANY = "A: b\r\n" * 200
_POST = f"POST /v1/transfers HTTP/1.1\r\n{_HOST}TOKEN{_JSON}"
_GET = f"GET /v1/balances?account=a HTTP/1.1\r\n{_HOST}TOKEN"
_METRICS = "Accept: application/openmetrics-text; version=\xff; q=x;=,\r\n"
_CODED = "Transfer-Encoding: chunked\r\n"
_CHUNKED = f"{_POST}{_CODED}\r\n"

# By name: what is sent. After it the client sends nothing more.
UNREADABLE = {
    "no request": "hello\r\n\r\n",
    "HTTP/0.9": "GET /\r\n\r\n",
    "HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/3.7": f"GET / HTTP/3.7\r\n{_HOST}\r\n",
    "a version that is none": f"GET / HTTX/1.1\r\n{_HOST}\r\n",
    "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "lower case": f"get /healthz HTTP/1.1\r\n{_HOST}\r\n",
    "a method of signs": f"G@T /healthz HTTP/1.1\r\n{_HOST}\r\n",
    "a long method": f"{'G' * 400} /healthz HTTP/1.1\r\n{_HOST}\r\n",
    "four words": f"GET / x HTTP/1.1\r\n{_HOST}\r\n",
    "a bare LF": "GET /healthz HTTP/1.1\nHost: HOST\n\n",
    "NUL in the address": f"GET /\0 HTTP/1.1\r\n{_HOST}\r\n",
    "a byte over 127 in the address": f"GET /\xe9 HTTP/1.1\r\n{_HOST}\r\n",
    "a host that is none": f"GET http://[::g]/ HTTP/1.1\r\n{_HOST}\r\n",
    "a long line": f"GET /{'x' * (300 << 10)} HTTP/1.1\r\n{_HOST}\r\n",
    "no colon": f"{_GET}Accept\r\n\r\n",
    "no name": f"{_GET}: x\r\n\r\n",
    "a blank in a name": f"{_GET}Acc ept: x\r\n\r\n",
    "a blank behind a name": f"{_GET}Accept : x\r\n\r\n",
    "NUL in a header": f"{_GET}Accept: \0\r\n\r\n",
    "CR in a header": f"{_GET}Accept: a\rb\r\n\r\n",
    "folded": f"{_GET}Accept: a\r\n b\r\n\r\n",
    "a long header": f"{_GET}Accept: {'x' * 10_000}\r\n\r\n",
    "many headers": f"{_GET}{_MANY}\r\n",
    "two hosts": f"{_GET}Host: other\r\n\r\n",
    "two content types": f"{_POST}Content-Type: text/plain\r\nContent-Length: 0\r\n\r\n",
    "another expectation": f"{_POST}Expect: the-worst\r\nContent-Length: 2\r\n\r\n{{}}",
    "two lengths": f"{_POST}Content-Length: 2\r\nContent-Length: 2\r\n\r\n{{}}",
    "a list of lengths": f"{_POST}Content-Length: 2, 2\r\n\r\n{{}}",
    "a length and chunks": f"{_POST}Content-Length: 2\r\n{_CODED}\r\n0\r\n\r\n",
    "a negative length": f"{_POST}Content-Length: -2\r\n\r\n{{}}",
    "a signed length": f"{_POST}Content-Length: +2\r\n\r\n{{}}",
    "a hexadecimal length": f"{_POST}Content-Length: 0x2\r\n\r\n{{}}",
    "a length of no digits": f"{_POST}Content-Length: \xb2\r\n\r\n{{}}",
    "a length of 5,000 digits": f"{_POST}Content-Length: {'9' * 5000}\r\n\r\n{{}}",
    "gzip": f"{_POST}Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    "gzip, chunked twice": f"{_POST}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": f"{_POST}Transfer-Encoding: cow\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": f"{_CHUNKED}0\r\n\r\n".replace("HTTP/1.1", "HTTP/1.0"),
}
# The head is good; so without a token the answer is 401.
BAD_BODIES = {
    "a chunk of no size": f"{_CHUNKED}\r\n{{}}\r\n0\r\n\r\n",
    "a negative chunk": f"{_CHUNKED}-2\r\n{{}}\r\n0\r\n\r\n",
    "a signed chunk": f"{_CHUNKED}+2\r\n{{}}\r\n0\r\n\r\n",
    "a prefixed chunk": f"{_CHUNKED}0x2\r\n{{}}\r\n0\r\n\r\n",
    "an underlined chunk": f"{_CHUNKED}0_2\r\n{{}}\r\n0\r\n\r\n",
    "a chunk of no number": f"{_CHUNKED}zz\r\n{{}}\r\n0\r\n\r\n",
    "a chunk with a blank": f"{_CHUNKED}2 \r\n{{}}\r\n0\r\n\r\n",
    "a huge chunk": f"{_CHUNKED}{'f' * 400}\r\n{{}}\r\n0\r\n\r\n",
    "a long size": f"{_CHUNKED}{'0' * 20_000}2\r\n{{}}\r\n0\r\n\r\n",
    "a chunk longer than said": f"{_CHUNKED}1\r\n{{}}\r\n0\r\n\r\n",
    "a chunk ended by LF": f"{_CHUNKED}2\n{{}}\n0\n\n",
    "an odd extension": f"{_CHUNKED}2;=\r\n{{}}\r\n0\r\n\r\n",
    "an unended extension": f'{_CHUNKED}2;a="b\r\n{{}}\r\n0\r\n\r\n',
    "an extension with CR": f"{_CHUNKED}2;a\rb\r\n{{}}\r\n0\r\n\r\n",
    "a long extension": f"{_CHUNKED}2;a={'b' * 20_000}\r\n{{}}\r\n0\r\n\r\n",
    "a trailer of no name": f"{_CHUNKED}0\r\n: x\r\n\r\n",
    "a trailer of no colon": f"{_CHUNKED}0\r\nx\r\n\r\n",
    "a trailer that is forbidden": f"{_CHUNKED}0\r\nContent-Length: 2\r\n\r\n",
    "a trailer with NUL": f"{_CHUNKED}0\r\nX: \0\r\n\r\n",
    "a long trailer": f"{_CHUNKED}0\r\nX: {'x' * 10_000}\r\n\r\n",
    "many trailers": f"{_CHUNKED}0\r\n{_MANY}\r\n",
    "a trailer ended by LF": f"{_CHUNKED}0\r\nX: x\n\r\n",
    "chunks without an end": f"{_CHUNKED}2\r\n{{}}\r\n",
    "a chunk cut short": f"{_CHUNKED}5\r\n{{}}",
    "a trailer cut short": f"{_CHUNKED}0\r\nX: x",
    "a body cut short": f"{_POST}Content-Length: 5\r\n\r\n{{}}",
    "no body": f"{_POST}Content-Length: 5\r\n\r\n",
    "a body of NUL": f"{_POST}Content-Length: 1\r\n\r\n\0",
    "no UTF-8": f"{_POST}Content-Length: 3\r\n\r\n\xff\xfe\xfd",
    "a length of 300 digits": f"{_POST}Content-Length: {'9' * 300}\r\n\r\n{{}}",
}
# What is odd, and may be refused or not: by whom it is asked for does not matter.
ODD = {
    "an address that is none": f"GET //[ HTTP/1.1\r\n{_HOST}TOKEN\r\n",
    "no host": "GET /v1/balances?account=a HTTP/1.1\r\nTOKEN\r\n",
    "an empty host": "GET /v1/balances?account=a HTTP/1.1\r\nHost:\r\nTOKEN\r\n",
    "an odd host": "GET /v1/balances?account=a HTTP/1.1\r\nHost: [\r\nTOKEN\r\n",
    "a host of signs": "GET /v1/balances?account=a HTTP/1.1\r\nHost: a b/@:x\r\nTOKEN\r\n",
    "a host beyond ASCII": "GET /v1/balances?account=a HTTP/1.1\r\nHost: \xe9..\r\nTOKEN\r\n",
    "a long host": f"GET /v1/x HTTP/1.1\r\nHost: {'a' * 300}.\r\nTOKEN\r\n",
    "an odd port": "GET /v1/x HTTP/1.1\r\nHost: 127.0.0.1:99999999\r\nTOKEN\r\n",
    "an odd origin": f"{_GET}Origin: http://[\r\n\r\n",
    "an origin with an odd port": f"{_GET}Origin: http://a:99999999\r\n\r\n",
    "an origin of signs": f"{_GET}Origin: http://\xe9\xff[::1\r\n\r\n",
    "an origin that NFKC changes": f"{_GET}Origin: http://a\xbd.b\r\n\r\n",
    "an odd range": f"{_GET}Range: bytes=9-1,x-\r\n\r\n",
    "an odd accept": f"{_GET}Accept: ;q=\xff;,/;q=x\r\n\r\n",
    "odd conditions": f'{_GET}If-Modified-Since: x\r\nIf-Match: W/"\r\nIf-Range: \xff\r\n\r\n',
    "odd cookies": f'{_GET}Cookie: =;;\xff="\\x; session=\x80\r\n\r\n',
    "odd languages": f"{_GET}Accept-Language: *;q=nan\r\nAccept-Charset: \xff\r\n\r\n",
    "an odd method": f"BREW /v1/transfers HTTP/1.1\r\n{_HOST}TOKEN\r\n",
    "a tunnel": f"CONNECT other:443 HTTP/1.1\r\n{_HOST}TOKEN\r\n",
    "everything": f"OPTIONS * HTTP/1.1\r\n{_HOST}TOKEN\r\n",
    "an odd escape": f"GET /v1/accounts/%zz%f HTTP/1.1\r\n{_HOST}TOKEN\r\n",
    "an escaped NUL": f"GET /v1/accounts/%00 HTTP/1.1\r\n{_HOST}TOKEN\r\n",
    "escapes beyond UTF-8": f"GET /v1/accounts/%ff%fe?x=%ff HTTP/1.1\r\n{_HOST}TOKEN\r\n",
    "a document with NUL": f"GET /docs/%00 HTTP/1.1\r\n{_HOST}\r\n",
    "a document elsewhere": f"GET /docs/..%2f..%2f%ff HTTP/1.1\r\n{_HOST}\r\n",
    "a long document": f"GET /docs/{'x' * 5000} HTTP/1.1\r\n{_HOST}\r\n",
    "a page with NUL": f"GET /console/%00%ff HTTP/1.1\r\n{_HOST}\r\n",
    "a document's odd range": f"GET /docs/swagger-ui.css HTTP/1.1\r\n{_HOST}Range: bytes=-\r\n\r\n",
    "a range beyond": f"GET /docs/swagger-ui.css HTTP/1.1\r\n{_HOST}Range: bytes=99999999-\r\n\r\n",
    "an absolute address": f"GET http://other/v1/x HTTP/1.1\r\n{_HOST}TOKEN\r\n",
    "an odd content type": _POST.replace("application/json", "/;=\xff;charset") + "\r\n",
    "an odd charset": _POST.replace("/json", "/json; charset=\xff") + "Content-Length: 2\r\n\r\n{}",
    "a token beyond ASCII": f"GET /v1/x HTTP/1.1\r\n{_HOST}Authorization: Bearer \xe9\xff\r\n\r\n",
    "basic credentials": f"GET /v1/x HTTP/1.1\r\n{_HOST}Authorization: Basic \xff=\r\n\r\n",
    "digest credentials": f'GET /v1/x HTTP/1.1\r\n{_HOST}Authorization: Digest a="\\\r\n\r\n',
    "a path of the proxy": f"{_GET}Script_Name: /elsewhere\r\nPath_Info: /x\r\n\r\n",
    "schemes of the proxy": f"{_GET}X-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off\r\n\r\n",
    "odd traces": f"{_GET}traceparent: 00-\xff-00\r\ntracestate: ,,=\xff\r\n\r\n",
    "odd preferences": _POST
    + "Prefer: wait=\xff, wait="
    + "9" * 400
    + "\r\nContent-Length: 0\r\n\r\n",
    "an upgrade": f"{_GET}Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n",
    "metrics of an odd kind": f"GET /metrics HTTP/1.1\r\n{_HOST}TOKEN{_METRICS}\r\n",
}


@dataclass
class Wire:
    """A coordinator, called byte by byte, and the log that it writes."""

    url: str
    log: Path
    token: str
    is_stranger: bool

    def send(self, text: str) -> "list[tuple[int, dict[str, str], bytes]]":
        """Send it, and nothing more, and read all answers: status, headers and body."""
        address = httpx.URL(self.url)
        host = f"{address.host}:{address.port}"
        data = text.replace("HOST", host).replace("TOKEN", self.token).encode("latin-1")
        with socket.create_connection((address.host, address.port), timeout=20) as wire:
            wire.sendall(data)
            wire.shutdown(socket.SHUT_WR)
            with wire.makefile("rb") as answers:
                return list(read_answers(answers))


def read_answers(answers) -> Iterator[tuple[int, dict[str, str], bytes]]:
    while line := answers.readline():
        status = int(line.split()[1])
        headers = {}
        while (line := answers.readline()) != b"\r\n":
            name, value = line.decode("latin-1").rstrip().split(": ", 1)
            headers[name] = value
        assert "Content-Length" in headers, headers
        yield status, headers, answers.read(int(headers["Content-Length"]))


@pytest.fixture(scope="module", params=["open", "token", "no token"])
def wire(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Wire]:
    """A coordinator without tokens, and one with, called with a good one and with none."""
    folder = tmp_path_factory.mktemp("transport")
    overrides = {"TANDEM_COORDINATOR_WORKERS": "1", "TANDEM_LOG_FORMAT": "json"}
    token = ""
    if request.param != "open":
        secret = new_token()
        add(folder / "tokens", "all", table_of("all", secret, list(Scope), None, None))
        overrides["TANDEM_ACCESS_TOKENS_FILE"] = str(folder / "tokens")
    if request.param == "token":
        token = f"Authorization: Bearer {secret}\r\n"
    log = folder / "log"
    with cluster.coordinator("transport", log, overrides) as running:
        yield Wire(running.url, log, token, request.param == "no token")
    # Whatever was sent, no fault of the coordinator's own stands there, and no line of others.
    assert not [line for line in lines(log) if line["level"] in ("ERROR", "CRITICAL")]


def is_refusal(answer: tuple[int, dict[str, str], bytes]) -> None:
    status, headers, body = answer
    assert 400 <= status < 500, answer
    assert headers["Content-Type"] == "application/problem+json", answer
    assert headers["X-Request-Id"], answer
    problem = json.loads(body)
    assert problem["status"] == status
    assert "nothing has happened" in problem["detail"].lower(), answer


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_head_that_cannot_be_read(wire: Wire, name: str) -> None:
    (answer,) = wire.send(UNREADABLE[name])
    is_refusal(answer)
    assert answer[1]["Connection"] == "close"
    unread = events(wire.log, "http.unreadable")[-1]
    assert unread["request_id"] == answer[1]["X-Request-Id"]


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_body_that_cannot_be_read(wire: Wire, name: str) -> None:
    (answer,) = wire.send(BAD_BODIES[name])
    is_refusal(answer)
    assert (answer[0] == 401) == wire.is_stranger


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_no_fault(wire: Wire, name: str) -> None:
    for answer in wire.send(ODD[name]):
        assert answer[0] < 500, answer
        if answer[0] >= 400 and answer[2]:
            is_refusal(answer)


def test_requests_that_come_at_once_are_answered_in_turn(wire: Wire) -> None:
    good = f"GET /healthz HTTP/1.1\r\n{_HOST}"
    answers = wire.send(f"{good}\r\n" * 20 + f"{good}Connection: close\r\n\r\n{good}\r\n")
    assert [answer[0] for answer in answers] == [200] * 21


def test_a_bad_request_behind_a_good_one(wire: Wire) -> None:
    good = f"GET /healthz HTTP/1.1\r\n{_HOST}\r\n"
    first, second = wire.send(f"{good}nonsense\r\n\r\n")
    assert first[0] == 200
    is_refusal(second)
    # A body that nobody wants, and that cannot be read, is not answered a second time.
    chunked = good.replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert [answer[0] for answer in wire.send(f"{chunked}zz\r\n{good}")] == [400]
