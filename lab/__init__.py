"""The same load and the same faults through each way of moving money, and what came of it.

ways.py       the ways that are compared
schedule.py   which fault comes when: from a seed alone, pure
naive/        the way that the literature starts from: Redis nodes, ZooKeeper, two plain updates
parts.py      what both kinds of place offer: parts that can be killed, frozen and started
redis_place.py, shard_place.py, group_place.py   where the ways run; service_place.py: what the
              last two have in common
faults.py     carries a schedule out
wire.py       one HTTP request, for clients that have to be quick
workload.py   clients, in a process of their own
observer.py   what other clients see meanwhile
locks.py      how long locks were held, from a coordinator's metrics
seen.py       arithmetic on what was seen: pure
verdict.py    what was lost or doubled: pure
result.py     what a run has come to, as values
run.py        puts it together
report.py     the table; page.py, plots.py, words.py: the page
"""
