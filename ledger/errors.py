"""Mistakes of our own: something does not hold that the code promises to itself.

Nobody answers a `Bug` with a decision: it ends the work at hand before anything is written, and is
logged with its text and its traceback. It is raised by an `if`, not by an `assert`, so that
`python -O` takes none of these checks away.
"""


class Bug(Exception):
    """An invariant is broken; the text says which one, and with which values."""
