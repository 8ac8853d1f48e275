"""One MySQL shard: its tables, its connections, its part in a group, what is in doubt on it.

Knows SQL and XA; knows no other shard.
"""
