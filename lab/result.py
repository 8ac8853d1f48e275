"""What a run has come to, as values; what --json writes is made of them."""

import msgspec


class Deal(msgspec.Struct, frozen=True):
    """One transfer that a client wanted. Times are seconds since the load began."""

    id: str
    source: str
    destination: str
    amount: int
    began: float
    # When the client had its clear answer, however often it had to send.
    ended: float
    # "committed", "rejected", or "unanswered": no clear answer to the end.
    outcome: str
    tries: int
    # How many answers left open whether the transfer had happened.
    unclear: int


class Disturbed(msgspec.Struct, frozen=True):
    """A fault as it was carried out."""

    kind: str
    part: str
    began: float
    # When the part was usable again.
    ended: float


class Spread(msgspec.Struct, frozen=True):
    """How long something took, in seconds."""

    p50: float
    p95: float
    p99: float
    longest: float
    count: int


class Seen(msgspec.Struct, frozen=True):
    """What a reader saw of the sum of all balances."""

    reads: int
    # Reads that a shard or coordinator did not answer.
    unanswered: int
    # The share of the time in which the sum was not right.
    wrong_share: float
    # The longest time from a wrong sum to the next right one.
    longest_s: float
    # The most that was missing, and the most that was there too much, in one read.
    missing_most: int
    extra_most: int
    # Since when the sum has never been right again; None: the last one was right.
    wrong_since_s: float | None


class Verdict(msgspec.Struct, frozen=True):
    """What the books say in the end, against what the clients were told."""

    before: int
    after: int
    # Accounts whose balance is not what the answers add up to, and by how much in all.
    accounts_wrong: int
    too_much: int
    too_little: int
    # Transfers, where the service keeps a record of them; None where it does not.
    missing: int | None = None
    doubled: int | None = None
    torn: int | None = None
    unasked: int | None = None

    @property
    def lost(self) -> int:
        """Money that is gone; below zero: that came from nowhere."""
        return self.before - self.after

    @property
    def is_right(self) -> bool:
        """Whether every cent is where the answers say."""
        counts = (self.missing, self.doubled, self.torn, self.unasked)
        return not (self.lost or self.accounts_wrong or any(counts))


class Outcome(msgspec.Struct, frozen=True):
    """What one way has come to."""

    way: str
    title: str
    versions: dict[str, str]
    asked: int
    committed: int
    rejected: int
    unanswered: int
    # Transfers whose client had to send more than once.
    resent: int
    rate: float
    # The longest time without a transfer that was answered as committed.
    gap_s: float
    latency: Spread
    # How long a shard's locks were held for a transfer or its group; None: the way has no locks.
    locks: Spread | None
    plain: Seen
    # What the service's own read of all balances at one moment saw; None: it has none.
    service: Seen | None
    faults: list[Disturbed]
    verdict: Verdict
    # After the faults: until nothing was unfinished any more.
    settled_s: float
    # What the audit of all shards has found wrong; None: the way has none.
    violations: list[str] | None
    answers: dict[str, int]
    # For plots: (second, transfers in a second), (latency, share of transfers), (second, off).
    rates: list[tuple[float, float]]
    latencies: list[tuple[float, float]]
    sums: list[tuple[float, int]]

    @property
    def is_right(self) -> bool:
        return self.verdict.is_right and not self.violations


class Machine(msgspec.Struct, frozen=True):
    """Where it was measured."""

    cores: int
    memory_gib: float
    cpu: str
    # Before anything was started: what else the machine was doing.
    load_average: float
    python: str
    tandem: str


class Comparison(msgspec.Struct, frozen=True):
    """All of it."""

    seed: int
    seconds: float
    clients: int
    accounts: int
    each: int
    # When, in UTC, and the command line that does it again.
    at: str
    again: str
    machine: Machine
    outcomes: list[Outcome]
