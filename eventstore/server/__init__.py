"""A process of a ledger group: what it answers, and over which connections.

server.py       listens; a connection for each client
connection.py   one client: proves, reads requests, hands them to handlers
outgoing.py     what is to be sent to a client, and the thread that sends it
limits.py       how much of everything
handling.py     what handlers get and give
futures.py      one future from another
node_service.py what a node answers
firsts.py       what was decided when an id was first used, from the list
beginning.py    whose list is in a folder; a new one where that is wanted
logs.py         a line for each event
process.py      the node's process, from its start to its end
"""
