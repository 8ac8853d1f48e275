"""The file of anchors: what was written is read, and whatever is not that is refused."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from coordinator.auditing.anchors import (
    Anchor,
    BrokenAnchors,
    check_anchors,
    read_anchors,
    write_anchors,
)

MOMENT = datetime(2026, 11, 25, 2, tzinfo=UTC)
ANCHORS = [Anchor("alice", 2, "x" * 44), Anchor("bob", 0, "y" * 44)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "anchors.jsonl"


@pytest.mark.parametrize("anchors", [[], ANCHORS])
def test_what_was_written_is_read(file: Path, anchors: list[Anchor]) -> None:
    written = write_anchors(file, "tandem", MOMENT, iter(anchors))
    header, footer = check_anchors(file)
    assert (header.cluster, header.taken_at) == ("tandem", MOMENT)
    assert footer == written
    assert footer.accounts == len(anchors)
    assert list(read_anchors(file)) == anchors
    assert list(file.parent.iterdir()) == [file]


def test_a_file_that_could_not_be_finished_has_no_name(file: Path) -> None:
    def broken():
        yield ANCHORS[0]
        raise OSError("the shard is gone")

    with pytest.raises(OSError, match="gone"):
        write_anchors(file, "tandem", MOMENT, broken())
    assert not file.exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lines: [],
        lambda lines: lines[:1],
        lambda lines: lines[:-1],
        lambda lines: lines[1:],
        lambda lines: [lines[0], lines[2], lines[1], lines[3]],
        lambda lines: [lines[0], lines[1], lines[3]],
        lambda lines: [lines[0].replace(b"tandem", b"random", 2), *lines[1:]],
        lambda lines: [lines[0], lines[1].replace(b"2", b"3"), *lines[2:]],
        lambda lines: [*lines[:-1], lines[-1].replace(b'"accounts":2', b'"accounts":3')],
        lambda lines: [b"\xff\n", *lines[1:]],
    ],
)
def test_a_file_that_was_changed_is_refused(file: Path, spoil) -> None:
    write_anchors(file, "tandem", MOMENT, ANCHORS)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(spoil(lines)))
    with pytest.raises(BrokenAnchors, match=r"anchors\.jsonl"):
        check_anchors(file)
