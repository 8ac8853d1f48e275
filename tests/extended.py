"""Which cases run with `scripts/test --all` only: marked `extended`. Each line says why the others
are enough for every change.
"""

# The laboratory compares Tandem with others and is no part of it.
_FILES = {"end_to_end/test_lab.py"}
# What the bench measures besides the loads, in its short form; further bugs that are planted.
_CASES = {
    "end_to_end/test_bench.py": (
        "test_parts_in_their_short_form",
        "test_the_event_store_in_its_short_form",
    ),
    "end_to_end/test_chaos.py": (
        "test_a_planted_bug_is_caught[collect-early]",
        "test_a_lost_branch_that_is_taken_for_done_is_caught",
        "test_a_bug_that_is_planted_before_a_ledger_group_is_caught",
    ),
    # Its parts are in others: two clients with one fault, and such commits with three.
    "model/test_phased.py": (
        "test_no_state_breaks_a_promise_and_every_state_can_end[two clients, commits",
    ),
    # That twins reach nothing else when they are told apart is shown in the smallest world, with
    # crashes, restarts and deadlines.
    "model/test_two_phase.py": (
        "test_coordinators_that_are_alike_are_counted_once[two coordinators",
        "test_coordinators_that_are_alike_are_counted_once[three shards",
    ),
    # It compiles everything anew. Seeds, threads and locale are shown for every change, and that a
    # golden list, which was once made elsewhere, is made again to the byte.
    "eventstore/test_determinism.py": ("test_code_compiled_for_any_machine",),
    # The same on another line, and by another lock.
    "faults/test_isolation.py": (
        "test_a_slow_shard_does_not_slow_the_others[mysql-delay]",
        "test_a_lock_on_whole_tables_takes_its_shard_out_and_is_named[mysql-FLUSH",
    ),
}
# On MariaDB: what depends on the coordinator alone. What a server does differently is held on both
# kinds by the other files: the promise of a shard, lost answers, recovery, the protocols over HTTP,
# keys, clocks, whole answers, hostile settings, checks, privileges.
_MARIADB = {
    "contract/test_http_console.py",
    "contract/test_http_in_doubt.py",
    "contract/test_http_stuck.py",
    "contract/test_http_unfinished.py",
    "contract/test_mixed_batches.py",
    "contract/test_snapshot_reads_away.py",
    "contract/test_nuisances.py",
    "auditing/test_audit.py",
    "auditing/test_audit_protocols.py",
    "faults/test_concurrency.py",
    "faults/test_crash.py",
    "faults/test_failover.py",
    "faults/test_fault_points.py",
    "faults/test_isolation.py",
    "faults/test_phased_fault_points.py",
}


def is_extended(nodeid: str) -> bool:
    """Whether a case, by its name as pytest prints it, is for `--all` only."""
    path, _, case = nodeid.removeprefix("tests/").partition("::")
    on_mariadb = "mariadb" in case.partition("[")[2]
    return (
        path in _FILES
        or case.startswith(_CASES.get(path, ()) or ("\0",))
        or (on_mariadb and path in _MARIADB)
    )
