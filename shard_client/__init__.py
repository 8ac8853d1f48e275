"""What a shard promises to a coordinator (`node.py`), and the MySQL shard that keeps it: its
tables, its connections, its part in a group, what is in doubt on it.

Knows SQL and XA; knows no other shard.
"""
