"""Every `tandem ...` in the documents is a command that there is, with options that it has."""

import re
import shlex
from pathlib import Path

import click
import pytest

from tandem.cli import main

PROJECT = Path(__file__).resolve().parents[2]
PAGES = sorted([*(PROJECT / "docs").rglob("*.md"), *PROJECT.glob("*.md")])
_FENCED = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PASSING = re.compile(r"`((?:\.venv/bin/)?tandem [a-z][^`]*)`")
_CALL = re.compile(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(tandem(?: .*)?)$")
# What stands for a word of the reader's, or for more that may follow.
_ALTERNATIVES = re.compile(r"^[a-z-]+(\|[a-z-]+)+$")


def calls() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        text = page.read_text()
        lines = [line for block in _FENCED.findall(text) for line in _joined(block)]
        lines += [" ".join(line.split()) for line in _PASSING.findall(_FENCED.sub("", text))]
        for line in lines:
            called = _CALL.match(line)
            if called:
                found.append((page.name, called.group(1)))
    return found


def _joined(block: str) -> list[str]:
    return block.replace("\\\n", " ").splitlines()


def looked_up(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that these words name, and what is left of them."""
    command: click.Command = main
    context = click.Context(main, info_name="tandem")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, *words = words
        if _ALTERNATIVES.match(name):
            for one in name.split("|"):
                assert command.get_command(context, one), f"there is no {one}"
            name = name.split("|")[0]
        next_ = command.get_command(context, name)
        assert next_, f"{command.name} has no {name}"
        command = next_
    return command, words


def test_there_are_such() -> None:
    assert len(calls()) > 60


@pytest.mark.parametrize(("page", "call"), sorted(set(calls())))
def test_a_command_of_the_documents(page: str, call: str) -> None:
    words = shlex.split(call, comments=True)[1:]
    cut = next((i for i, word in enumerate(words) if word in (">", "|", "2>", ">>", "&&")), None)
    command, rest = looked_up(words[:cut])
    options = {name for parameter in command.params for name in parameter.opts}
    options |= {name for parameter in command.params for name in parameter.secondary_opts}
    used = {word.partition("=")[0] for word in rest if word.startswith("-") and len(word) > 1}
    assert used <= options | {"--help", "-h", "--version"}, f"{command.name} has no such option"
