"""Looks and changes take turns: neither side waits for ever, and neither is in the other's way."""

import threading

from eventstore.reading.moments import Moments

PATIENCE_S = 30


def test_neither_side_starves() -> None:
    """Whoever comes again and again lets the other side in between."""
    moments = Moments()
    value = [0, 0]
    torn: list[list[int]] = []
    looks = [0, 0, 0]
    is_over = threading.Event()

    def look(number: int) -> None:
        while not is_over.is_set():
            with moments.look():
                if value[0] != value[1]:
                    torn.append(list(value))
                looks[number] += 1

    threads = [threading.Thread(target=look, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    changes = 0
    while changes < 300 or min(looks) < 100:
        with moments.change():
            value[0] += 1
            value[1] += 1
        changes += 1
    is_over.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not any(thread.is_alive() for thread in threads)
    assert not torn


def test_who_waits_for_a_change_goes_before_the_next_one() -> None:
    moments, entered, order = Moments(), threading.Event(), []

    def look() -> None:
        entered.set()
        with moments.look():
            order.append("look")

    thread = threading.Thread(target=look)
    with moments.change():
        thread.start()
        assert entered.wait(PATIENCE_S)
        while not moments._waiting:
            thread.join(0.001)
        order.append("change")
    with moments.change():
        order.append("change")
    thread.join(PATIENCE_S)
    assert order == ["change", "look", "change"]


def test_a_change_wakes_who_waits_for_it() -> None:
    moments, seen = Moments(), [0]
    assert not moments.wait_until(lambda: seen[0] == 1, 0)
    found: list[bool] = []
    thread = threading.Thread(
        target=lambda: found.append(moments.wait_until(lambda: seen[0] == 1, PATIENCE_S))
    )
    thread.start()
    with moments.change():
        seen[0] = 1
    thread.join(PATIENCE_S)
    assert found == [True]


def test_an_error_in_a_change_leaves_it_open() -> None:
    moments = Moments()
    try:
        with moments.change():
            raise ValueError
    except ValueError:
        pass
    with moments.look(), moments._turn:
        assert moments._looking == 1
