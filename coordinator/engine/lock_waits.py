"""Accounts that were found locked too often, and when each is tried again (rule R9). Pure.

One is waited for at a time, by somebody who holds nothing else meanwhile; the ones that were waited
for least come first. While one is waited for, the others are tried now and then as any account is.
Those who want an account that is kept here need not be looked at.
"""

from collections.abc import Iterator

# The pause before an account is tried again, in seconds; it doubles each time. Whoever holds a lock
# when a wait for it times out holds it for long.
_PAUSE_MIN_S = 0.1
_PAUSE_MAX_S = 1.0
# So long is remembered that an account was locked, when nobody wants it any more.
_REMEMBER_S = 5.0


class _LockWait:
    """An account that is waited for."""

    __slots__ = ("is_kept", "next_at", "pauses", "timeouts")

    def __init__(self) -> None:
        # Nobody but who waits for it may try it.
        self.is_kept = True
        # How often it was waited for until the time was out, and how often it was left alone.
        self.timeouts = 0
        self.pauses = 0
        self.next_at = 0.0


class LockWaits:
    """See the module. Times are those of the monotonic clock."""

    def __init__(self) -> None:
        self._waits: dict[str, _LockWait] = {}
        # The one that is waited for now.
        self.awaited: str | None = None

    def __len__(self) -> int:
        return len(self._waits)

    def keeps(self, account: str) -> bool:
        """Whether only who waits for it may try it."""
        wait = self._waits.get(account)
        return wait is not None and wait.is_kept

    def stuck(self) -> Iterator[str]:
        """Those whose waits have timed out."""
        return (account for account, wait in self._waits.items() if wait.timeouts)

    def kept(self) -> set[str]:
        """Those that only who waits for them may try."""
        return {account for account, wait in self._waits.items() if wait.is_kept}

    def tried(self) -> set[str]:
        """Those that are tried as any account is."""
        return self._waits.keys() - self.kept()

    def keep(self, account: str, now: float) -> None:
        """It was found locked too often, or once more."""
        wait = self._waits.get(account)
        if wait is None:
            self._waits[account] = wait = _LockWait()
            wait.next_at = now
        elif not wait.is_kept:
            wait.is_kept = True
            self._pause(wait, now)

    def timed_out(self, account: str, now: float) -> None:
        """It was waited for, and is locked still."""
        wait = self._waits[account]
        wait.timeouts += 1
        self._pause(wait, now)
        self.awaited = None

    def drop(self, account: str) -> None:
        """It could be locked, or nobody can tell any more."""
        self._waits.pop(account, None)
        if self.awaited == account:
            self.awaited = None

    def next(self, now: float, wanted: dict[str, int]) -> str | None:
        """The one to be waited for now. `wanted` has how many want each; one that nobody wants
        is waited for once, to see whether it is locked.
        """
        if self.awaited is not None:
            return None
        due = (
            account
            for account, wait in self._waits.items()
            if wait.is_kept and wait.next_at <= now and (wanted.get(account) or not wait.timeouts)
        )
        waits = self._waits
        return min(due, key=lambda name: (waits[name].timeouts, waits[name].next_at), default=None)

    def tries(self, now: float, wanted: dict[str, int]) -> list[str]:
        """Those that are tried as any account is, while another one is waited for."""
        if self.awaited is None:
            return []
        found = [
            account
            for account, wait in self._waits.items()
            if wait.is_kept
            and account != self.awaited
            and wait.next_at <= now
            and wanted.get(account)
        ]
        for account in found:
            self._waits[account].is_kept = False
        return found

    def forgotten(self, now: float, wanted: dict[str, int]) -> list[str]:
        """Those that nobody has wanted for a while."""
        return [
            account
            for account, wait in self._waits.items()
            if wait.next_at + _REMEMBER_S <= now
            and account != self.awaited
            and not wanted.get(account)
        ]

    def next_at(self, wanted: dict[str, int]) -> float | None:
        """When the next one that somebody wants is to be tried as any other; None while none is
        waited for, since then it is waited for in its turn.
        """
        if self.awaited is None:
            return None
        due = (
            wait.next_at
            for name, wait in self._waits.items()
            if wait.is_kept and name != self.awaited and wanted.get(name)
        )
        return min(due, default=None)

    def _pause(self, wait: _LockWait, now: float) -> None:
        pause = min(_PAUSE_MIN_S * 2.0 ** min(wait.pauses, 10), _PAUSE_MAX_S)
        wait.pauses += 1
        wait.next_at = now + pause
