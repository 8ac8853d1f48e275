"""What the traces have in common: two shards that obey packets, and the lines that tell of them."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pymysql.converters import escape_item

from coordinator.engine.tickets import Latch, Ticket
from coordinator.protocols.recovery import RecoveryView, recovery_duty
from ledger.chain import first_link
from ledger.ids import SLOT_COUNT, transfer_id
from ledger.model import Account, Status, Transfer
from shard_client.branch import Locked, Writes
from shard_client.connection import Result
from shard_client.errors import TimedOut
from shard_client.phases import Found, LocalWrites, PhaseRow, StepRow
from shard_client.transfers import StoredTransfer
from shard_client.xid import FORMAT_ID, Gtrid

NOW = 1_000_000
GRACE_US = 2_000_000
SOURCE, DESTINATION, AMOUNT, FUNDS = "alice", "bob", 40, 100
SHARDS = {SOURCE: "s1", DESTINATION: "s2"}
# The group is formed by c1; its home is the source's shard.
FIRST, OTHER = "c1", "c2"
GTRID = Gtrid("tandem", SHARDS[SOURCE], FIRST, NOW // 1000, 1 << 32)


def transfer_by(protocol: str, amount: int = AMOUNT) -> Transfer:
    key = transfer_id(SOURCE, "key")
    return Transfer(key, "key", SOURCE, DESTINATION, amount, "EUR", None, protocol, NOW)


def ticket_of(transfer: Transfer) -> Ticket:
    ticket = Ticket(transfer, 0.0, Latch(1), None)
    ticket.shards = (SHARDS[transfer.source], SHARDS[transfer.destination])
    return ticket


def account_of(name: str, balance: int, status: Status = Status.OPEN) -> Account:
    return Account(name, "EUR", balance, 0, status.value, 0, NOW, first_link(name, "EUR"))


def two_shards(status: Status = Status.OPEN) -> dict[str, "Shard"]:
    """The source's shard and the destination's, whose account has this status."""
    accounts = (account_of(SOURCE, FUNDS), account_of(DESTINATION, 0, status))
    return {SHARDS[account.id]: Shard(SHARDS[account.id], account) for account in accounts}


class Tables(NamedTuple):
    """What stands on a shard: its account, and the rows of the other tables that concern the
    transfer, by the names of these tables.
    """

    account: Account
    rows: Mapping[str, Any]

    def __str__(self) -> str:
        account = self.account
        parts = [f"{account.id} {account.balance}"]
        parts += [f"{account.held} held"] if account.held else []
        parts += [f"{account.expected} expected"] if account.expected else []
        parts += [account.status] if account.status != Status.OPEN else []
        parts += [f"{table} {_shown(row)}".rstrip() for table, row in self.rows.items()]
        return ", ".join(parts)


def _shown(row: Any) -> str:
    """What a row says of how far the transfer is."""
    match row:
        case StoredTransfer():
            return row.status
        case PhaseRow():
            return f"{row.phase} ({row.outcome})"
        case StepRow():
            return row.state
        case tuple():
            return " and ".join(f"{entry.amount:+}" for entry in row)
    return str(row)


def _last(rows: Sequence[Any]) -> Any:
    return rows[-1] if rows else None


class Answered:
    """In the place of a Reply: it was carried out. What was found, the trace asks the shard."""

    def get(self) -> None:
        return None


class Shard:
    """A server, in the place of a connection to it: it does what the statements of a packet say,
    as far as a trace shows it. The values of rows come with `bring`, before the packet.
    """

    packet_max = 1_000_000
    thread_id = 1
    is_mariadb = False
    is_durable_before_visible = True

    def __init__(self, name: str, account: Account) -> None:
        self.shard = name
        self.tables = Tables(account, {})
        # The open transaction, and what is said of it.
        self.own: Tables | None = None
        self.state = ""
        self.packet: list[str] = []
        self._brought: dict[str, Any] = {}
        self._account = account

    def __str__(self) -> str:
        return f"[{self.shard}{' ' + self.state if self.state else ''}: {self.own or self.tables}]"

    # --- as a connection ----------------------------------------------------------------------

    def literal(self, value: object) -> str:
        return str(escape_item(value, "utf8mb4"))

    def call(self, packet: Iterable[str], *_: Any, **__: Any) -> Answered:
        self.query(packet)
        return Answered()

    def query(self, packet: Iterable[str], *_: Any) -> list[Result]:
        for statement in packet:
            self.packet.append(shortened(statement))
            self._obey(self.packet[-1], statement)
        return []

    def rows(self, statement: str, *_: Any) -> list[tuple[Any, ...]]:
        """The rows of a question that is asked of decisions, markers and prepared branches."""
        self.query([statement])
        rows, name = self.tables.rows, str(GTRID)
        match shortened(statement):
            case "SELECT decisions":
                return [(name, rows["decisions"])] if "decisions" in rows else []
            case "SELECT markers":
                return [(name,)] if "markers" in rows else []
            case "XA RECOVER":
                data = f"0x{(name + self.shard).encode().hex()}"
                found = (FORMAT_ID, len(name), len(self.shard), data)
                return [found] if self.state == "prepared" else []
        raise ValueError(statement)

    # --- what statements do -------------------------------------------------------------------

    def bring(self, writes: Writes | LocalWrites) -> None:
        """The rows that the next packet writes."""
        entries = (*self.tables.rows.get("entries", ()), *writes.entries)
        self._brought = {"entries": entries, "transfers": _last(writes.transfers)}
        accounts = list(writes.accounts)
        if isinstance(writes, LocalWrites):
            accounts = list(writes.accounts.values())
            steps = [*writes.new_steps, *writes.next_steps]
            self._brought |= {"phases": self._phase_after(writes), "steps": _last(steps)}
        self._account = _last(accounts) or self.tables.account

    def _phase_after(self, writes: LocalWrites) -> PhaseRow | None:
        row: PhaseRow | None = _last(writes.begun) or self.tables.rows.get("phases")
        for change in writes.changed:
            row = row._replace(**change.state._asdict()) if row and change.state else None
        return row

    def _obey(self, words: str, statement: str) -> None:
        tables = self.own or self.tables
        verb, _, rest = words.partition(" ")
        match verb, rest.removesuffix(" FOR UPDATE"):
            case ("START", _) | ("XA", "START"):
                self.own, self.state = self.tables, "open"
            case "XA", "PREPARE":
                self.state = "prepared"
            case ("COMMIT", _) | ("XA", "COMMIT"):
                self.tables, self.own, self.state = tables, None, ""
            case ("ROLLBACK", _) | ("XA", "ROLLBACK"):
                self.own, self.state = None, ""
            case "SELECT", "accounts" if self.own and rest.endswith(" FOR UPDATE"):
                self.state = "locked"
            case "UPDATE", "accounts":
                self._put(tables._replace(account=self._account))
            case (("INSERT" | "UPDATE"), table):
                self._put(tables._replace(rows=self._with_row(tables.rows, table, statement)))
            case "DELETE", table:
                rows = {name: row for name, row in tables.rows.items() if name != table}
                self._put(tables._replace(rows=rows))

    def _with_row(self, rows: Mapping[str, Any], table: str, statement: str) -> dict[str, Any]:
        if table == "decisions":
            # A key that is there already stays as it is.
            (outcome,) = re.findall("'(committed|aborted)'", statement)
            return {table: outcome} | dict(rows)
        return dict(rows) | {table: self._brought.get(table, "")}

    def _put(self, tables: Tables) -> None:
        if self.own is None:
            self.tables = tables
        else:
            self.own = tables

    def end_session(self) -> None:
        """Its coordinator is gone: what is not prepared is rolled back."""
        if self.state != "prepared":
            self.own, self.state = None, ""

    # --- what is found ------------------------------------------------------------------------

    @property
    def locked(self) -> Locked:
        account, stored = self.tables.account, self.tables.rows.get("transfers")
        known = {stored.transfer.id: stored} if stored else {}
        slots = frozenset(range(SLOT_COUNT))
        return Locked(slots, True, {account.id: account}, known, 2**63)

    @property
    def found(self) -> Found:
        phase, step = self.tables.rows.get("phases"), self.tables.rows.get("steps")
        phases = {phase.attempt: phase} if phase else {}
        standing = {attempt: row.phase for attempt, row in phases.items()}
        return Found(self.locked, phases, standing, {step.attempt: step} if step else {})


def shortened(statement: str) -> str:
    """A statement's verb, and the table that it is about."""
    verb, _, rest = statement.partition(" ")
    if verb not in ("SELECT", "INSERT", "UPDATE", "DELETE"):
        return " ".join([verb, *rest.split()[:1]])
    tables = re.findall(r"\b(?:STRAIGHT_JOIN|INTO|FROM) (\w+)", statement) or rest.split()[:1]
    lock = " FOR UPDATE" if statement.endswith(("FOR UPDATE", "FOR UPDATE SKIP LOCKED")) else ""
    return f"{verb} {', '.join(dict.fromkeys(tables))}{lock}"


class Trace:
    """The lines, from the first to the last."""

    def __init__(self, transfer: Transfer, shards: Iterable[Shard]) -> None:
        source, destination = SHARDS[transfer.source], SHARDS[transfer.destination]
        self._lines = [
            f"{transfer.amount} {transfer.currency} from {transfer.source} on {source} "
            f"to {transfer.destination} on {destination}, by {transfer.protocol}",
            *map(str, shards),
            "",
        ]

    def __str__(self) -> str:
        return "\n".join(self._lines) + "\n"

    def says(self, who: str, what: object) -> None:
        self._lines.append(f"{who}: {what}")

    def send(self, who: str, shard: Shard, call: Callable[..., Any], *arguments: Any) -> Any:
        """Make a call of the product; its packet, and the shard after it, are a line."""
        shard.packet.clear()
        answer = call(*arguments)
        packet = "; ".join(shard.packet)
        if packet:
            self._lines.append(f"{who} -> {shard.shard}: {call.__name__}: {packet}  {shard}")
        return answer

    def answers(self, shard: Shard, who: str, what: object) -> None:
        self._lines.append(f"{shard.shard} -> {who}: {what}")

    def loses(self, shard: Shard, who: str) -> None:
        """An answer that does not arrive."""
        self._lines.append(f"{shard.shard} -> {who}: {TimedOut.__name__}")

    def stops(self, who: str, how: str, shards: Iterable[Shard]) -> None:
        """A coordinator falls silent, and its sessions end."""
        every = list(shards)
        for shard in every:
            shard.end_session()
        self._lines.append(f"{who}: {how}  {' '.join(map(str, every))}")

    def tells_client(self, who: str, stored: StoredTransfer) -> None:
        because = f": {stored.reason}: {stored.detail}" if stored.reason else ""
        self._lines.append(f"{who} -> client: {stored.status}{because}")

    def takes_over(self, who: str) -> None:
        """By the rules of recovery, of a process that is no member any more."""
        around = RecoveryView(who, 0, GRACE_US / 1e6, True, set(), {GTRID.instance})
        duty = recovery_duty(GTRID, 0.0, around)
        if not duty.is_mine:
            raise ValueError(f"it is not the turn of {who}: {duty.why}")
        self._lines.append(f"{who}: takes it over: {duty.why}")
