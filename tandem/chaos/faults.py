"""Disturbs the parts of a local cluster, and undoes it in the end, whatever happens."""

import os
import random
import re
import resource
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tandem.chaos.nemesis import (
    EMPTY,
    FREEZE,
    KILL,
    KILL_WORKER,
    PAUSE_MAX_S,
    PAUSE_MIN_S,
    STOP,
    TEAR,
    Deed,
    Disturbance,
    choose,
    choose_nuisance,
    points,
)
from tandem.chaos.nuisances import Nuisances
from tandem.chaos.oracles import Violation
from tandem.chaos.tasks import Task
from tandem.local import coordinators, group, mysql, processes, zookeeper
from tandem.local.cluster import LocalCluster
from tandem.local.errors import LocalError
from tandem.local.state import Kind

# How long a part may take until it is ready again, when everything that it needs is there.
COME_BACK_S = 90.0
STOP_GRACE_S = 60.0
POLL_S = 0.2
# So much of a frame is written before there is no more room: a part of its header.
_TORN_BYTES = 100
# A coordinator that has struck itself, at a fault point, is left so for up to so long.
LEFT_ALONE_MAX_S = 3.0


class PointsEnvironment(Mapping[str, str]):
    """What the coordinators of a test build are started with; see LocalCluster.

    Each start gets other chances, or a coordinator would strike itself at the same place again.
    """

    def __init__(
        self,
        chance: random.Random,
        plant: str | None,
        faults: Collection[str],
        fixed: Mapping[str, str],
    ) -> None:
        self._chance = chance
        self._plant = plant
        self._faults = faults
        self._fixed = {**fixed, "TANDEM_PLANT": plant} if plant else dict(fixed)
        self._is_calm = False

    def calm(self) -> None:
        """From now on coordinators are started without fault points; the planted bug stays."""
        self._is_calm = True

    def __getitem__(self, name: str) -> str:
        if name == "TANDEM_FAULTS" and not self._is_calm:
            return points(self._chance, self._plant, self._faults)
        return self._fixed[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._fixed
        if not self._is_calm:
            yield "TANDEM_FAULTS"

    def __len__(self) -> int:
        return len(list(iter(self)))


class Hands:
    """Kills, freezes and starts parts of a cluster by name. Threads may share it."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        environment = cluster.environment()
        self._password = environment["TANDEM_MYSQL_ADMIN_PASSWORD"]
        self._group = environment["TANDEM_CLUSTER_ID"], environment["TANDEM_EVENTSTORE_SECRET"]
        # What this process knows of processes that it has started is not for two threads.
        self._turn = threading.Lock()

    def parts(self) -> dict[Kind, list[str]]:
        """The names of the parts of each kind."""
        found: dict[Kind, list[str]] = {}
        for part in self._parts().values():
            found.setdefault(part["kind"], []).append(part["name"])
        return found

    def _parts(self) -> dict[str, dict[str, Any]]:
        with self._turn:
            return {part["name"]: part for part in self._cluster.status()["processes"]}

    def _pid(self, name: str) -> int | None:
        pid: int | None = self._parts()[name]["pid"]
        return pid

    def kill(self, name: str) -> None:
        """End it and all its processes at once."""
        if (pid := self._pid(name)) is not None:
            with self._turn:
                processes.kill(pid, processes.start_mark(pid) or "")

    def empty(self, name: str) -> None:
        """End it at once, and remove the files that it keeps."""
        self.kill(name)
        shutil.rmtree(self._cluster.data_dir / name, ignore_errors=True)

    def stop(self, name: str) -> None:
        """Ask it to end, and wait until it has."""
        pid = self._pid(name)
        if pid is None:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        self._await_end(name, pid)

    def tear(self, name: str) -> None:
        """Let a node's next frame be written in part, as on a disk that is full, and wait until it
        has ended for that.
        """
        pid = self._pid(name)
        if pid is None:
            return
        segments = sorted((self._cluster.data_dir / name).glob("*.segment"))
        size = segments[-1].stat().st_size + _TORN_BYTES
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, size))
        self._await_end(name, pid)

    def _await_end(self, name: str, pid: int) -> None:
        """Wait until a process has ended; one that does not is killed."""
        give_up = time.monotonic() + STOP_GRACE_S
        while self._pid(name) == pid:
            if time.monotonic() > give_up:
                self.kill(name)
            time.sleep(POLL_S)

    def freeze(self, name: str) -> None:
        """Stop all its processes where they are."""
        self._signal(name, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        self._signal(name, signal.SIGCONT)

    def _signal(self, name: str, number: int) -> None:
        if (pid := self._pid(name)) is not None:
            # It leads a session and a group of its own; see processes.spawn.
            with suppress(ProcessLookupError):
                os.killpg(pid, number)

    def is_frozen(self, name: str) -> bool:
        pid = self._pid(name)
        return pid is not None and (_stat(pid) or "?")[0] == "T"

    def kill_worker(self, name: str, chance: random.Random) -> None:
        """End one of a coordinator's worker processes, if it has one now."""
        pid = self._pid(name)
        if pid is not None and (workers := _children(pid)):
            os.kill(chance.choice(workers), signal.SIGKILL)

    def start(self, name: str) -> None:
        """Start it if it does not run, without waiting for more. Raises LocalError."""
        with self._turn:
            self._cluster.start(name, wait=False)

    def log(self, name: str) -> str:
        """What a part has said so far."""
        return self._cluster.log(name).read_text(errors="replace")

    def has_ended(self) -> dict[str, int]:
        """Name and process id of each part that does not run any more."""
        with self._turn:
            return self._cluster.crashed()

    def is_running(self, name: str) -> bool:
        return bool(self._parts()[name]["running"])

    def not_ready(self, name: str) -> str | None:
        """Why a part cannot be used; None if it can."""
        part = self._parts()[name]
        if not part["running"]:
            return "it does not run"
        if part["kind"] == "coordinator":
            return coordinators.is_ready(part["port"])
        if part["kind"] == "zookeeper":
            return zookeeper.is_ready(part["port"])
        if part["kind"] in ("node", "reads"):
            return group.is_ready(part["port"], *self._group)
        return mysql.is_ready(part["port"], self._password)


def strikes(log: str) -> Counter[str]:
    """What a coordinator of the test build says in its log of the points that have struck."""
    found = re.findall(r"\bfault at ([a-z-]+)(?:@\S+)?: ([a-z-]+)", log)
    return Counter(f"{mode} at {point}" for point, mode in found)


def _children(pid: int) -> list[int]:
    """The child processes of a process; none where there is no /proc."""
    stats = ((int(e.name), _stat(int(e.name))) for e in Path("/proc").glob("[0-9]*"))
    return [child for child, fields in stats if fields and fields[1] == str(pid)]


def _stat(pid: int) -> list[str] | None:
    """What /proc tells of a process, from its state on."""
    try:
        # The name, in parentheses, may hold spaces.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


class Nemesis:
    """Disturbs a cluster at random between `start` and `heal`.

    Each disturbance has a thread of its own, so that nothing slow stops the rest; its part is left
    alone until it is ready again.
    """

    def __init__(
        self,
        hands: Hands,
        deeds: Sequence[Deed],
        chance: random.Random,
        *,
        nuisances: Nuisances,
        lesser: Sequence[Deed],
        has_points: bool,
        tell: Callable[[str], None],
        accuse: Callable[[Violation], None],
    ) -> None:
        """`lesser` deeds are those of `nuisances`. `has_points`: coordinators may strike
        themselves, so their ends accuse nobody.
        """
        self._hands = hands
        self._deeds = deeds
        self._nuisances = nuisances
        self._lesser = lesser
        self._lasting: list[Disturbance] = []
        self._chance = chance
        self._has_points = has_points
        self._tell = tell
        self._accuse = accuse
        self._parts = hands.parts()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._away: set[str] = set()
        self._tasks: list[Task] = []
        self._errors: list[Exception] = []
        self.tried: Counter[str] = Counter()

    @property
    def coordinators(self) -> list[str]:
        return self._parts["coordinator"]

    def start(self) -> None:
        self._spawn(self._strike)
        self._spawn(self._annoy)
        self._spawn(self._watch)

    def rest(self) -> None:
        """Begin nothing more, and wait until everything that was begun is undone."""
        self._over.set()
        while self._tasks:
            try:
                self._tasks.pop().join()
            except Exception as error:
                # First everything is undone.
                self._errors.append(error)

    def heal(self, killed: Sequence[str] = ()) -> None:
        """After `rest`: whatever else may be away is brought back; wait until all is ready.

        `killed` are killed first: what they were started with is to end. Raises what went wrong in
        the nemesis itself, if something did.
        """
        for name in killed:
            self._hands.kill(name)
            self.tried += strikes(self._hands.log(name))
        names = [name for some in self._parts.values() for name in some]
        for name in names:
            self._hands.thaw(name)
        for name in names:
            self._start(name)
        for name in names:
            self._await_ready(name)
        if self._errors:
            raise self._errors[0]

    def _spawn(self, work: Callable[..., None], *arguments: Any) -> None:
        self._tasks.append(Task(work, *arguments).start())

    def _strike(self) -> None:
        while not self._over.wait(self._chance.uniform(PAUSE_MIN_S, PAUSE_MAX_S)):
            with self._lock:
                chosen = choose(self._chance, self._deeds, self._parts, self._away)
                if chosen:
                    self._away.add(chosen.target)
            if chosen:
                self._spawn(self._disturb, chosen, random.Random(self._chance.getrandbits(64)))

    def _annoy(self) -> None:
        while not self._over.wait(self._chance.uniform(PAUSE_MIN_S, PAUSE_MAX_S)):
            with self._lock:
                chosen = choose_nuisance(self._chance, self._lesser, self._parts, self._lasting)
                if chosen:
                    self._lasting.append(chosen)
            if chosen:
                self._spawn(self._bother, chosen, random.Random(self._chance.getrandbits(64)))

    def _bother(self, chosen: Disturbance, chance: random.Random) -> None:
        """Begin a nuisance, wait, and end it."""
        how, end = self._nuisances.begin(chosen, chance)
        self._tell(f"{chosen} {how}".rstrip())
        self.tried[f"{chosen.deed.name} {_noun(chosen.deed.kind)}"] += 1
        try:
            self._over.wait(chosen.for_s)
        finally:
            end()
            with self._lock:
                self._lasting.remove(chosen)

    def _disturb(self, chosen: Disturbance, chance: random.Random) -> None:
        """Do it, wait, undo it, and let go of the part when it is ready."""
        self._tell(str(chosen))
        self.tried[f"{chosen.deed.name} {_noun(chosen.deed.kind)}"] += 1
        name = chosen.target
        do = {
            KILL: lambda: self._hands.kill(name),
            STOP: lambda: self._hands.stop(name),
            FREEZE: lambda: self._hands.freeze(name),
            KILL_WORKER: lambda: self._hands.kill_worker(name, chance),
            EMPTY: lambda: self._hands.empty(name),
            TEAR: lambda: self._hands.tear(name),
        }
        # It may have ended by itself just now.
        with suppress(ProcessLookupError):
            do[chosen.deed.name]()
        self._over.wait(chosen.for_s)
        self._bring_back(name)

    def _bring_back(self, name: str) -> None:
        self._hands.thaw(name)
        self._start(name)
        began = time.monotonic()
        if not self._over.is_set() and self._await_ready(name):
            self._tell(f"{name} is ready again, {time.monotonic() - began:.1f} s later")
        with self._lock:
            self._away.discard(name)

    def _start(self, name: str) -> None:
        try:
            self._hands.start(name)
        except LocalError as error:
            self._accuse(Violation("does-not-come-back", name, str(error)))

    def _await_ready(self, name: str) -> bool:
        """Wait until a part is ready; not for longer than the nemesis is at work."""
        give_up = time.monotonic() + COME_BACK_S
        is_at_work = not self._over.is_set()
        while (why := self._hands.not_ready(name)) is not None:
            if is_at_work and self._over.is_set():
                return False
            if time.monotonic() > give_up:
                self._accuse(Violation("does-not-come-back", name, why))
                return False
            # It may have been struck once more, by a fault point of its own.
            if not self._hands.is_running(name):
                self._start(name)
            elif self._hands.is_frozen(name):
                self._hands.thaw(name)
            time.sleep(POLL_S)
        return True

    def _watch(self) -> None:
        """Notice what strikes itself: it ends, or freezes."""
        while not self._over.wait(POLL_S):
            for name in self._hands.has_ended():
                self._revive_once(name, "has ended", lambda name: name in self._hands.has_ended())
            for name in self.coordinators if self._has_points else ():
                self._revive_once(name, "is frozen", self._hands.is_frozen)

    def _revive_once(self, name: str, what: str, is_so: Callable[[str], bool]) -> None:
        """Revive a part of which this is so, unless somebody is at work on it."""
        with self._lock:
            if name in self._away:
                return
            self._away.add(name)
        # Asked again, now that nobody else touches it.
        if is_so(name):
            self._spawn(self._revive, name, what)
        else:
            with self._lock:
                self._away.discard(name)

    def _revive(self, name: str, what: str) -> None:
        """Bring back what has struck itself."""
        self._tell(f"{name} {what} by itself")
        if not (self._has_points and name in self.coordinators):
            self._accuse(Violation("ended-by-itself", name, "see its log"))
        with self._lock:
            pause = self._chance.uniform(0, LEFT_ALONE_MAX_S)
        self._over.wait(pause)
        self._bring_back(name)


def _noun(kind: Kind) -> str:
    words = {"mysql": "shard", "reads": "read side", "zookeeper": "ZooKeeper"}
    return words.get(kind, kind)
