"""Try-Confirm/Cancel and Saga at work: transfers on their way through the phases of a protocol.

courses    where a transfer is, and what a local transaction does to many of them: pure
visits     those local transactions, on all shards at once
run        a group of transfers that comes from the queue
finisher   what is left open, until it is done
unfinished, ways   what operators see of it
"""
