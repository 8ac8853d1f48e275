"""Gunicorn's threaded worker, with one difference: when it is told to end, it still answers the
connections that the kernel has taken for it, and then lets the kernel take no more. It tells the
server so at once, before the requests that run have come to their ends.

Without it clients that connect meanwhile are accepted by the kernel, send their request, and are
cut off without an answer when the worker ends.
"""

from gunicorn.workers.gthread import ThreadWorker


class DrainingWorker(ThreadWorker):  # type: ignore[misc]
    """See the module."""

    def set_accept_enabled(self, enabled: bool) -> None:
        super().set_accept_enabled(enabled)
        if enabled or self.alive:
            return
        self.app.on_draining()
        for listener in self.sockets:
            listener.setblocking(False)
            taken = -1
            while taken != self.nr_conns:
                taken = self.nr_conns
                self.accept(listener)
            listener.close()
