"""When a new snapshot is worth its cost: a decision without I/O."""

from typing import NamedTuple


class Policy(NamedTuple):
    """A snapshot saves a start the replay of what has come since the last one, and costs the
    writing of all that there is.

    It is due when at least `commands` would have to be replayed (some seconds of it), and no fewer
    than a `share`th of what is to be written (to write an account or an id takes about that part of
    the time in which a command is replayed: more than half of the time is never spent on writing);
    and not before `seconds`, in which the disk has its rest. A frame counts as `frame` commands,
    besides those that are in it.
    """

    commands: int = 2_000_000
    share: int = 4
    seconds: float = 60.0
    frame: int = 100

    def is_due(
        self,
        commands_since: int,
        accounts: int,
        seconds_since: float,
        *,
        frames_since: int = 0,
        transfers: int = 0,
    ) -> bool:
        """Whether to make one: so much has come, and so many seconds have passed, since the last
        one (or since the first frame, and the start). `accounts` and `transfers` are how many
        there are: see `Machine.sizes`.
        """
        work = commands_since + frames_since * self.frame
        worth = max(self.commands, (accounts + transfers) // self.share)
        return commands_since > 0 and seconds_since >= self.seconds and work >= worth
