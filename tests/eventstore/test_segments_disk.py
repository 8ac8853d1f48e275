"""The same on a real disk, with real processes: locked, killed, read by another one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from eventstore.segments.errors import FileFailed, FolderInUse, NotThere
from eventstore.segments.files import DISK
from eventstore.segments.names import HOLDER, segment_name
from eventstore.segments.reader import Reader
from eventstore.segments.writer import List, begin
from tests.eventstore.drafts import IDENTITY, add, begun, hashes, opened

PROJECT = Path(__file__).parents[2]
APPENDER = """
import sys
from pathlib import Path
from eventstore.segments.files import DISK
from tests.eventstore.drafts import add, opened

with opened(Path(sys.argv[1]), DISK, segment_bytes=20_000) as list_:
    print(list_.flushed, flush=True)
    for line in sys.stdin:
        frames = add(list_, [int(size) for size in line.split()])
        print(list_.flush(), frames[-1].link.hash.hex(), flush=True)
"""


class Appender:
    """A process that has a list, appends what it is told to, and says what is flushed."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(folder)],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self.flushed = int(self.line())

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def tell(self, sizes: str) -> None:
        assert self._process.stdin is not None
        print(sizes, file=self._process.stdin, flush=True)

    def kill(self) -> str:
        """End it at once; what it had still said."""
        self._process.send_signal(signal.SIGKILL)
        return self._process.communicate()[0]


def test_a_list_on_a_disk(tmp_path: Path) -> None:
    made = []
    begun(tmp_path, DISK).close()
    for _ in range(3):
        with opened(tmp_path, DISK, segment_bytes=2000) as list_:
            assert hashes(list_) == made
            made += [frame.link.hash for frame in add(list_, [3, 0, 20, 1])]
            assert list_.flush() == len(made)
            assert list_.find(2).header.hash == made[1]
            assert list_.room() > 0
    assert {path.suffix for path in tmp_path.iterdir()} == {".segment", ""}
    assert len(list(tmp_path.glob("*.segment"))) > 3


def test_a_torn_end_on_a_disk(tmp_path: Path) -> None:
    with begun(tmp_path, DISK) as list_:
        add(list_, [3, 1])
    path = tmp_path / segment_name(1)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 9)
    (tmp_path / f"{segment_name(1)}.tmp").write_bytes(b"half")
    with opened(tmp_path, DISK) as list_:
        assert list_.last.seq == 1
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".cut", ".segment", ""]


def test_a_second_process_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    begin(tmp_path)
    appender = Appender(tmp_path)
    with pytest.raises(FolderInUse, match=f"in use by process {appender.pid};") as refused:
        List.open(tmp_path, IDENTITY)
    assert refused.value.pid == appender.pid
    # Nor does it help to remove the file that says who has it.
    (tmp_path / HOLDER).unlink()
    with pytest.raises(FolderInUse, match=r"process \?"):
        List.open(tmp_path, IDENTITY)
    appender.kill()
    with opened(tmp_path, DISK) as list_:
        assert (tmp_path / HOLDER).read_text() == f"{os.getpid()}\n"
        with pytest.raises(FolderInUse):
            List.open(tmp_path, IDENTITY)
        assert list_.last.seq == 0


def test_what_a_killed_process_has_flushed_is_there(tmp_path: Path) -> None:
    begin(tmp_path)
    said = []
    for round_ in range(4):
        appender = Appender(tmp_path)
        assert appender.flushed >= len(said)
        # What was appended and not told of is in the list now, and its hash is not known here.
        said += [""] * (appender.flushed - len(said))
        for _ in range(40):
            appender.tell("30 0 200")
        lines = [appender.line() for _ in range(5 + 7 * round_)]
        lines += [line for line in appender.kill().splitlines(keepends=True) if "\n" in line]
        for line in lines:
            flushed, digest = line.split()
            said += [""] * (int(flushed) - len(said) - 1) + [digest]
    with opened(tmp_path, DISK) as list_:
        found = [digest.hex() for digest in hashes(list_)]
        assert len(found) >= len(said)
        told = [(n, digest) for n, digest in enumerate(said) if digest]
        assert len(told) >= 5 + 12 + 19 + 26
        assert [found[n] for n, _ in told] == [digest for _, digest in told]


def test_another_process_is_read_up_to_what_it_says(tmp_path: Path) -> None:
    begin(tmp_path)
    appender = Appender(tmp_path)
    reader, seen = Reader(tmp_path, IDENTITY), 0
    for _ in range(30):
        appender.tell("40 0 90")
        flushed, digest = appender.line().split()
        frames = list(reader.read(seen + 1, until=int(flushed)))
        assert [frame.header.seq for frame in frames] == list(range(seen + 1, int(flushed) + 1))
        assert frames[-1].header.hash.hex() == digest
        seen = int(flushed)
    with pytest.raises(NotThere):
        reader.find(seen + 1)
    appender.kill()
    assert len(list(tmp_path.glob("*.segment"))) > 5


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_the_system_says_why_it_cannot_write(tmp_path: Path) -> None:
    file = DISK.open(Path("/dev/full"))
    with pytest.raises(OSError, match="No space left"):
        DISK.write(file, 0, b"x")
    DISK.close(file)
    DISK.close(DISK.create(tmp_path / "one"))
    with pytest.raises(FileExistsError):
        DISK.create(tmp_path / "one")


def test_a_read_only_folder(tmp_path: Path) -> None:
    with begun(tmp_path, DISK) as list_:
        add(list_, [1])
    (tmp_path / HOLDER).unlink()
    # A folder in the holder's place cannot be written to, whoever asks: root may do anything else.
    (tmp_path / HOLDER).mkdir()
    with pytest.raises(FileFailed, match="see to the disk, the folder and its permissions"):
        opened(tmp_path, DISK)
    (tmp_path / HOLDER).rmdir()
    opened(tmp_path, DISK).close()
