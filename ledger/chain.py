"""The chain over an account's entries, by which a changed, missing or added row is found.

Each entry carries a digest of the entry before it and of all its own fields; the account carries
that of its last entry. So whoever changes an entry has to change all that come after it, and the
account; and what was noted elsewhere of the chain (an *anchor*) no longer fits even then.

The text that is digested begins with what it is and a version. Texts in it have their length in
front and numbers a bar behind, so no two lists of fields make the same text. SHA-256, because the
shards' own servers know it too: `docs/data-model.md` has the check in SQL.
"""

from binascii import b2a_base64
from hashlib import sha256

# SHA-256 in base64.
CHAIN_LENGTH = 44


def first_link(account: str, currency: str) -> str:
    """The chain of an account that has no entries."""
    return _digest(f"tandem.account.1|{len(account)}:{account}|{len(currency)}:{currency}")


def next_link(
    chain: str,
    account: str,
    number: int,
    transfer: str,
    amount: int,
    balance: int,
    counterparty: str,
    stamp: int,
) -> str:
    """The chain after an entry; `chain` is the one before it, the rest are the entry's fields."""
    return _digest(
        f"tandem.entry.1|{len(chain)}:{chain}|{len(account)}:{account}|{number}"
        f"|{len(transfer)}:{transfer}|{amount}|{balance}|{len(counterparty)}:{counterparty}|{stamp}"
    )


def _digest(text: str) -> str:
    return b2a_base64(sha256(text.encode()).digest(), newline=False).decode()
