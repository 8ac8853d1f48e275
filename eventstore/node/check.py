"""Whether commands are commands, before anything of them is taken.

A frame with one that is none would end the node: whoever made it is told instead.
"""

import numpy as np

from eventstore.machine.check import contents
from eventstore.machine.parts import check_texts
from eventstore.machine.texts import names_of
from eventstore.machine.words import as_words
from eventstore.rows import Commands, Kind


def check(commands: Commands, texts: bytes, accounts: int) -> None:
    """Raises Bug, with the command and what is wrong with it, if they are not what a machine with
    so many accounts takes.
    """
    words = as_words(commands)
    found = contents(commands, words, texts, accounts)
    check_texts(commands, words, texts)
    if found.openings:
        is_opening = commands["kind"][found.named[:, 0]] == Kind.OPEN
        names_of(commands, found.named[is_opening], texts, np.empty((0, 4), np.uint64))
