"""The process of a naive coordinator: `python -m lab.naive`.

What it needs to know is in the variables that server.py names.
"""

from gevent import monkey

# Before anything else is imported: a request is a greenlet, as in Tandem's own coordinators.
monkey.patch_all()


def main() -> None:
    """Serve until the process is ended."""
    from lab.naive.server import serve

    serve()


if __name__ == "__main__":
    main()
