"""The event-sourced ledger: one list of commands and outcomes, and a machine that is deterministic.

`rows.py` has the shapes that all rooms share; `machine/` decides; `segments/` keeps the list.
It imports `ledger/` alone.
"""
