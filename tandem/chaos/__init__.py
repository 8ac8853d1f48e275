"""A bank under load while its parts are killed and frozen, and the oracles that must hold.

workload.py   clients that move money and remember every answer
history.py    what was asked and what was told, as values
oracles.py    the ways to be wrong, by name: pure functions on the history and on what is read
watchers.py   what is looked at all the time: balances of one moment, what is in doubt
nemesis.py    what to do to whom and for how long, by chance: pure
fitting.py    what of that fits which kind of shard: pure
faults.py     does it to a local cluster, and undoes it
losses.py     takes decided branches away: are the losses named?
final.py      the last looks, when everything is healed
lists.py      a ledger group's list, replayed, beside what its read side tells
tasks.py      threads whose failure is not overlooked
run.py        puts it together
report.py     shows it
"""
