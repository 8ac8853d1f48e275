"""A hand that takes prepared branches away after their group was decided: money is lost, and the
service must say so (rule R6), not take the branch for finished.

No run with it can end with the right balances. What it checks is that each loss is named.
"""

import time
from collections.abc import Callable
from contextlib import closing

from shard_client.errors import ShardError
from shard_client.records import DecisionOutcome, PreparedBranch
from tandem.chaos.faults import Hands
from tandem.chaos.oracles import Violation, check_loss
from tandem.chaos.tasks import Activity
from tandem.chaos.watchers import Prepared

PAUSE_S = 0.05
# Three looks with growing pauses, and then some.
NOTICE_S = 5.0
_CALL_TIMEOUT_S = 3.0


class Hand(Activity):
    """Rolls back one decided branch after the other, and waits for each to be named in a log."""

    def __init__(
        self,
        prepared: Prepared,
        hands: Hands,
        tell: Callable[[str], None],
        accuse: Callable[[Violation], None],
    ) -> None:
        super().__init__()
        self._prepared = prepared
        self._hands = hands
        self._tell = tell
        self._accuse = accuse
        self.losses = 0

    def _work(self) -> None:
        while not self._over.wait(PAUSE_S):
            try:
                lost = next(filter(self._lose, self._prepared.branches()), None)
            except ShardError:
                continue
            if lost:
                self._await_notice(lost)

    def _lose(self, branch: PreparedBranch) -> bool:
        """Roll a branch back if its group was committed. Raises ShardError."""
        gtrid = str(branch.gtrid)
        deadline = time.monotonic() + _CALL_TIMEOUT_S
        with closing(self._prepared.reader(branch.gtrid.home, _CALL_TIMEOUT_S)) as home:
            decided = home.read_decisions([gtrid], deadline)
        if decided.get(gtrid) is not DecisionOutcome.COMMITTED:
            return False
        with closing(self._prepared.reader(branch.shard, _CALL_TIMEOUT_S)) as shard:
            shard.finish([(gtrid, DecisionOutcome.ABORTED)], deadline)
        self.losses += 1
        self._tell(f"rolled back by hand, though decided: {gtrid} on {branch.shard}")
        return True

    def _await_notice(self, lost: PreparedBranch) -> None:
        gtrid, give_up = str(lost.gtrid), time.monotonic() + NOTICE_S
        names = self._hands.parts()["coordinator"]
        while True:
            logs = {name: self._hands.log(name) for name in names}
            found = check_loss(gtrid, lost.shard, logs)
            if not found:
                self._tell(f"the loss of {gtrid} is named in a coordinator's log")
                return
            if time.monotonic() > give_up:
                break
            time.sleep(PAUSE_S)
        for violation in found:
            self._accuse(violation)
