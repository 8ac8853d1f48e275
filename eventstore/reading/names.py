"""The names of the read side's files; pure.

manifest                                             what of the rest is believed
00000000000000000000-00000000000000000042.run        the entries of the frames behind the first seq,
                                                     up to the second
00000000000000000042.heads                           the accounts as that frame left them
*.tmp                                                one of these that was being written
"""

import re

MANIFEST = "manifest"

_OWN = re.compile(r"(manifest|\d{20}-\d{20}\.run|\d{20}\.heads)(\.tmp)?")


def run_name(after: int, until: int) -> str:
    """The file of a run."""
    return f"{after:020d}-{until:020d}.run"


def heads_name(seq: int) -> str:
    """The file of all accounts as a frame left them."""
    return f"{seq:020d}.heads"


def scratch_name(name: str) -> str:
    """The file under which another one is written, until it is flushed."""
    return f"{name}.tmp"


def is_own(name: str) -> bool:
    """Whether it is one of these, and can be removed if the manifest does not name it."""
    return _OWN.fullmatch(name) is not None
