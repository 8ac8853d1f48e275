"""What handlers get and give."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, NamedTuple

import msgspec

from eventstore.node import errors as node
from eventstore.rows import Commands
from eventstore.wire import errors as wire
from eventstore.wire.answers import Answer
from eventstore.wire.failures import Failed, FailureKind
from eventstore.wire.questions import Known


class NoRequest(Exception):
    """What was asked is not what it says that it is: the client's mistake."""


class Decided(NamedTuple):
    """What became of commands, and, for each whose id was known before, its index and what was
    decided then.
    """

    answer: Answer
    firsts: Iterable[tuple[int, Known]] = ()


class Asker(NamedTuple):
    """Whoever asks a question. `push` sends a struct any time after the reply, and never blocks;
    `after_reply` has something done when the reply is on its way, and `at_end` when the connection
    has ended: at once, if it has.
    """

    push: Callable[[msgspec.Struct], None]
    after_reply: Callable[[Callable[[], None]], None]
    at_end: Callable[[Callable[[], None]], None]


class Handlers(NamedTuple):
    """What a server answers with. They are called by threads of connections, several at once, and
    are to be quick, or give a future. Whatever they, or futures, raise goes to the client.

    `question` is called with values of the type `questions`, and gives a struct or the future of
    one. Of `commands` a server has none whose process takes none.
    """

    questions: Any
    question: Callable[[Any, Asker], "msgspec.Struct | Future[Any]"]
    commands: Callable[[Commands, bytes], "Future[Decided]"] | None = None


def failed(error: BaseException) -> Failed | None:
    """What the client is told of an error; None for one that nobody has thought of."""
    for kind, name in _KINDS.items():
        if isinstance(error, kind):
            return Failed(name, str(error))
    return None


# The first that fits.
_KINDS: dict[type[Exception], FailureKind] = {
    node.Busy: FailureKind.BUSY,
    node.NotTaken: FailureKind.NOT_TAKEN,
    node.NodeError: FailureKind.UNKNOWN,
    wire.Busy: FailureKind.BUSY,
    wire.NotTaken: FailureKind.NOT_TAKEN,
    wire.NotYet: FailureKind.NOT_YET,
    wire.CannotAnswer: FailureKind.CANNOT_ANSWER,
    NoRequest: FailureKind.NO_REQUEST,
}
