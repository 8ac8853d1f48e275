"""What has to wait holds back what comes behind it in its batch (rule R9). Pure."""

from collections.abc import Iterable

from coordinator.engine.tickets import Ticket


class BatchOrder(dict[int, set[str]]):
    """Of tickets that are gone through in their order, those that have to wait: they hold back what
    comes after them in their batches on the same accounts. Single ones hold back nothing.

    It maps the identities of batches to accounts, and is false as long as nothing waits: where
    thousands are gone through, that is asked first, as it costs no call.
    """

    def __init__(self, waiting: Iterable[Ticket] = ()) -> None:
        super().__init__()
        for ticket in waiting:
            self.hold(ticket)

    def hold(self, ticket: Ticket) -> None:
        """This one has to wait."""
        if ticket.batch is not None:
            transfer = ticket.transfer
            self.setdefault(id(ticket.batch), set()).update((transfer.source, transfer.destination))

    def blocks(self, ticket: Ticket) -> bool:
        """Whether one before it in its batch that wants one of its accounts has to wait."""
        accounts = self.get(id(ticket.batch))
        if accounts is None:
            return False
        transfer = ticket.transfer
        return transfer.source in accounts or transfer.destination in accounts
