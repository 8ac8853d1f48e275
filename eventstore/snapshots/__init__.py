"""Snapshots: the machine's state after a frame, each in a file, so that a start is short.

    header.py   whose state it is, after which frame, how much of it there is
    blocks.py   the state in blocks that are checked one by one
    names.py    the names of the files
    writer.py   writes one, and removes the oldest
    reader.py   loads the newest that is whole and belongs to the list
    audit.py    compares them with a machine that replays the list
    policy.py   when a new one is worth its cost
    errors.py   why one is not used

A snapshot is nothing but a way to begin later: the list alone is believed. One that is damaged, or
that does not belong to the list, is passed over, and the log says so (rule E15).
"""
