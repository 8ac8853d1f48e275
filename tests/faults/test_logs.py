"""What a real coordinator logs: every line is JSON, one transfer can be followed through it, and
nothing is in it that nobody should read.
"""

import socket
from typing import NamedTuple

import pytest

from tests.bank import Bank, client, transfer
from tests.cluster import Cluster, wait_until
from tests.faults.victims import Victim, new_name
from tests.logs import lines

TOKEN, SECRET = "open-sesame", "nobody-elses-business"


class Said(NamedTuple):
    """The log of a coordinator that has answered some requests, and has ended."""

    log: str
    lines: list[dict]
    statuses: dict[str, int]

    def about(self, name: str) -> list[dict]:
        """What `grep NAME` finds."""
        texts = [text for text in self.log.splitlines() if name in text]
        return [line for line in self.lines if any(line["time"] in text for text in texts)]

    def request(self, id_: str) -> dict:
        (line,) = [
            line
            for line in self.lines
            if line["event"] == "http.request" and line["request_id"] == id_
        ]
        return line


@pytest.fixture(scope="module")
def said(mysql_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Said:
    """The answer to the first commit is lost to it."""
    bank = Bank(mysql_cluster, 2)
    rich, other = bank.two_across()
    folder = tmp_path_factory.mktemp("logs")
    victim = Victim(
        mysql_cluster, new_name(), folder, "after-decision@s1=cut*1", TANDEM_LOG_LEVEL="debug"
    )
    statuses = {}

    def send(method: str, path: str, id_: str, body: dict | None = None) -> None:
        headers = {"X-Request-Id": id_, "Authorization": f"Bearer {TOKEN}"}
        key = {"Idempotency-Key": id_} if path == "/v1/transfers" else {}
        answer = http.request(method, path, headers=headers | key, json=body)
        statuses[id_] = answer.status_code

    def pay(amount: int) -> dict:
        item = transfer(rich, other, amount, "")
        del item["idempotency_key"]
        return item | {"metadata": {"note": SECRET}}

    try:
        victim.start()
        with client(victim.url) as http:
            send("POST", "/v1/transfers", "struck", pay(5))
            send("POST", "/v1/transfers", "plain", pay(5))
            send("POST", "/v1/transfers", "refused", pay(5_000))
            items = [transfer(rich, other, 1, "b1"), transfer(rich, other, 5_000, "b2")]
            send("POST", "/v1/transfers/batch", "batch", {"transfers": items})
            send("GET", f"/v1/accounts/{rich}", "account")
            send("GET", f"/v1/accounts/{rich}?token={TOKEN}", "unknown-parameter")
            send("GET", f"/nowhere?token={TOKEN}", "nowhere")
        with socket.create_connection(("127.0.0.1", victim.port), timeout=10) as raw:
            raw.sendall(f"GET / HTTP/1.1\r\nAuthorization Bearer {TOKEN}\r\n\r\n".encode())
            assert b" 400 " in raw.recv(1000)
        wait_until(lambda: not victim.in_doubt(), 10, "something stays in doubt")
        assert victim.process
        victim.process.terminate()
        victim.process.wait(30)
    finally:
        victim.stop()
    return Said(victim.log.read_text(), lines(victim.log), statuses)


def test_every_request_leaves_one_line(said: Said) -> None:
    told = {id_: said.request(id_)["status"] for id_ in said.statuses}
    assert told == said.statuses
    assert said.statuses == {
        "struck": 201,
        "plain": 201,
        "refused": 422,
        "batch": 200,
        "account": 200,
        "unknown-parameter": 400,
        "nowhere": 404,
    }
    assert said.request("plain")["route"] == "/v1/transfers"
    assert 0 < said.request("plain")["duration_ms"] < 5000
    assert said.request("refused")["problem"] == "insufficient-funds"
    assert said.request("account")["account_id"]
    assert said.request("nowhere")["path"] == "/nowhere"


def test_a_batch_is_one_line_with_counts(said: Said) -> None:
    line = said.request("batch")
    assert (line["transfers"], line["committed"], line["rejected"]) == (2, 1, 1)
    assert len(line["gtrids"]) == 1


def test_a_transfer_can_be_followed(said: Said) -> None:
    line = said.request("plain")
    (group,) = [line for line in said.about(line["gtrid"]) if line["event"] == "group.committed"]
    # Written by two threads, in any order.
    about = said.about(line["transfer_id"])
    assert line in about
    assert group in about
    assert group["transfers"] == 1
    assert group["request_ids"] == ["plain"]
    assert group["transfer_ids"] == [line["transfer_id"]]


def test_a_group_can_be_followed_through_its_recovery(said: Said) -> None:
    gtrid = said.request("struck")["gtrid"]
    found = said.about(gtrid)
    assert [line["event"] for line in found][:3] == [
        "fault.struck",
        "group.unsettled",
        "recovery.settled",
    ]
    assert {line["event"] for line in found[3:]} == {"recovery.branches_finished", "http.request"}
    unsettled, settled = found[1:3]
    assert unsettled["level"] == "WARNING"
    assert unsettled["request_ids"] == ["struck"]
    assert unsettled["lost"] == ["s1"]
    assert (settled["shard"], settled["outcome"], settled["gtrids"]) == ("s1", "committed", [gtrid])


def test_a_lost_shard_and_its_return_are_logged(said: Said) -> None:
    seen = [line["event"] for line in said.lines if line.get("shard") == "s1"]
    assert seen.index("shard.in_use") < seen.index("shard.lost")
    assert "shard.in_use" in seen[seen.index("shard.lost") :]


def test_the_process_is_followed_from_start_to_end(said: Said) -> None:
    events = [line["event"] for line in said.lines]
    assert events[0] == "fault.test_build"
    assert events.index("map.in_force") < events.index("process.started")
    assert events.index("process.started") < events.index("process.stopping")
    assert "gunicorn" in events


def test_what_is_no_http_is_not_quoted(said: Said) -> None:
    (line,) = [line for line in said.lines if line.get("event") == "http.unreadable"]
    assert line["message"].endswith("InvalidHeader")


def test_nothing_is_in_it_that_nobody_should_read(said: Said, mysql_cluster: Cluster) -> None:
    mysql = mysql_cluster.settings.mysql
    assert len(mysql.password) > 8
    for secret in (TOKEN, SECRET, mysql.password, mysql.admin_password, "may go down to"):
        assert secret not in said.log
