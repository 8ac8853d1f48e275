"""The list of what does not run on a ledger group names cases that there are."""

from pathlib import Path

import pytest

from tests.contract.on_a_group import AT_THE_DOOR, CHOSEN, LEFT_OUT

HERE = Path(__file__).parent
NAMED = [
    (file, function)
    for file, functions in [*LEFT_OUT.items(), *CHOSEN.items()]
    for function in functions
]


@pytest.mark.parametrize(("file", "function"), NAMED)
def test_what_is_named_is_there(file: str, function: str) -> None:
    assert f"\ndef {function}(" in (HERE / file).read_text()


def test_the_files_are_there() -> None:
    assert all((HERE / file).is_file() for file in AT_THE_DOOR)
