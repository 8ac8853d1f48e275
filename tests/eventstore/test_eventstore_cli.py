"""`tandem eventstore`, as an auditor runs it beside a node and after it."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from coordinator.http.schemas import time_text
from eventstore.commands import Packer
from eventstore.look import _is_held
from eventstore.node.node import Node
from eventstore.rows import DETAIL, Outcomes
from eventstore.segments.frame import Body, Draft
from eventstore.segments.writer import List
from ledger.model import Status
from tandem.cli.eventstore import eventstore
from tests.eventstore.groups import GROUP, PATIENCE_S, accounts, new_folder, opened, transfers, wish


def run(*arguments: object) -> Result:
    return CliRunner().invoke(eventstore, [str(each) for each in arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return new_folder(tmp_path / "g1")


@pytest.fixture
def node(folder: Path) -> Iterator[Node]:
    node = opened(folder)
    node.submit(*accounts("bank", "alice", "bob")).result(PATIENCE_S)
    yield node
    node.stop()


def pay(node: Node, key: str, amount: int) -> tuple[int, int]:
    """Pay alice; the frame, and its time in microseconds."""
    ((_, seq, _, time_us, _),) = (
        node.submit(*transfers(wish(key, "bank", "alice", amount, metadata='{"n":1}')))
        .result(PATIENCE_S)
        .pieces
    )
    return seq, time_us


def test_a_list_that_holds(folder: Path, node: Node) -> None:
    pay(node, "one", 5)
    beside = run("verify", folder)
    assert beside.exit_code == 0, beside.output
    assert "The list holds" in beside.output
    node.stop()
    told = json.loads(run("verify", folder, "--json").stdout)
    assert told["commands"] == 4
    assert json.loads(run("verify", folder, "--json").stdout) == told


def test_what_a_frame_says(folder: Path, node: Node) -> None:
    seq, time_us = pay(node, "one", 5)
    node.submit(*transfers(wish("two", "alice", "nobody", 50))).result(PATIENCE_S)
    node.submit(*Packer().status("bob", Status.FROZEN).packed).result(PATIENCE_S)
    node.stop()
    told = json.loads(run("show", folder, seq, "--json").stdout)
    assert (told["seq"], told["time"]) == (seq, time_text(time_us))
    assert told["commands"] == [
        {
            "index": 0,
            "command": "transfer 5 EUR from bank to alice, key 'one', metadata {\"n\":1}",
            "outcome": "DONE",
            "details": [],
        }
    ]
    all_of_it = "".join(run("show", folder, n).output for n in range(1, seq + 4))
    assert "open bank in EUR with no limit" in all_of_it
    assert "NO_DESTINATION" in all_of_it
    assert "make bob frozen" in all_of_it


def test_a_currency_is_told_in_letters(folder: Path, node: Node) -> None:
    packer = Packer().open("carol", "USDC2024").transfer(wish("1", "bank", "carol", 5))
    packer.transfer(wish("2", "carol", "bank", 5))
    (piece,) = node.submit(*packer.packed).result(PATIENCE_S).pieces
    node.stop()
    told = json.loads(run("show", folder, piece.seq, "--json").stdout)["commands"]
    assert told[0]["command"] == "open carol in USDC2024 with an overdraft limit of 0"
    assert [(each["outcome"], each["details"]) for each in told[1:]] == [
        ("DESTINATION_CURRENCY", ["USDC2024"]),
        ("SOURCE_CURRENCY", ["USDC2024"]),
    ]
    shown = run("state", folder, "--account", "carol").output
    assert ["carol", "0", "USDC2024", "0", "open"] in [line.split() for line in shown.splitlines()]


def test_a_frame_that_is_not_there(folder: Path, node: Node) -> None:
    done = run("show", folder, 10**6)
    assert done.exit_code == 3
    assert "1000000" in done.output


def test_any_moment_can_be_rebuilt(folder: Path, node: Node) -> None:
    moments = [pay(node, f"{n}", 10)[1] for n in range(3)]
    node.stop()
    for count, moment in enumerate(moments, start=1):
        for shift, expected in ((0, count * 10), (-1, count * 10 - 10)):
            at = ("--at", time_text(moment + shift))
            told = json.loads(run("state", folder, *at, "--account", "alice", "--json").stdout)
            assert told["accounts"][0]["balance"] == expected
    shown = run("state", folder, "--at", time_text(moments[0])).output
    assert ["alice", "10", "EUR", "0", "open"] in [line.split() for line in shown.splitlines()]
    told = json.loads(run("state", folder, "--json").stdout)
    assert [(a["id"], a["balance"]) for a in told["accounts"]] == [
        ("bank", -30),
        ("alice", 30),
        ("bob", 0),
    ]


def test_an_account_that_is_not_there(folder: Path, node: Node) -> None:
    node.stop()
    done = run("state", folder, "--account", "nobody")
    assert done.exit_code == 1
    assert "there is no account nobody" in done.output


def test_what_somebody_has_changed_is_named(folder: Path, node: Node) -> None:
    pay(node, "one", 5)
    pay(node, "two", 5)
    node.stop()
    (segment,) = folder.glob("*.segment")
    data = bytearray(segment.read_bytes())
    at = data.index(b"one")
    data[at] ^= 1
    segment.write_bytes(data)
    done = run("verify", folder)
    assert done.exit_code == 1
    assert segment.name in done.output
    assert "hash" in done.output


def test_a_frame_that_no_machine_can_have_decided(folder: Path) -> None:
    """By somebody who has made all hashes anew."""
    commands, texts = transfers(wish("one", "bank", "alice", 5))
    commands["amount"] = 0
    found = Outcomes(np.zeros(1, np.uint8), np.empty(0, DETAIL))
    with List.open(folder, GROUP, room_bytes_min=0) as list_:
        list_.append([Draft(1, 1, 1, 1, 1, 1, Body(commands, found, texts))])
        list_.flush()
    done = run("verify", folder)
    assert done.exit_code == 1, done.output
    assert "moves 1 or more" in done.output


def test_to_look_takes_no_lock(folder: Path, node: Node) -> None:
    """A node that starts at that moment would be kept away."""
    assert _is_held(folder)
    node.stop()
    assert not _is_held(folder)


def test_no_list(tmp_path: Path) -> None:
    done = run("verify", tmp_path)
    assert done.exit_code == 3
    assert str(tmp_path) in done.output


def test_no_frame_yet(folder: Path) -> None:
    done = run("verify", folder)
    assert done.exit_code == 3, done.output
