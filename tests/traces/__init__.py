"""Golden traces: one transfer from its beginning to its end, for people to read.

    c1: all voted yes: preparing -> deciding, insert the decision
    c1 -> s1: decide: INSERT decisions; COMMIT  [s1: alice 60, decisions committed, ...]

The first of these lines is a step of a protocol: what was heard, from which phase to which, what is
done next. The second is a packet: the call, its statements in short, and in brackets the shard
after it; while a transaction is open or prepared there, with what that has written.

A trace says who acts next, and what goes wrong; all else is the product's. The steps are those of
its tables, the money is moved by its rules, the packets are made by its calls, and the shard after
a packet is what the statements make of it.

`python -m tests.traces` makes the files anew; `tests/unit/test_golden_traces.py` compares them.
"""
