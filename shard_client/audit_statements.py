"""The statements of `audit.py`."""

# A reader that waits for a slower shard must not be hung up on by the server.
PATIENCE_S = 3600
ISOLATION = "REPEATABLE READ"
BEGIN = "START TRANSACTION WITH CONSISTENT SNAPSHOT"
# Both the order of the rows in a page and that of the pages are that of the primary key; the
# aggregate does not promise the first, so it is made sure of here. The number of the rows tells
# whether all are in the text: what does not fit into a text is NULL, and left out.
PAGE_OF = (
    "SELECT COUNT(*), CONCAT('[', GROUP_CONCAT(CONCAT('[', {values}, ']')), ']') FROM"
    " (SELECT {columns} FROM {table} FORCE INDEX (PRIMARY) WHERE {where} ORDER BY {key}"
    " LIMIT {limit}) AS page"
)
# How a column is written as JSON.
TEXT, NUMBER, NUMBER_OR_NULL = "JSON_QUOTE({0})", "{0}", "IFNULL({0}, 'null')"
ACCOUNTS = {
    "id": TEXT,
    "currency": TEXT,
    "balance": NUMBER,
    "overdraft_limit": NUMBER_OR_NULL,
    "status": TEXT,
    "entry_count": NUMBER,
    "stamp_floor": NUMBER,
    "chain": TEXT,
    "held": NUMBER,
    "expected": NUMBER,
}
ENTRIES = {
    "account_id": TEXT,
    "number": NUMBER,
    "transfer_id": TEXT,
    "amount": NUMBER,
    "balance": NUMBER,
    "counterparty": TEXT,
    "stamp": NUMBER,
    "chain": TEXT,
}
TRANSFERS = {
    "id": TEXT,
    "status": TEXT,
    "source": TEXT,
    "destination": TEXT,
    "amount": NUMBER,
    "currency": TEXT,
    "decided_at": NUMBER,
    "protocol": TEXT,
    # Only for the other protocols is there something that it is compared with.
    "gtrid": "IF(protocol = 'xa', '\"\"', JSON_QUOTE({0}))",
}
PHASES = {
    "transfer_id": TEXT,
    "gtrid": TEXT,
    "protocol": TEXT,
    "phase": TEXT,
    "source": TEXT,
    "amount": NUMBER,
}
STEPS = {
    "transfer_id": TEXT,
    "gtrid": TEXT,
    "account": TEXT,
    "amount": NUMBER,
    "state": TEXT,
}

# What a shard holds of transfers in one stream, in the order of their ids.
BY_TRANSFER = """
    SELECT transfer_id AS id, 'line' AS kind, account_id AS a, counterparty AS b, amount, stamp,
           '' AS status,
           COALESCE((SELECT currency FROM accounts WHERE accounts.id = account_id), '') AS currency,
           '' AS gtrid, '' AS protocol, '' AS phase
      FROM entries WHERE {entries}
    UNION ALL
    SELECT id, 'record', source, destination, amount, decided_at, status, currency, gtrid, protocol,
           ''
      FROM transfers WHERE {transfers}
    UNION ALL
    SELECT transfer_id, 'phase', source, destination, amount, 0, outcome, currency, gtrid, protocol,
           phase
      FROM phases WHERE {others}
    UNION ALL
    SELECT transfer_id, 'step', account, '', amount, stamp, state, '', gtrid, '', ''
      FROM steps WHERE {others}
     ORDER BY id
"""
ENDS = """
    SELECT source, destination FROM transfers WHERE id IN ({ids})
    UNION ALL
    SELECT source, destination FROM phases WHERE transfer_id IN ({ids})
"""
REFUNDED = """
    SELECT id, source, destination, amount, currency FROM transfers FORCE INDEX (PRIMARY)
     WHERE id IN ({ids}) AND status = 'rejected' AND protocol = 'saga'
"""
AHEAD = "SELECT id, stamp_floor FROM accounts WHERE stamp_floor > {latest} ORDER BY id"
GROUPS = """
    SELECT gtrid, 'decision' AS kind, branches FROM decisions WHERE outcome = 'committed'
    UNION ALL
    SELECT gtrid, 'marker', shard FROM markers
     ORDER BY gtrid
"""
