"""What tests of a node need: a folder with a list, commands, and answers to read."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eventstore.commands import Packed, Packer
from eventstore.node.intake import Answer
from eventstore.node.node import Node, Settings
from eventstore.rows import Code
from eventstore.segments.files import DISK, Files
from eventstore.segments.frame import Identity
from eventstore.segments.writer import begin
from ledger.model import Transfer

GROUP = Identity(uuid.UUID(int=1), uuid.UUID(int=2), 0)
SETTINGS = Settings(room_bytes_min=2**20)
PATIENCE_S = 30


def new_folder(folder: Path) -> Path:
    """A group that has no frame yet."""
    folder.mkdir()
    begin(folder)
    return folder


def opened(
    folder: Path,
    settings: Settings = SETTINGS,
    *,
    files: Files = DISK,
    on_death: Callable[[BaseException], None] = lambda error: None,
) -> Node:
    return Node.open(folder, GROUP, settings, files=files, on_death=on_death)


def wish(key: str, source: str, destination: str, amount: int, **more: Any) -> Transfer:
    fields = {"currency": "EUR", "metadata": None, "protocol": "", "created_at": 0} | more
    return Transfer("", key, source, destination, amount, **fields)


def accounts(*names: str) -> Packed:
    """Openings; the first account may go down without limit."""
    packer = Packer()
    for index, name in enumerate(names):
        packer.open(name, "EUR", None if index == 0 else 0)
    return packer.packed


def transfers(*wishes: Transfer) -> Packed:
    packer = Packer()
    for each in wishes:
        packer.transfer(each)
    return packer.packed


def codes(answer: Answer) -> list[Code]:
    """What became of each command of a submission."""
    return [Code(code) for piece in answer.pieces for code in piece.outcomes.codes.tolist()]


def balances(node: Node, *names: str) -> list[int]:
    def ask(machine: Any) -> list[int]:
        numbers = [machine.number_of(name) for name in names]
        return [machine.account(number).account.balance for number in numbers]

    return node.look(ask).result(PATIENCE_S)
