"""What a session on a shard is set to: all that changes what a statement returns, whether it runs,
or how long it may take. Nothing of it is left to what the server's global variables, or its
`init_connect`, have made of it.

What is not here changes none of our statements: what concerns DDL, other engines, replicas, logs,
the optimizer's estimates. What a session may not set, `variables.py` looks at.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

# As the sessions are set: neither an answer's rows nor a text made of rows is cut.
ROWS_MAX = 2**64 - 1
TEXT_MAX = 64 * 2**20
# A session says with this that its answers are not cut; see `ShardConnection.call`.
PROOF = "SELECT @@sql_select_limit"


class Setting(NamedTuple):
    """A session variable, the value that it gets, and what another one would do."""

    name: str
    value: str | int
    otherwise: str


COMMON = (
    # The whole mode: none of ANSI_QUOTES, NO_BACKSLASH_ESCAPES, PAD_CHAR_TO_FULL_LENGTH, ... stays.
    Setting(
        "sql_mode", "'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO'", "literals and values differ"
    ),
    Setting("autocommit", 1, "what is no transaction stays open"),
    Setting("completion_type", 0, "COMMIT begins a transaction (CHAIN) or hangs up (RELEASE)"),
    Setting("sql_select_limit", ROWS_MAX, "answers are cut"),
    Setting("group_concat_max_len", TEXT_MAX, "texts are cut"),
    Setting("max_sort_length", 1024, "what is sorted is in another order"),
    Setting("sql_auto_is_null", 0, "IS NULL finds a row that is not"),
    Setting("div_precision_increment", 4, "quotients are cut"),
    Setting("time_zone", "'+00:00'", "times are told in the server's zone"),
    Setting("max_join_size", ROWS_MAX, "statements on many rows are refused"),
    # Behind max_join_size, which sets it too.
    Setting("sql_big_selects", 1, "statements on many rows are refused"),
    Setting("sql_safe_updates", 0, "updates by join are refused"),
    Setting("sql_buffer_result", 0, "answers are copied, and locks held meanwhile"),
    Setting("big_tables", 0, "temporary tables are on disk"),
    Setting("tmp_table_size", 16 * 2**20, "temporary tables are on disk"),
    Setting("max_heap_table_size", 16 * 2**20, "temporary tables are full"),
    Setting("foreign_key_checks", 1, "MariaDB locks a whole empty table for inserts"),
    Setting("unique_checks", 1, "the same; duplicates pass"),
    Setting("innodb_table_locks", 1, "LOCK TABLES is not seen"),
    Setting("optimizer_switch", "'default'", "other rows are read, and locked, in another order"),
    Setting("max_seeks_for_key", 2**32 - 1, "rows are found, and locked, another way"),
    Setting("profiling", 0, "each statement is kept"),
    Setting("optimizer_trace", "'enabled=off'", "each statement is kept"),
    # Nothing of ours waits long for a lock (rule R11).
    Setting("innodb_lock_wait_timeout", 1, "a lock is waited for, for a minute"),
    Setting("lock_wait_timeout", 1, "an ALTER is waited for, for a year"),
)
MYSQL = (
    # Without these a long IN list becomes a scan (MySQL) or a join with a temporary table
    # (MariaDB), and a group would lock rows that are not its own.
    Setting("range_optimizer_max_mem_size", 0, "a long IN list becomes a scan"),
    Setting("max_execution_time", 0, "a SELECT is interrupted"),
    Setting("parser_max_mem_size", ROWS_MAX, "a long statement is refused"),
    Setting("sort_buffer_size", 2**18, "wide rows cannot be sorted"),
    Setting("use_secondary_engine", "'OFF'", "another engine answers, or none"),
    Setting("resultset_metadata", "'FULL'", "the driver cannot read an answer"),
    Setting("require_row_format", 0, "some statements are refused"),
)
MARIADB = (
    Setting("in_predicate_conversion_threshold", 0, "a long IN list becomes a temporary table"),
    Setting("optimizer_max_sel_arg_weight", 32000, "a long IN list becomes a scan"),
    Setting("optimizer_max_sel_args", 2**32 - 1, "the same"),
    Setting("join_cache_level", 2, "rows are joined, and locked, in another order"),
    Setting("max_statement_time", 0, "a statement is interrupted"),
    Setting("idle_transaction_timeout", 0, "a session ends that waits for another shard"),
    Setting("idle_readonly_transaction_timeout", 0, "the same"),
    Setting("idle_write_transaction_timeout", 0, "the same"),
    # What was read before is told again, to whoever looks for rows that are not committed.
    Setting("query_cache_type", 0, "an answer is old"),
    Setting("check_constraint_checks", 1, "no CHECK holds"),
    Setting("max_session_mem_used", 2**63 - 1, "a statement is refused"),
    Setting("tmp_disk_table_size", ROWS_MAX, "temporary tables are full"),
    Setting("sort_buffer_size", 2 * 2**20, "wide rows cannot be sorted"),
)


# Which of these variables a server has is asked of each version once. That can be cut, refused or
# interrupted itself; what prevents it, all versions have.
_FIRST = (
    *("sql_select_limit", "max_join_size", "sql_big_selects", "big_tables"),
    *("tmp_table_size", "max_heap_table_size"),
)
_FIRST_MYSQL = ("max_execution_time",)
_FIRST_MARIADB = ("max_statement_time", "max_session_mem_used", "tmp_disk_table_size")


def _assigned(settings: Collection[Setting], names: Collection[str]) -> str:
    return ", ".join(f"{name}={value}" for name, value, _ in settings if name in names)


ASK = (
    f"SET SESSION {_assigned(COMMON, _FIRST)}"
    f" /*!80000 , {_assigned(MYSQL, _FIRST_MYSQL)} */"
    f" /*M!100600 , {_assigned(MARIADB, _FIRST_MARIADB)} */",
    # All of them: how a WHERE is carried out, is not set yet.
    "SHOW SESSION VARIABLES",
)


def known_of(rows: Iterable[tuple[str, str]]) -> frozenset[str]:
    """The names that a server knows, from the answer to ASK; none if that lacks what all have."""
    known = frozenset(name for name, _ in rows)
    return known if known.issuperset(_FIRST) else frozenset()


def opening(known: Collection[str], idle_s: int, isolation: str) -> list[str]:
    """The statements with which a session begins on a server that knows these variables. It ends a
    session that is idle, or reads or sends nothing, for `idle_s`.
    """
    settings = COMMON + (MARIADB if "check_constraint_checks" in known else MYSQL)
    patience = f"wait_timeout={idle_s}, net_read_timeout={idle_s}, net_write_timeout={idle_s}"
    return [
        f"SET SESSION TRANSACTION ISOLATION LEVEL {isolation}, READ WRITE",
        f"SET SESSION {_assigned(settings, known)}, {patience}",
    ]
