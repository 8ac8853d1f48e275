"""Why a snapshot is not used. Each is passed over, for an older one or for the list's first frame.

SnapshotError
|-- SnapshotDamaged    what is stored does not hold
`-- NotOfThisList      it is whole, and of another list, another past, or another version
"""


class SnapshotError(Exception):
    """A snapshot is not used. `file` is its name."""

    def __init__(self, file: str, told: str) -> None:
        super().__init__(f"{file}{told}")
        self.file = file


class SnapshotDamaged(SnapshotError):
    """What is stored does not hold. `offset` is in bytes, of the header or block in which `what`
    does not hold, by `found` and `expected`.
    """

    def __init__(self, file: str, offset: int, what: str, found: object, expected: object) -> None:
        super().__init__(
            file,
            f", at byte {offset}: {what} is {found}, and should be {expected}. The list is not"
            " touched by this. Remove the file; a new snapshot can be made of the list",
        )
        self.offset, self.what, self.found, self.expected = offset, what, found, expected


class NotOfThisList(SnapshotError):
    """It is whole, and of no use for this list: by `what`, which is `found` and not `expected`."""

    def __init__(self, file: str, what: str, found: object, expected: object) -> None:
        super().__init__(
            file,
            f": {what} is {found}, and should be {expected}. If the list was set back or taken from"
            " elsewhere, that is why; else find out which of the two is right",
        )
        self.what, self.found, self.expected = what, found, expected
