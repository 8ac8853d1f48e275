"""Whether commands are commands, before anything of them is taken.

A frame with one that is none would end the node: whoever made it is told instead.
"""

from eventstore.machine.check import contents
from eventstore.machine.parts import check_texts
from eventstore.machine.texts import names
from eventstore.machine.words import as_words
from eventstore.rows import Commands


def check(commands: Commands, texts: bytes, accounts: int) -> None:
    """Raises Bug, with the command and what is wrong with it, if they are not what a machine with
    so many accounts takes.
    """
    words = as_words(commands)
    found = contents(commands, words, texts, accounts)
    check_texts(commands, words, texts)
    names(commands, found.named, texts)
