"""One node with a list of its own: takes commands, and answers when what became of them is durable.

    check.py     what is a command at all
    errors.py    what is said to those who ask
    intake.py    what waits to be decided; gathers a frame of whatever waits
    node.py      the two threads: one decides frames, one writes, flushes and answers

No process and no network: whoever serves it runs it (rule E6: at its death that process ends).
"""
