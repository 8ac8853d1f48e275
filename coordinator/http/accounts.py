"""The views of accounts."""

import time

from flask import Response

from coordinator.http import access, problems, reading, schemas
from coordinator.http.problems import Refuse
from coordinator.http.routes import View, by_name
from coordinator.services.accounts import Accounts, Opened
from coordinator.services.snapshot_reads import SnapshotReads
from ledger.model import Refusal, Status
from shard_client.errors import NoList, ShardError
from shard_client.records import AccountState, Terms

# So many of a batch are opened in some 10 ms, in which nothing else runs in this process.
_AT_ONCE = 500


def views(accounts: Accounts, snapshot_reads: SnapshotReads) -> dict[str, View]:
    """The views, on these accounts and snapshot reads."""

    def open_account(account: str) -> Response:
        name = reading.check_account(account)
        terms = reading.body(schemas.AccountTerms)
        asked = Terms(name, terms.currency, terms.overdraft_limit)
        opened = accounts.open_all([asked])[0]
        if isinstance(opened, ShardError):
            raise opened
        difference = _difference(opened.state, asked)
        if difference:
            raise Refuse(409, "account-exists", difference)
        view = schemas.account_view(opened.state, opened.shard)
        return reading.json(view, 201 if opened.is_new else 200)

    def change_account(account: str) -> Response:
        name = reading.check_account(account)
        status = Status(reading.body(schemas.AccountChange).status)
        changed, shard = accounts.set_status(name, status)
        if isinstance(changed, Refusal):
            raise Refuse(409, changed.reason, f"{changed.detail}; nothing was changed")
        if changed is None:
            raise _unknown(name)
        return reading.json(schemas.account_view(changed, shard))

    def open_accounts() -> Response:
        return reading.json(schemas.AccountResults(_open_batch(accounts)))

    def show_account(account: str) -> Response:
        found = accounts.get(reading.check_account(account), reading.since())
        if found is None:
            raise _unknown(account)
        return reading.json(schemas.account_view(*found))

    def show_entries(account: str) -> Response:
        return reading.json(_statement(accounts, reading.check_account(account)))

    def show_balance(account: str) -> Response:
        return reading.json(_balance_at(accounts, reading.check_account(account)))

    def show_balances() -> Response:
        names = [reading.check_account(name) for name in reading.query().get("account", [])]
        if not 1 <= len(names) <= schemas.BALANCES_MAX:
            detail = f"{len(names)} accounts are named, not 1 to {schemas.BALANCES_MAX}"
            raise Refuse(400, "malformed", detail)
        states = accounts.of_one_frame(names, reading.since())
        if states is None:
            found = snapshot_reads.read(names)
        else:
            found = {name: state.account for name, state in states.items()}
        for name in names:
            if name not in found:
                raise _unknown(name)
        balances = [schemas.balance_view(found[name]) for name in names]
        as_of = states[names[0]].as_of if states else None
        return reading.json(schemas.Balances(balances, schemas.as_of_view(as_of)))

    def show_trial_balance() -> Response:
        at = _past(time.time_ns() // 1000)
        try:
            found = accounts.trial_balance(at, reading.since())
        except NoList as error:
            detail = f"{error}; `tandem audit` sums up all balances of any cluster"
            raise Refuse(404, "not-found", f"{detail}; nothing has happened") from error
        return reading.json(schemas.trial_balance_view(found))

    return by_name(
        open_account,
        change_account,
        open_accounts,
        show_account,
        show_entries,
        show_balance,
        show_balances,
        show_trial_balance,
    )


def _unknown(account: str) -> Refuse:
    return Refuse(404, "account-not-found", f"there is no account {account}; nothing has happened")


def _difference(state: AccountState, asked: Terms) -> str | None:
    """How an account that exists differs from what was asked for; None if it does not."""
    account = state.account
    differences = [
        f"{field} is {getattr(account, field)}, not {getattr(asked, field)}"
        for field in ("currency", "overdraft_limit")
        if getattr(account, field) != getattr(asked, field)
    ]
    if not differences:
        return None
    return f"account {asked.id} exists: its {', its '.join(differences)}; nothing was changed"


def _open_batch(accounts: Accounts) -> list[schemas.AccountResult]:
    results: list[schemas.AccountResult | None] = []
    terms: dict[int, Terms] = {}
    for item in reading.batch("accounts", schemas.AccountItem):
        if isinstance(item, reading.Malformed):
            results.append(schemas.AccountResult(None, "rejected", "malformed", item.why))
        else:
            terms[len(results)] = Terms(item.id, item.currency, item.overdraft_limit)
            results.append(None)
    access.charge(len(results))
    places = list(terms)
    for first in range(0, len(places), _AT_ONCE):
        some = places[first : first + _AT_ONCE]
        opened = accounts.open_all([terms[index] for index in some])
        for index, result in zip(some, opened, strict=True):
            results[index] = _result(result, terms[index])
    return [result for result in results if result is not None]


def _result(opened: Opened | ShardError, asked: Terms) -> schemas.AccountResult:
    if isinstance(opened, ShardError):
        reason = problems.kind_of(opened)
        return schemas.AccountResult(asked.id, "failed", reason, str(opened))
    difference = _difference(opened.state, asked)
    if difference:
        return schemas.AccountResult(asked.id, "rejected", "account-exists", difference)
    return schemas.AccountResult(asked.id, "created" if opened.is_new else "exists")


def _statement(accounts: Accounts, account: str) -> schemas.Statement:
    limit = reading.integer("limit", 100, 1, 1000) or 100
    after = reading.integer("after", None, 0, schemas.CURSOR_MAX)
    order = reading.parameter("order")
    if order not in (None, "asc", "desc"):
        raise Refuse(400, "malformed", f"order is {reading.shown(order)}, not asc or desc")
    # One more than asked for tells whether there is a next page.
    found = accounts.entries(
        account, after, limit + 1, newest_first=order == "desc", since=reading.since()
    )
    if found is None:
        raise _unknown(account)
    page = found.entries[:limit]
    cursor = str(page[-1].number) if len(found.entries) > limit else None
    views = [schemas.entry_view(entry) for entry in page]
    return schemas.Statement(views, cursor, schemas.as_of_view(found.as_of))


def _balance_at(accounts: Accounts, account: str) -> schemas.BalanceAt:
    now = time.time_ns() // 1000
    asked = _past(now)
    at = now if asked is None else asked
    found = accounts.balance_at(account, at, reading.since())
    if found is None:
        raise _unknown(account)
    state, balance, as_of = found
    when = schemas.time_text(at), schemas.as_of_view(as_of)
    return schemas.BalanceAt(state.id, state.currency, balance, *when)


def _past(now: int) -> int | None:
    """The time that the parameter `at` names; None without it. Raises Refuse."""
    text = reading.parameter("at")
    if text is None:
        return None
    try:
        at = schemas.parse_time(text)
    except (ValueError, OverflowError) as error:
        detail = f"at is {reading.shown(text)}, not a time such as 2026-11-22T10:00:00Z: {error}"
        raise Refuse(400, "malformed", detail) from None
    if at > now:
        raise Refuse(
            400, "malformed", f"at is {text}, a time to come; it is {schemas.time_text(now)}"
        )
    return at
