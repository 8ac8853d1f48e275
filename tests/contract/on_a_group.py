"""Which cases of the HTTP contract do not run on a ledger group, and why; all others do."""

import pytest

_LOCKS = "nobody can lock an account of a group; what waits for a node is in test_http_group.py"
_AT_ONCE = "a group decides a transfer at once: nothing leaves an account that has to come back"
_ONE_SHARD = "a group is its cluster's only shard"
_BY_SQL = "nobody writes to a group by SQL"
_NO_SHARD = "no shard is asked"

# By file and function.
LEFT_OUT = {
    "test_http_accounts.py": {"test_a_change_of_a_locked_account_is_busy": _LOCKS},
    "test_http_operation.py": {"test_the_log_carries_the_request_id": _LOCKS},
    "test_http_protocols.py": {
        "test_a_refused_credit_is_compensated": _AT_ONCE,
        "test_a_locked_destination_is_waited_for_or_given_up": _LOCKS,
        "test_a_first_step_that_the_database_refuses_has_not_happened": _BY_SQL,
    },
    "test_http_waiting.py": {
        "test_a_locked_account_is_busy_at_the_deadline": _LOCKS,
        "test_a_locked_account_in_a_batch_concerns_its_items_alone": _LOCKS,
        "test_a_key_that_is_in_use": _LOCKS,
        "test_reads_of_a_locked_account": _LOCKS,
        "test_a_full_queue_refuses_at_once": _LOCKS,
        "test_a_read_only_shard_concerns_its_own_accounts_alone": _ONE_SHARD,
        "test_a_coordinator_without_a_shard_map": _NO_SHARD,
    },
}

# Of these files the first case of each function runs: what they ask is refused, or answered, before
# any shard is asked, so one value is as good as another.
AT_THE_DOOR = {
    "test_http_bad_input.py",
    "test_http_bodies.py",
    "test_http_operation.py",
    "test_http_strict.py",
    "test_http_transport.py",
}

# Of these files only what is named runs: all else is about tokens and certificates.
CHOSEN = {
    "test_access.py": (
        "test_without_a_good_token_nothing_is_done",
        "test_with_its_scope_each_route_is_let_through",
        "test_a_batch_counts_its_items",
        "test_no_secret_can_be_read",
    ),
}


def runs_once_more(item: pytest.Item, seen: set[tuple[str, str]]) -> bool:
    """Whether a case runs, if it is one on a ledger group; `seen` are the functions before it."""
    if "eventstore" not in _parameters(item):
        return True
    file, function = item.path.name, getattr(item, "originalname", item.name)
    is_first = (file, function) not in seen
    seen.add((file, function))
    if function in LEFT_OUT.get(file, {}) or function not in CHOSEN.get(file, (function,)):
        return False
    return is_first or file not in AT_THE_DOOR


def _parameters(item: pytest.Item) -> set[object]:
    callspec = getattr(item, "callspec", None)
    clusters = ("cluster", "every_cluster")
    return {callspec.params.get(name) for name in clusters} if callspec else set()
