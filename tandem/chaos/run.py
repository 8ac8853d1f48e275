"""Puts a run together: set up, disturb under load, heal, look at everything, say what was found."""

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import cycle
from typing import Any, NamedTuple

from coordinator.auditing.audit import audit
from coordinator.cluster import read_map
from coordinator.settings import Settings, load
from shard_client.shard_map import ShardKind
from tandem.chaos import nemesis
from tandem.chaos.faults import Hands, Nemesis, PointsEnvironment
from tandem.chaos.final import Bank, Final
from tandem.chaos.history import Attempt, History, Order, Told, longest_gap_s
from tandem.chaos.hostile import Attacker
from tandem.chaos.lines import Lines
from tandem.chaos.losses import Hand
from tandem.chaos.nuisances import Nuisances
from tandem.chaos.oracles import Violation, check_attempt
from tandem.chaos.report import Result, Screen, seconds_text, state_line
from tandem.chaos.watchers import LOOK_TIMEOUT_S, Prepared, Watchers
from tandem.chaos.workload import CURRENCY, FUNDS, Load, Teller, Wire, account_names
from tandem.local.cluster import LocalCluster
from tandem.local.servers import Engine

SETUP_PATIENCE_S = 30.0
SETUP_PAUSE_S = 0.5
# What must follow from a loss, and is no news beside it.
CONSEQUENCES = ("total-changed", "acknowledged-is-lost", "answer-changed")


class SetupFailed(Exception):
    """The bank could not be set up; nothing was disturbed."""


class Plan(NamedTuple):
    """What a run is to do. The same plan makes the same choices, as far as time allows."""

    seed: int
    seconds: float
    clients: int
    accounts: int
    # Words of nemesis.FAULTS.
    faults: frozenset[str]
    # Names of accounts and keys begin with it: never used before at this service.
    name: str
    # The command line that does it again.
    again: str
    # With a planted bug: the first violation ends the run, there is no more to see.
    ends_when_found: bool = False
    # By which the clients' transfers run, at random.
    protocols: Sequence[str] = ("xa",)
    engine: Engine = "mysql"


@dataclass(frozen=True)
class Target:
    """What a run works on. Without `local` only addresses are known, and nothing is killed."""

    urls: Sequence[str]
    local: LocalCluster | None = None
    # With fault points: what coordinators of `local` are started with.
    points: PointsEnvironment | None = None
    # By which coordinators reach the shards of `local`.
    lines: Lines | None = None

    @property
    def settings(self) -> Settings | None:
        return load(environ={}, defaults=self.local.environment()) if self.local else None


class Run:
    """One run; `result` says what it has come to."""

    def __init__(self, plan: Plan, target: Target, screen: Screen, clock: Callable[[], float]):
        self._plan = plan
        self._target = target
        self._screen = screen
        self._clock = clock
        self._chance = random.Random(plan.seed)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._violations: list[Violation] = []
        self._measured: dict[str, str] = {}
        self._tried: Mapping[str, int] = {}
        self._history = History(self._on_attempt)
        self._wire = Wire(plan.clients + 2)
        self._watching_wire = Wire(len(target.urls) + 1, LOOK_TIMEOUT_S)
        self._teller = Teller(self._wire, self._history, clock)
        settings = target.settings
        self._settings = settings
        self._prepared = Prepared(settings) if settings else None

    def result(self) -> Result:
        """Do it all. Raises SetupFailed, and LocalError if a part cannot be started at all."""
        with closing(self._wire), closing(self._watching_wire):
            bank = self._set_up()
            answers = self._disturb(bank)
            if not self._is_done:
                self._look_at_everything(bank)
        plan = self._plan
        return Result(
            plan.seed,
            plan.seconds,
            plan.again,
            self._tried,
            answers,
            self._measured,
            self._violations,
            "every loss was named" if self._has_losses else "every answer was true",
        )

    @property
    def _is_done(self) -> bool:
        """Whether further looks would tell nothing: they are sure to find what is known."""
        was_found = self._plan.ends_when_found and bool(self._violations)
        return was_found or self._has_losses

    @property
    def _has_losses(self) -> bool:
        return nemesis.LOSSES in self._plan.faults

    def _on_attempt(self, earlier: Sequence[Attempt], new: Attempt) -> None:
        for violation in check_attempt(earlier, new):
            self._accuse(violation)

    def _accuse(self, violation: Violation) -> None:
        if self._has_losses and violation.way in CONSEQUENCES:
            return
        with self._lock:
            self._violations.append(violation)
        if self._plan.ends_when_found:
            self._over.set()
        self._screen.accuse(violation)

    def _random(self) -> random.Random:
        """Chances of its own for a part of the run."""
        return random.Random(self._chance.getrandbits(64))

    # --- set up -------------------------------------------------------------------------------

    def _set_up(self) -> Bank:
        plan = self._plan
        names = account_names(plan.name, plan.accounts)
        issuer = f"{plan.name}-issuer"
        terms: list[dict[str, Any]] = [{"id": name, "currency": CURRENCY} for name in names]
        terms.append({"id": issuer, "currency": CURRENCY, "overdraft_limit": None})
        self._insist("/v1/accounts/batch", {"accounts": terms}, {"created", "exists"})
        funding = [Order(f"fund-{name}", issuer, name, FUNDS, CURRENCY) for name in names]
        items = {"transfers": [order.item for order in funding]}
        self._insist("/v1/transfers/batch", items, {"committed"})
        total = FUNDS * len(names)
        self._screen.tell(f"{len(names)} accounts hold {total} {CURRENCY} cents in all")
        return Bank(names, issuer, total, funding)

    def _insist(self, path: str, body: object, wanted: set[str]) -> None:
        give_up = time.monotonic() + SETUP_PATIENCE_S
        urls = cycle(self._target.urls)
        while True:
            url = next(urls)
            reply = self._wire.send("POST", f"{url}{path}", body)
            results = reply.body["results"] if reply.status == 200 else []
            if results and {result["status"] for result in results} <= wanted:
                return
            if time.monotonic() > give_up:
                raise SetupFailed(f"{path} at {url}: {reply.label} {reply.body}")
            time.sleep(SETUP_PAUSE_S)

    # --- under load ---------------------------------------------------------------------------

    def _disturb(self, bank: Bank) -> dict[str, int]:
        """Load and faults together; gives what clients saw."""
        plan, urls, accounts = self._plan, self._target.urls, bank.accounts
        clients = Load(
            plan.clients,
            plan.name,
            self._teller,
            urls,
            accounts,
            self._random(),
            plan.protocols,
        )
        watchers = Watchers(
            self._watching_wire,
            urls,
            accounts,
            bank.total,
            self._prepared,
            self._random(),
            self._accuse,
        )
        disturber = self._nemesis()
        attacker = self._attacker(accounts)
        began = self._clock()
        try:
            watchers.start()
            clients.start()
            if attacker:
                attacker.start()
            if disturber:
                disturber.start()
            with self._screen.state(lambda: self._state(began, watchers)):
                self._wait()
        finally:
            ended = self._clock()
            clients.end()
            self._screen.tell("healing: everything is undone, the clients come to their ends")
            try:
                self._heal(disturber)
            finally:
                clients.join()
                watchers.stop()
                if attacker:
                    attacker.stop()
                    self._tried = {**self._tried, **attacker.sent}
        self._measure(watchers, began, ended)
        return dict(self._history.answers)

    def _state(self, began: float, watchers: Watchers) -> str:
        """The state of things in one line."""
        return state_line(
            dict(self._history.answers),
            self._history.outcomes[Told.COMMITTED],
            self._clock() - began,
            watchers.in_doubt_most,
            len(self._violations),
        )

    def _wait(self) -> None:
        """As long as the plan says, or until there is nothing more to see."""
        hand = self._hand()
        if hand:
            hand.start()
        self._over.wait(self._plan.seconds)
        if hand:
            hand.stop()
            self._measured["branches taken away by hand"] = f"{hand.losses}"

    def _nemesis(self) -> Nemesis | None:
        plan, target = self._plan, self._target
        deeds, lesser = nemesis.deeds_of(plan.faults), nemesis.nuisances_of(plan.faults)
        has_points = target.points is not None
        if target.local is None or not (deeds or lesser or has_points):
            return None
        return Nemesis(
            Hands(target.local),
            deeds,
            self._random(),
            nuisances=Nuisances(target.local, target.lines, plan.engine),
            lesser=lesser,
            has_points=has_points,
            tell=self._screen.tell,
            accuse=self._accuse,
        )

    def _attacker(self, accounts: Sequence[str]) -> Attacker | None:
        if nemesis.REQUESTS not in self._plan.faults:
            return None
        return Attacker(self._target.urls, accounts, self._random(), self._accuse)

    def _hand(self) -> Hand | None:
        local = self._target.local
        if not (self._has_losses and local and self._prepared):
            return None
        return Hand(self._prepared, Hands(local), self._screen.tell, self._accuse)

    def _heal(self, disturber: Nemesis | None) -> None:
        if disturber is None:
            return
        disturber.rest()
        killed: Sequence[str] = ()
        if self._target.points:
            self._target.points.calm()
            killed = disturber.coordinators
        disturber.heal(killed)
        self._tried = dict(disturber.tried)

    def _measure(self, watchers: Watchers, began: float, ended: float) -> None:
        committed = self._history.committed_at
        gap_s = longest_gap_s(committed, began, ended)
        self._measured |= {
            "transfers asked for": f"{len(self._history):,}",
            "committed": f"{self._history.outcomes[Told.COMMITTED]:,}",
            "refused": f"{self._history.outcomes[Told.REJECTED]:,}",
            "committed in a second": f"{len(committed) / max(ended - began, 0.001):.0f}",
            "longest time without a committed transfer": seconds_text(gap_s),
            "snapshots read": f"{watchers.reads:,}",
            "in-doubt views compared with the shards": f"{watchers.views:,}",
            "in doubt at once, at most": f"{watchers.in_doubt_most:,}",
        }

    # --- the last looks -----------------------------------------------------------------------

    def _look_at_everything(self, bank: Bank) -> None:
        Final(
            bank,
            self._target.urls,
            self._wire,
            self._history,
            self._teller,
            self._prepared,
            self._random(),
            self._screen.tell,
            self._accuse,
        ).run()
        if self._settings:
            self._audit(self._settings)
            self._replay(self._settings)

    def _replay(self, settings: Settings) -> None:
        """The lists of ledger groups, which are in a folder here."""
        shards = read_map(settings).shards.items()
        groups = {name: where for name, where in shards if where.kind is ShardKind.LEDGER}
        local = self._target.local
        if not groups or local is None:
            return
        # Takes an extra that other clusters do without.
        from tandem.chaos.lists import look

        for name, where in groups.items():
            self._screen.tell(f"replaying the list of {name}")
            found = look(settings, name, where, local.data_dir / name)
            self._measured[f"replayed of {name}"] = (
                f"{found.commands:,} commands in {found.frames:,} frames"
            )
            for violation in found.violations:
                self._accuse(violation)

    def _audit(self, settings: Settings) -> None:
        self._screen.tell("auditing the shards")
        found = audit(settings, lambda text: None)
        self._measured["transfers audited"] = f"{found.summary.get('transfers', 0):,}"
        for rule, shard, subject, detail in found.violations:
            where = f"{shard or 'all shards'}: {detail}"
            self._accuse(Violation(f"audit: {rule}", subject, where))
