"""What can be wrong with a list's history in files."""

from pathlib import Path


class HistoryDiffers(Exception):
    """A file is not what the list says."""

    def __init__(self, file: Path, what: str, found: object, expected: object) -> None:
        super().__init__(
            f"{file}: {what} is {found}, and by the list it is {expected}. The list is right: "
            "remove the file, and it is made anew"
        )
        self.file, self.what = file, what


class HistoryMissing(Exception):
    """The file of a segment is not there, and that of a later one is."""

    def __init__(self, file: Path, last: Path) -> None:
        super().__init__(f"{file} is not there, and {last.name}, which comes later, is: made anew?")
        self.file = file
