"""The chain of an entry as SQL, for rows that tests make by hand."""


def chain_sql(
    *,
    transfer: str,
    amount: str,
    counterparty: str,
    stamp: str,
    chain: str = "chain",
    account: str = "id",
    number: str = "entry_count",
    balance: str = "balance",
) -> str:
    """An expression; the arguments are expressions, too. Without others, those of the account."""
    texts = {
        name: f"LENGTH({text}), ':', {text}"
        for name, text in (("c", chain), ("a", account), ("t", transfer), ("o", counterparty))
    }
    parts = (
        texts["c"], texts["a"], number, texts["t"], amount, balance, texts["o"], stamp
    )  # fmt: skip
    return "TO_BASE64(UNHEX(SHA2(CONCAT('tandem.entry.1|', " + ", '|', ".join(parts) + "), 256)))"
