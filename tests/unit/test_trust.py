"""How often a shard that has failed must be well before it is used."""

from shard_client.trust import Trust


def _looks(trust: Trust, now: float) -> int:
    """How many good looks it takes, half a second apart."""
    count = 1
    while not trust.prove(now + count / 2):
        count += 1
    return count


def test_one_good_look_is_enough_at_first_and_after_the_first_failure() -> None:
    trust = Trust()
    assert trust.prove(0)
    trust.lose(1)
    assert _looks(trust, 1) == 1


def test_each_further_failure_takes_twice_as_many_up_to_a_bound() -> None:
    trust = Trust()
    taken = []
    for failure in range(8):
        trust.lose(failure / 100)
        taken.append(_looks(trust, failure / 100))
    assert taken == [1, 2, 4, 8, 16, 16, 16, 16]


def test_a_look_in_vain_begins_anew() -> None:
    trust = Trust()
    trust.lose(0)
    trust.lose(0)
    assert not trust.prove(1)
    trust.fail()
    assert not trust.prove(2)
    assert trust.prove(3)


def test_looks_at_one_moment_count_once() -> None:
    trust = Trust()
    trust.lose(0)
    trust.lose(0)
    assert not trust.prove(1)
    assert not trust.prove(1.1)
    assert trust.prove(1.5)


def test_failures_are_forgotten() -> None:
    trust = Trust()
    for _ in range(5):
        trust.lose(0)
    assert trust.needed(29) == 16
    assert trust.needed(31) == 1


def test_what_will_not_pass_soon_takes_many_looks_at_once() -> None:
    trust = Trust()
    trust.lose(0, for_long=True)
    assert trust.needed(1) == 16
    assert trust.needed(31) == 1
