"""What a shard promises to a coordinator."""

# An answer that is not there after so long is overdue.
SLOW_S = 0.5
# So long a shard waits for one lock, at most: MySQL a second, by a watch that it looks at once a
# second.
LOCK_WAIT_S = 2.0
