"""How a frame follows on the one before: rule E1; pure."""

from typing import NamedTuple

from eventstore.segments.errors import Damaged, OtherList, Where
from eventstore.segments.frame import Draft, Header, Identity, encode
from ledger.errors import Bug


class Link(NamedTuple):
    """What the next frame has to follow on: a frame's number, epoch, time and hash."""

    seq: int
    epoch: int
    time_us: int
    hash: bytes


# What the first frame of a list follows on.
GENESIS = Link(0, 0, 0, bytes(32))


class Sealed(NamedTuple):
    """A frame as it stands in the list: its link, and its bytes."""

    link: Link
    data: bytes


def seal(draft: Draft, identity: Identity, before: Link, flushed: int) -> Sealed:
    """The frame of a draft. Raises Bug if it does not follow on the link before it."""
    data, digest = encode(draft, identity, flushed, before.hash)
    wrong = _misfit(before, draft.seq, draft.epoch, draft.time_us, flushed)
    if wrong:
        what, found, expected = wrong
        raise Bug(f"frame {draft.seq} cannot be appended: {what} is {found}, not {expected}")
    return Sealed(Link(draft.seq, draft.epoch, draft.time_us, digest), data)


def follow(before: Link, header: Header, identity: Identity, where: Where) -> Link:
    """The link of a frame that was read. Raises Damaged, or OtherList, if it does not follow."""
    check_list(header, identity, where)
    wrong = _misfit(before, header.seq, header.epoch, header.time_us, header.flushed)
    if wrong:
        raise Damaged(where.file, where.offset, *wrong)
    where.demand("hash of the frame before", header.previous.hex(), before.hash.hex())
    return link_of(header)


def link_of(header: Header) -> Link:
    """What the frame behind this one has to follow on."""
    return Link(header.seq, header.epoch, header.time_us, header.hash)


def check_list(header: Header, identity: Identity, where: Where) -> None:
    """Raise OtherList if a frame is of another list."""
    if header.identity != identity:
        raise OtherList(*where, "list", _name(header.identity), _name(identity))


def _misfit(
    before: Link, seq: int, epoch: int, time_us: int, flushed: int
) -> tuple[str, object, object] | None:
    """What does not fit: a name, how it is, and how it should be."""
    if seq != before.seq + 1:
        return "seq", seq, before.seq + 1
    if epoch < before.epoch:
        return "epoch", epoch, f"at least {before.epoch}"
    if time_us <= before.time_us:
        return "time", time_us, f"more than {before.time_us}"
    if flushed >= seq:
        return "flushed", flushed, f"less than {seq}"
    return None


def _name(identity: Identity) -> str:
    cluster, group, branch = identity
    return f"cluster {cluster}, group {group}, branch {branch}"
