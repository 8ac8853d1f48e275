"""Everything at once, on both kinds of server: nothing is lost, made, doubled or stuck."""

import random
import uuid

from tests.bank import Bank, client, post, post_one, together, transfer
from tests.cluster import Cluster


def test_there_and_back_at_once(any_cluster: Cluster) -> None:
    """A->B against B->A: no deadlock, no hang, all done."""
    bank = Bank(any_cluster, 2)
    one, other = bank.two_across()

    def pay(index: int) -> None:
        source, destination = (one, other) if index % 2 else (other, one)
        with client(any_cluster.urls[index % 2]) as http:
            for _ in range(20):
                answer = post_one(http, transfer(source, destination, 1, uuid.uuid4().hex))
                assert answer.status_code == 201, answer.text

    together(8, pay)
    assert bank.balances() == {one: 1000, other: 1000}
    bank.check()


def test_one_hot_account(any_cluster: Cluster) -> None:
    """64 clients pay into one account, through every coordinator."""
    bank = Bank(any_cluster, 65)
    hot, *payers = bank.accounts

    def pay(index: int) -> None:
        with client(any_cluster.urls[index % 2]) as http:
            for _ in range(5):
                answer = post_one(http, transfer(payers[index], hot, 7, uuid.uuid4().hex))
                assert answer.status_code == 201, answer.text

    together(64, pay)
    assert bank.balances()[hot] == 1000 + 64 * 5 * 7
    bank.check()


def test_same_key_at_once(any_cluster: Cluster) -> None:
    """One effect; the others are replays of it, or told that it is being worked on."""
    bank = Bank(any_cluster, 4)
    one, other = bank.two_across()
    for _ in range(10):
        before = bank.balances()
        item = transfer(one, other, 3, uuid.uuid4().hex)
        answers = []

        def send(index: int, item: dict = item, answers: list = answers) -> None:
            with client(any_cluster.urls[index % 2]) as http:
                answers.append(post_one(http, item))

        together(8, send)
        assert {answer.status_code for answer in answers} <= {201, 409}
        done = [answer for answer in answers if answer.status_code == 201]
        firsts = [a for a in done if "Idempotent-Replayed" not in a.headers]
        assert len(firsts) == 1
        assert len({answer.content for answer in done}) == 1
        after = bank.balances()
        assert (before[one] - after[one], after[other] - before[other]) == (3, 3)
    bank.check()


def test_groups_of_every_size(any_cluster: Cluster) -> None:
    """Batches of 1 to 10,000 at once, over few accounts and many."""
    bank = Bank(any_cluster, 50)
    chance = random.Random(7)

    def pay(size: int) -> None:
        items = [bank.random_item(chance) for _ in range(size)]
        with client(any_cluster.urls[size % 2]) as http:
            results = post(http, "/v1/transfers/batch", {"transfers": items})["results"]
            assert {result["status"] for result in results} <= {"committed", "rejected"}
            assert {result.get("reason") for result in results} <= {None, "insufficient-funds"}
            again = post(http, "/v1/transfers/batch", {"transfers": items})["results"]
        assert all(result["replayed"] for result in again)
        assert [r["status"] for r in again] == [r["status"] for r in results]

    sizes = [1, 2, 10, 100, 1000, 10_000]
    together(len(sizes), lambda index: pay(sizes[index]))
    bank.check()


def test_batch_in_its_order(any_cluster: Cluster) -> None:
    """A batch is executed in order as far as its items share accounts: what the first brings the
    second can spend, along a chain through all accounts, while others use the same accounts.
    """
    bank = Bank(any_cluster, 20, funds=1)
    chain = [
        transfer(source, destination, index + 1, uuid.uuid4().hex)
        for index, (source, destination) in enumerate(
            zip(bank.accounts, bank.accounts[1:], strict=False)
        )
    ]
    with client(any_cluster.urls[0]) as http:
        results = post(http, "/v1/transfers/batch", {"transfers": chain})["results"]
    assert [result["status"] for result in results] == ["committed"] * 19
    assert bank.balances()[bank.accounts[-1]] == 20
    bank.check()


def test_locked_accounts_hold_up_nobody_else(mysql_cluster: Cluster) -> None:
    """Accounts that somebody keeps locked for long, as a branch in doubt does, concern those who
    want them: everybody else's transfers are all carried out.
    """
    bank = Bank(mysql_cluster, 40)
    on_s1 = bank.accounts[0::2]
    locked, free = on_s1[:6], [name for name in bank.accounts if name not in on_s1[:6]]
    names = ",".join(f"'{name}'" for name in locked)
    refused = []

    def pay(index: int) -> None:
        chance = random.Random(index)
        with client(mysql_cluster.urls[index % 2]) as http:
            if index < 12:
                item = transfer(locked[index % 6], free[index], 1, uuid.uuid4().hex)
                refused.append(post_one(http, item).status_code)
                return
            for _ in range(25):
                source, destination = chance.sample(free, 2)
                answer = post_one(http, transfer(source, destination, 1, uuid.uuid4().hex))
                assert answer.status_code == 201, answer.text

    with mysql_cluster.sql("s1") as connection, connection.cursor() as cursor:
        cursor.execute("START TRANSACTION")
        cursor.execute(f"SELECT id FROM accounts WHERE id IN ({names}) FOR UPDATE")
        together(20, pay)
        cursor.execute("ROLLBACK")
    assert refused == [503] * 12
    bank.check()
