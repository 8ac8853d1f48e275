"""What can go wrong with a local cluster, in words for the person who started it."""


class LocalError(Exception):
    """The local cluster cannot do what was asked; the text says why and what to do."""
