"""Measures Tandem against textbook XA on the same shards. A development tool: see scripts/bench.

__main__.py      the command line
place.py         where it is measured: a cluster, its shards and how durable they are
loads/           what is measured: one module for each load, and the table of them
parts/           what else is measured: one module for each part, and the table of them
counters.py      what a cluster has done, by its own counters
processes.py     processor time and memory of processes
host.py          runs a load in a process of its own
measure.py       the loads in turn, over several rounds
oracles.py       is every cent where it belongs?
surroundings.py  the machine and the versions
report.py        the table and the JSON document
plot.py          the picture
"""
