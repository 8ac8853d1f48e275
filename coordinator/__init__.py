"""Makes shards agree: protocols, the queue and its executors, recovery, HTTP, ZooKeeper.

Knows no SQL; speaks to shards through `shard_client`.
"""
