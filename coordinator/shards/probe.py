"""Looks after one shard: whether it is well, and when it can be used again."""

import logging
import threading
import time

from shard_client.errors import ShardError
from shard_client.node import ShardNode

log = logging.getLogger(__name__)

# How often a shard is looked at, in seconds: whether an answer of it is overdue; whether one that
# is not used can be used again.
_INTERVAL_S = 0.25
_ADMISSION_INTERVAL_S = 0.5
# A look in vain, or at one that is doubted, is not repeated at once, however often it is asked for.
_PAUSE_S = 0.1
_DOUBT_INTERVAL_S = 1.0
# How often one in use is checked for settings that were changed, in seconds.
_CHECK_INTERVAL_S = 30.0


class Probe:
    """A thread of its own for each shard, so that none waits for another."""

    def __init__(self, shard: ShardNode) -> None:
        self.shard = shard
        self._wake = threading.Event()
        self._is_stopping = False
        self._looked_at = 0.0
        self._check_at = time.monotonic() + _CHECK_INTERVAL_S
        name = f"probe-{shard.id}"
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, patience_s: float = 0.0) -> None:
        """Look no more; a look that is on its way may take so long to end."""
        self._is_stopping = True
        self._wake.set()
        if patience_s:
            self._thread.join(timeout=patience_s)

    def wake(self) -> None:
        """Look soon."""
        self._wake.set()

    def _work(self) -> None:
        while not self._is_stopping:
            is_available = self.shard.is_available
            self._wake.wait(_INTERVAL_S if is_available else _ADMISSION_INTERVAL_S)
            self._wake.clear()
            if self._is_stopping:
                return
            try:
                self._look()
            except ShardError as error:
                extra = {"event": "shard.not_admitted", "shard": self.shard.id, "code": error.code}
                log.debug("%s", error, extra=extra)
                # If it is in use still, the next look decides.
                self.shard.is_doubted = True
                time.sleep(_PAUSE_S)
            except Exception:
                extra = {"event": "shard.bug", "shard": self.shard.id}
                log.exception("the probe of a shard met a bug and goes on", extra=extra)
                time.sleep(_PAUSE_S)

    def _look(self) -> None:
        """Do what is due. Raises ShardError if the shard is not well."""
        now = time.monotonic()
        if not self.shard.is_available:
            self.shard.admit()
        elif self.shard.is_slow or self.shard.is_doubted:
            if now > self._looked_at + _DOUBT_INTERVAL_S:
                self.shard.look()
                self._looked_at = time.monotonic()
        elif now > self._check_at:
            self._check_at = now + _CHECK_INTERVAL_S
            self.shard.check_again()
