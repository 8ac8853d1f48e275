"""How the accounts of a transfer are drawn: pure."""

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, zip_longest

Pair = tuple[str, str]
Draw = Callable[[Sequence[Sequence[str]], random.Random], Iterator[Pair]]


def uniform(places: Sequence[Sequence[str]], chance: random.Random) -> Iterator[Pair]:
    """Two shards, and on each an account, every one as likely as any other. `places` are the
    accounts of each shard.
    """
    while True:
        first, second = chance.sample(range(len(places)), 2)
        yield chance.choice(places[first]), chance.choice(places[second])


def hot(places: Sequence[Sequence[str]], chance: random.Random) -> Iterator[Pair]:
    """From any account of another shard into the first account of the first one."""
    while True:
        yield chance.choice(places[chance.randrange(1, len(places))]), places[0][0]


def zipf(places: Sequence[Sequence[str]], chance: random.Random, s: float) -> Iterator[Pair]:
    """Source and destination by Zipf's law: the account of rank k is as likely as k**-s says. Ranks
    go round the shards; a destination on the shard of the source is drawn again.
    """
    ranks = _ranks(places)
    weights = list(accumulate(rank**-s for rank in range(1, len(ranks) + 1)))
    drawn = _drawn(ranks, weights, chance)
    for place, source in drawn:
        yield source, next(account for other, account in drawn if other != place)


def _ranks(places: Sequence[Sequence[str]]) -> list[tuple[int, str]]:
    """All accounts with their shards, one of each shard in turn."""
    rounds = zip_longest(*([(number, id_) for id_ in ids] for number, ids in enumerate(places)))
    return [ranked for one_of_each in rounds for ranked in one_of_each if ranked]


def _drawn(
    ranks: list[tuple[int, str]], weights: list[float], chance: random.Random
) -> Iterator[tuple[int, str]]:
    while True:
        yield from chance.choices(ranks, cum_weights=weights, k=1000)
