"""A ledger group as a shard: what `shard_client.node` promises, kept by a node of the event store
and its read side. To import it takes the extra `eventstore`.
"""
