"""The naive way: balances in sharded Redis nodes, and a coordinator of two plain updates.

nodes.py      which node has which account, from ZooKeeper, and a connection to each
server.py     the coordinator: an HTTP service like Tandem's, as far as the laboratory needs it
__main__.py   its process
"""
