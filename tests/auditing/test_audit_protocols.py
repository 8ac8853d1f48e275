"""The audit of transfers by every protocol, on real servers: what is on its way is accounted for,
and whatever somebody has changed is named.
"""

from typing import Any

import pytest
from click.testing import CliRunner

import coordinator.auditing.audit
from coordinator.auditing.audit import AuditResult, audit
from coordinator.auditing.history import account_history
from coordinator.auditing.shard_audit import ShardAudit
from ledger.chain import first_link, next_link
from tandem.cli.audit import audit as audit_command
from tandem.local.progress import silent
from tests.bank import Bank, Load, client, transfer
from tests.cluster import Cluster, wait_until
from tests.halfway import Halfway
from tests.hand_on_rows import Books


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stays one-sided is called so soon: nobody else moves money meanwhile."""
    monkeypatch.setattr(coordinator.auditing.audit, "_SETTLE_S", 0.1)


@pytest.fixture(scope="module")
def shared_books(mysql_cluster: Cluster) -> Books:
    return Books(mysql_cluster)


@pytest.fixture
def books(shared_books: Books, impatient: None) -> Books:
    return shared_books


class Way:
    """One way that a transfer may go: how many steps it takes, and what is left on the way."""

    def __init__(self, protocol: str, phases: str, *, fate: str = "") -> None:
        self.protocol = protocol
        self.phases = phases.split()
        self.fate = fate

    def begin(self, books: Books) -> Halfway:
        destination = books.other
        if self.fate == "refused":
            index = books.bank.accounts.index(books.other)
            destination = books.bank.name(index + 2)
        return Halfway(books.cluster, books.victim, destination, 7, self.protocol)

    def __str__(self) -> str:
        return f"{self.protocol} {self.fate}".strip()


TCC = Way("tcc", "trying trying confirming confirming confirmed")
TCC_REFUSED = Way("tcc", "trying trying cancelled", fate="refused")
TCC_EXPIRED = Way("tcc", "trying cancelling cancelling cancelled", fate="expired")
SAGA = Way("saga", "crediting crediting completed")
SAGA_REFUSED = Way("saga", "crediting crediting compensating compensated", fate="refused")
WAYS = (TCC, TCC_REFUSED, TCC_EXPIRED, SAGA, SAGA_REFUSED)


def unfinished(result: AuditResult) -> int:
    return result.summary.get("unfinished", 0)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_step_is_accounted_for(any_cluster: Cluster, impatient: None, way: Way) -> None:
    """No violation at any place of any way, and what is unfinished is counted."""
    books = Books(any_cluster)
    before = unfinished(books.audit())
    going, phases = way.begin(books), []
    while not going.is_done:
        going.step()
        phases.append(str(going.flight.position.phase))
        if way.fate == "expired" and len(phases) == 1:
            going.expire()
        result = books.audit()
        assert result.violations == []
        assert unfinished(result) - before == (not going.is_done)
    assert phases == way.phases


SOURCE, DESTINATION = "source", "destination"
MONEY = "money-is-conserved"
NO_STEP = "DELETE FROM steps WHERE transfer_id = '{id}'"
NO_PHASE = "DELETE FROM phases WHERE transfer_id = '{id}'"
NO_RECORD = "DELETE FROM transfers WHERE id = '{id}'"
NO_DEBIT = "DELETE FROM entries WHERE transfer_id = '{id}' AND amount < 0"
NO_CREDIT = "DELETE FROM entries WHERE transfer_id = '{id}' AND amount > 0"


@pytest.mark.parametrize(
    ("way", "steps", "where", "damage", "wanted"),
    [
        # What is held and expected.
        (
            TCC,
            1,
            SOURCE,
            "UPDATE accounts SET held = held + 1 WHERE id = '@'",
            "held-as-phases-say",
        ),
        (TCC, 1, SOURCE, "UPDATE accounts SET held = 0 WHERE id = '@'", "held-as-phases-say"),
        (TCC, 5, SOURCE, "UPDATE accounts SET held = 3 WHERE id = '@'", "held-as-phases-say"),
        (TCC, 1, SOURCE, NO_PHASE, "held-as-phases-say"),
        (TCC, 1, SOURCE, "UPDATE phases SET amount = 8 WHERE source = '@'", "held-as-phases-say"),
        (
            *(TCC, 1, SOURCE, "UPDATE phases SET phase = 'cancelling' WHERE source = '@'"),
            "held-as-phases-say phase-fits-transfer",
        ),
        (
            *(TCC, 2, DESTINATION, "UPDATE accounts SET expected = 0 WHERE id = '@'"),
            "expected-as-steps-say",
        ),
        (TCC, 2, DESTINATION, NO_STEP, "expected-as-steps-say"),
        (
            *(TCC, 2, DESTINATION, "UPDATE steps SET state = 'cancelled' WHERE account = '@'"),
            "expected-as-steps-say step-fits-transfer",
        ),
        # Phase rows.
        (TCC, 2, SOURCE, NO_PHASE, "step-fits-transfer"),
        (TCC, 3, SOURCE, NO_PHASE, f"all-entries-or-none {MONEY}"),
        (TCC, 3, SOURCE, NO_RECORD, "phase-fits-transfer"),
        (SAGA, 1, SOURCE, NO_PHASE, f"entry-has-transfer {MONEY}"),
        (SAGA, 2, SOURCE, NO_PHASE, "step-fits-transfer entry-has-transfer"),
        (SAGA_REFUSED, 3, SOURCE, NO_PHASE, f"all-entries-or-none {MONEY}"),
        (SAGA_REFUSED, 3, SOURCE, NO_RECORD, "phase-fits-transfer"),
        (
            *(SAGA, 1, SOURCE, "UPDATE phases SET outcome = 'lapsed' WHERE source = '@'"),
            "phase-fits-transfer",
        ),
        # Entries.
        (SAGA, 1, SOURCE, NO_DEBIT, "all-entries-or-none entry-count"),
        (SAGA, 2, DESTINATION, NO_CREDIT, "all-entries-or-none"),
        (SAGA, 3, DESTINATION, NO_CREDIT, "all-entries-or-none"),
        (TCC, 5, DESTINATION, NO_CREDIT, "all-entries-or-none"),
        (TCC, 3, SOURCE, NO_DEBIT, "all-entries-or-none"),
        (SAGA_REFUSED, 4, SOURCE, NO_CREDIT, "all-entries-or-none"),
        (SAGA_REFUSED, 4, SOURCE, NO_DEBIT, "all-entries-or-none"),
        # What is over.
        (TCC, 5, DESTINATION, NO_STEP, "step-fits-transfer"),
        (SAGA, 3, DESTINATION, NO_STEP, "step-fits-transfer"),
        (SAGA_REFUSED, 4, "stranger", NO_STEP, "step-fits-transfer"),
        (
            TCC,
            5,
            DESTINATION,
            "UPDATE steps SET amount = 8 WHERE account = '@'",
            "step-fits-transfer",
        ),
        (
            *(TCC, 5, DESTINATION, "UPDATE steps SET state = 'cancelled' WHERE account = '@'"),
            "step-fits-transfer",
        ),
        (
            *(SAGA, 3, DESTINATION, "UPDATE steps SET gtrid = 'x' WHERE account = '@'"),
            "step-fits-transfer",
        ),
        (SAGA_REFUSED, 4, SOURCE, NO_RECORD, "entry-has-transfer"),
        (
            *(SAGA_REFUSED, 4, SOURCE, "UPDATE transfers SET amount = 8 WHERE id = '{id}'"),
            "all-entries-or-none",
        ),
        (
            *(SAGA_REFUSED, 4, SOURCE, "UPDATE transfers SET protocol = 'xa' WHERE id = '{id}'"),
            "all-entries-or-none",
        ),
        # In the wrong place.
        (SAGA, 1, SOURCE, "UPDATE phases SET source = '{other}'", "phase-on-its-shard"),
        (TCC, 5, DESTINATION, "UPDATE steps SET account = '{other}'", "step-on-its-shard"),
    ],
)
def test_what_somebody_has_changed_is_named(
    books: Books, way: Way, steps: int, where: str, damage: str, wanted: str
) -> None:
    with books.restored():
        going = way.begin(books).steps(steps)
        assert books.audit().violations == []
        wish = going.flight.transfer
        ends = {SOURCE: (wish.source, books.other), DESTINATION: (books.other, wish.source)}
        account, other = ends.get(where, (wish.destination, wish.source))
        if " WHERE " not in damage:
            damage += " WHERE transfer_id = '{id}'"
        books.sql(damage.format(id=going.id, other=other), account)
        found = books.audit().violations
        subjects = {books.victim, books.other, going.id, "EUR"}
        assert {violation.subject for violation in found} <= subjects, found
        assert set(wanted.split()) <= {violation.rule for violation in found}, found


def test_nothing_is_left_behind(books: Books) -> None:
    """What the tests before this one have changed is as it was."""
    assert books.audit().violations == []


def test_other_times_are_named_beside_what_has_times_of_its_own(books: Books) -> None:
    """One side is written anew with another time, chain and all: only the other side tells."""
    with books.restored():
        for way in (TCC, SAGA, SAGA_REFUSED):
            way.begin(books).finish()
        *_, changed = (entry for entry in books.entries() if entry.number <= 7)
        chain, anew = first_link(books.victim, "EUR"), []
        for entry in books.entries():
            moved = entry._replace(stamp=entry.stamp + (entry == changed))
            chain = next_link(chain, *moved[:-1])
            anew.append(moved._replace(chain=chain))
        books.write(anew)
        books.sql(f"UPDATE accounts SET chain = '{chain}' WHERE id = '@'")
        found = [(v.rule, v.subject) for v in books.audit().violations]
        assert found == [("entries-at-one-time", changed.transfer)]


def test_what_is_over_is_not_looked_at_one_by_one(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a refused Saga with debit and refund: else every later audit would be slower."""
    looked_at: list[list[int]] = []
    lines = ShardAudit.lines

    def noted(self: ShardAudit, parts: list[int]) -> Any:
        looked_at.append(parts)
        return lines(self, parts)

    monkeypatch.setattr(ShardAudit, "lines", noted)
    with books.restored():
        for way in WAYS:
            going = way.begin(books)
            if way.fate == "expired":
                going.steps(1).expire()
            going.finish()
        result = books.audit()
        assert result.violations == []
        parts_of_rest = [parts for parts in looked_at if parts]
        assert (unfinished(result), parts_of_rest) == (0, [])
        way.begin(books).step()
        assert books.audit().violations == []
        assert [len(parts) for parts in looked_at] == [1, 1]


def test_no_false_alarm_while_all_protocols_are_in_use(any_cluster: Cluster) -> None:
    bank = Bank(any_cluster, 20)
    bank.protocols, bank.strangers = ["xa", "tcc", "saga"], [bank.name(20), bank.name(21)]
    load = Load(bank, any_cluster.urls)
    with load.running(8):
        load.wait_for("201", 50)
        load.wait_for("422", 5)
        for apart in (True, False, False, False):
            result = audit(any_cluster.settings, silent, apart=apart)
            assert result.violations == []
            assert result.summary["steps"] > 0
    load.check_answers()
    wait_until(lambda: not _open(any_cluster, bank), 15, "something is left in the phase table")
    bank.check()


def test_a_stuck_saga_is_explained(any_cluster: Cluster) -> None:
    """Its destination is locked by somebody: the money is on its way, and accounted for."""
    bank = Bank(any_cluster, 2)
    source, destination = bank.two_across()
    item = transfer(source, destination, 100, "stuck") | {"protocol": "saga"}
    with any_cluster.sql(bank.shard_of(destination)) as session, session.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT 1 FROM accounts WHERE id = %s FOR UPDATE", [destination])
        with client(any_cluster.urls[0]) as http:
            key = item.pop("idempotency_key")
            answer = http.post("/v1/transfers", json=item, headers={"Idempotency-Key": key})
        assert answer.status_code == 202, answer.text
        result = audit(any_cluster.settings, silent)
        assert (result.violations, unfinished(result)) == ([], 1)
        session.rollback()
    wait_until(lambda: not _open(any_cluster, bank), 15, "it does not go on")
    assert bank.balances() == {source: 900, destination: 1100}
    result = audit(any_cluster.settings, silent)
    assert (result.violations, unfinished(result)) == ([], 0)


def test_one_account_with_what_it_holds_and_expects(books: Books) -> None:
    def told(account: str) -> str:
        arguments = ["--data-dir", str(books.cluster.local.data_dir), "--account", account]
        return CliRunner().invoke(audit_command, arguments).output

    with books.restored():
        going = TCC.begin(books).steps(2)
        holds, expects = told(books.victim), told(books.other)
        assert "7 held, 0 expected, open: as written" in holds
        assert f"Transfer {going.id} from it by tcc is trying: 7 held" in holds
        assert "0 held, 7 expected, open: as written" in expects
        assert f"Transfer {going.id} to it is tried: 7 expected" in expects
        books.sql("UPDATE accounts SET held = 8 WHERE id = '@'")
        assert "held-as-phases-say: the account holds 8" in told(books.victim)
        with account_history(books.cluster.settings, books.victim) as history:
            assert history is not None
            assert [phase.transfer for phase in history.unfinished] == [going.id]


def _open(cluster: Cluster, bank: Bank) -> list[tuple]:
    query = f"SELECT transfer_id FROM phases WHERE source LIKE '{bank.prefix}%'"
    return [row for shard in cluster.settings.shards for row in cluster.rows(shard, query)]
