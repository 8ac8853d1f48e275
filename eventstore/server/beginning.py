"""Whose list is in a folder, and a new list where that is wanted."""

from pathlib import Path
from uuid import UUID, uuid4, uuid5

from eventstore.look import identity_of
from eventstore.segments.errors import ListError, NoList, NotThere, translated
from eventstore.segments.files import DISK
from eventstore.segments.frame import Identity
from eventstore.segments.names import HOLDER, segment_firsts
from eventstore.segments.writer import begin

# Of the names of clusters. It is part of the format: never another one.
_CLUSTERS = UUID("6b0b5b3e-2c3e-4a56-9f0e-3d6f5a1c8d42")


class OtherCluster(ListError):
    """The list in a folder is that of another cluster."""

    def __init__(self, folder: Path, found: UUID, name: str) -> None:
        super().__init__(
            f"the list in {folder} is of the cluster with uuid {found}, and that of {name!r} is "
            f"{cluster_uuid(name)}: give the name by which it was begun, or another folder"
        )


class HadList(ListError):
    """A list was to begin where there was one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"{folder} has no segment of a list, and its file {HOLDER!r} says that it had a list: "
            "none is begun in its place. Bring its files back; if it was never to be there, remove "
            "that file"
        )


class NoFrame(ListError):
    """A list was begun, and nothing was written to it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"the list in {folder} was begun, and has no frame, so nothing says of which group it "
            "is; tell the node to begin one (--begin)"
        )


def cluster_uuid(name: str) -> UUID:
    """The uuid by which frames name a cluster."""
    return uuid5(_CLUSTERS, name)


def identity_in(folder: Path, cluster: str, *, may_begin: bool) -> Identity:
    """Whose list is in a folder, which has to be of this cluster. If there is none, and it may
    begin, an empty one is made, of a group with a new uuid.

    Raises NoList, NoFrame, HadList, OtherCluster, Damaged, FolderInUse, FileFailed.
    """
    with translated(folder):
        names = DISK.names(folder)
    if segment_firsts(names):
        try:
            found = identity_of(folder)
        except NotThere:
            if not may_begin:
                raise NoFrame(folder) from None
        else:
            if found.cluster != cluster_uuid(cluster):
                raise OtherCluster(folder, found.cluster, cluster)
            return found
    elif not may_begin:
        raise NoList(folder)
    elif HOLDER in names:
        raise HadList(folder)
    begin(folder)
    return Identity(cluster_uuid(cluster), uuid4(), 0)
