"""The deterministic machine: what a frame of commands makes of a group's state.

    machine.py    the face: a frame is checked, room is made, it is decided
    check.py      a frame's commands before anything of it is applied
    kernel.py     the loop that decides them, in their order
    rules.py      the ladder of refusals and the postings, on account rows
    moves.py      one side of a transfer by itself, on one account row
    steps.py      TC/C and Saga: an attempt begins, is called, is taken further
    protocols.py  the tables by which it is
    attempts.py   the attempts, all that there ever were
    outcomes.py   what is told of an outcome besides its code
    views.py      a frame and the state, as compiled functions are given them
    index.py      ids to numbers; grows without a stop
    entries.py    all that is in an index, to keep it and to fill another one with it
    state.py      account rows and the accounts' ids
    naming.py     the accounts that commands give by name
    name_cache.py numbers of accounts that were named lately, by the bytes of their ids
    currencies.py what accounts are in, which their rows name by an index
    texts.py      what the texts of commands say
    refusals.py   a stored outcome as the ledger's own refusal

What is compiled knows numbers only: `words.py` reads commands so. `compiled.py` says how it is
compiled and kept, `memory.py` where tables get their memory, `siphash.py` has the index's hash,
`bytewise.py` takes texts eight bytes at a time.
"""
