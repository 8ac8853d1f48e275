"""Servers as a DBA may have left them: every variable that a session begins with at the worst value
that the server takes. A session of ours has to set what matters, so all this is to change nothing.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.cluster import Cluster

_MODE = "'ANSI,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH,HIGH_NOT_PRECEDENCE,ONLY_FULL_GROUP_BY'"
WORST: dict[str, str | int | float] = {
    "autocommit": 0,
    "auto_increment_increment": 100,
    "big_tables": 1,
    "character_set_client": "latin1",
    "character_set_connection": "latin1",
    "character_set_results": "latin1",
    "character_set_server": "latin1",
    "completion_type": 2,
    "default_storage_engine": "MEMORY",
    "default_week_format": 7,
    "div_precision_increment": 0,
    "eq_range_index_dive_limit": 1,
    "explicit_defaults_for_timestamp": 0,
    "foreign_key_checks": 0,
    "group_concat_max_len": 4,
    "innodb_lock_wait_timeout": 1,
    "innodb_strict_mode": 0,
    "innodb_table_locks": 0,
    "interactive_timeout": 1,
    "join_buffer_size": 128,
    "lc_messages": "'ja_JP'",
    "lc_time_names": "'ja_JP'",
    "lock_wait_timeout": 1,
    "max_allowed_packet": 2**20,
    "max_error_count": 0,
    "max_heap_table_size": 16384,
    "max_join_size": 1,
    "max_length_for_sort_data": 4,
    "max_seeks_for_key": 1,
    "max_sort_length": 8,
    "max_sp_recursion_depth": 0,
    "min_examined_row_limit": 1,
    "net_buffer_length": 1024,
    "net_read_timeout": 1,
    "net_retry_count": 1,
    "net_write_timeout": 1,
    "old_alter_table": 1,
    "optimizer_prune_level": 0,
    "optimizer_search_depth": 1,
    "optimizer_switch": "'index_merge=off,mrr=on,mrr_cost_based=off,derived_merge=off,"
    "materialization=off,semijoin=off,index_condition_pushdown=off'",
    "optimizer_trace": "'enabled=on'",
    "query_alloc_block_size": 1024,
    "query_prealloc_size": 8192,
    "range_alloc_block_size": 4096,
    "read_buffer_size": 8192,
    "read_rnd_buffer_size": 1,
    "sort_buffer_size": 32768,
    "sql_auto_is_null": 1,
    "sql_buffer_result": 1,
    "sql_mode": _MODE,
    "sql_notes": 0,
    "sql_safe_updates": 1,
    "sql_select_limit": 1,
    "sql_warnings": 1,
    "time_zone": "'+13:00'",
    "tmp_table_size": 1024,
    "unique_checks": 0,
    "updatable_views_with_limit": 0,
    "wait_timeout": 1,
    # MySQL only.
    "cte_max_recursion_depth": 0,
    "default_collation_for_utf8mb4": "utf8mb4_general_ci",
    "end_markers_in_json": 1,
    "internal_tmp_mem_storage_engine": "MEMORY",
    "max_execution_time": 1,
    "optimizer_max_subgraph_pairs": 1,
    "parser_max_mem_size": 10_000_000,
    "print_identified_with_as_hex": 1,
    "range_optimizer_max_mem_size": 1,
    "set_operations_buffer_size": 16384,
    "sql_generate_invisible_primary_key": 1,
    "sql_require_primary_key": 1,
    "transaction_isolation": "'SERIALIZABLE'",
    "transaction_read_only": 1,
    "windowing_use_high_precision": 0,
    # MariaDB only.
    "check_constraint_checks": 0,
    "expensive_subquery_limit": 0,
    "idle_readonly_transaction_timeout": 1,
    "idle_transaction_timeout": 1,
    "idle_write_transaction_timeout": 1,
    "in_predicate_conversion_threshold": 1,
    "innodb_snapshot_isolation": 1,
    "join_buffer_space_limit": 2048,
    "join_cache_level": 8,
    "max_recursive_iterations": 0,
    # With less nobody gets in.
    "max_session_mem_used": 2**20,
    "max_statement_time": 0.5,
    "mrr_buffer_size": 8192,
    "optimizer_max_sel_arg_weight": 1,
    "optimizer_max_sel_args": 1,
    "optimizer_use_condition_selectivity": 5,
    "tmp_disk_table_size": 1024,
    "tmp_memory_table_size": 1024,
    "tx_isolation": "'SERIALIZABLE'",
    "tx_read_only": 1,
    "use_stat_tables": "PREFERABLY",
    # What begins a session of whoever is no administrator can set what has no global value.
    "init_connect": "'SET SESSION sql_big_selects=0, profiling=1, completion_type=1'",
}


@contextmanager
def variables(
    cluster: Cluster, shard: str, values: Mapping[str, str | int | float] = WORST
) -> Iterator[None]:
    """A shard with other global variables for a block, for the sessions that begin in it, as far as
    its kind of server has them.
    """
    # The session that puts them back began before they were set.
    with cluster.sql(shard) as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION wait_timeout = 3600")
        cursor.execute("SHOW GLOBAL VARIABLES")
        before = {name: was for name, was in cursor.fetchall() if name in values}
        try:
            for name in before:
                cursor.execute(f"SET GLOBAL {name} = {values[name]}")
            yield
        finally:
            for name, was in before.items():
                quoted = was if was.replace(".", "").isdigit() else connection.escape(was)
                cursor.execute(f"SET GLOBAL {name} = {quoted}")
