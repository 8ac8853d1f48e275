"""What the driver's exceptions mean to a coordinator."""

import pickle

import pymysql
import pytest

from shard_client import errors
from shard_client.errors import (
    ConnectionLost,
    DuplicateRow,
    NoneFree,
    ProtocolBug,
    ShardError,
    ShardUnavailable,
    SlotMoved,
    StatementRefused,
    TooLarge,
    TryAgain,
    UnknownBranch,
    is_busy,
    translate,
)

MEANINGS: dict[type[ShardError], list[int]] = {
    TryAgain: [1205, 1213, 1020, 3572, 1613, 1614, 1402],
    DuplicateRow: [1062],
    UnknownBranch: [1397],
    ProtocolBug: [1398, 1399, 1400, 1440],
    ShardUnavailable: [1290, 1401, 1040, 1045, 1044, 1049, 1114, 1021, 1030, 1836, 2003],
    ConnectionLost: [2006, 2013, 2014, 1053 + 0, 1317, 1927, 4031, 1158, 1159, 1160, 1161, 0],
    StatementRefused: [3819, 1264, 1406, 1644, 4025, 1064, 1366, 1690, 1048],
    TooLarge: [1153, 1301, 1260, 1197, 1038],
}
# What the server would refuse again, whoever asks: settings, limits, passwords, privileges, disks,
# other tables.
MEANINGS[ShardUnavailable] += [
    *(1665, 1104, 1175, 3024, 1969, 1792, 1820, 1862, 1226, 3168, 3032, 1142, 1143, 1370, 1227),
    *(1146, 1054, 1364, 1136, 1419, 1467, 1837, 1449, 3098, 4082, 3118),
]
MEANINGS[TryAgain] += [1412, 1615, 1689, 3101, 3197, 1242]
MEANINGS[ProtocolBug] += [1568, 1694, 1695]
# The server says that it shuts down before it has carried anything out.
MEANINGS[ConnectionLost].remove(1053)
MEANINGS[ShardUnavailable].append(1053)


@pytest.mark.parametrize(
    ("code", "meaning"),
    [(code, meaning) for meaning, codes in MEANINGS.items() for code in codes],
)
def test_an_error_number(code: int, meaning: type[ShardError]) -> None:
    for kind in (pymysql.err.OperationalError, pymysql.err.IntegrityError):
        found = translate("s1", kind(code, "some text"), statement=2)
        assert type(found) is meaning
        assert (found.shard, found.code, found.statement) == ("s1", code, 2)
        assert found.text == "some text"
        assert "shard s1: some text" in str(found)
        assert (str(code) in str(found)) == bool(code)


@pytest.mark.parametrize(
    "error",
    [TimeoutError("timed out"), OSError("broken pipe"), ConnectionResetError(), ValueError("?")],
)
def test_what_is_not_the_servers_leaves_the_outcome_open(error: Exception) -> None:
    found = translate("s1", error, statement=0)
    assert type(found) is ConnectionLost
    assert found.code == 0


def test_a_driver_error_without_a_number_leaves_the_outcome_open() -> None:
    """Nothing says that the server has refused anything."""
    for error in (
        pymysql.err.InterfaceError(0, ""),
        pymysql.err.InternalError("Packet sequence number wrong - got 1 expected 2"),
        pymysql.err.MySQLError(),
    ):
        assert type(translate("s1", error)) is ConnectionLost


def test_a_number_has_one_meaning() -> None:
    numbers = [number for some in errors._NUMBERS.values() for number in some]
    assert len(numbers) == len(set(numbers))


def test_an_unknown_number_is_loud_once(caplog: pytest.LogCaptureFixture) -> None:
    for shard in ("a", "a", "b"):
        found = translate(shard, pymysql.err.OperationalError(9999, "the moon is full"))
        assert type(found) is StatementRefused
    assert [record.getMessage() for record in caplog.records] == [
        "shard a: unknown error 9999: the moon is full",
        "shard b: unknown error 9999: the moon is full",
    ]


def test_only_what_others_do_is_busy() -> None:
    assert is_busy(TryAgain("s1", "", code=1205))
    assert is_busy(DuplicateRow("s1", "", code=1062))
    others = [StatementRefused, TooLarge, ShardUnavailable, ConnectionLost, ProtocolBug, NoneFree]
    for kind in [*others, SlotMoved, UnknownBranch]:
        assert not is_busy(kind("s1", ""))


def test_an_error_that_is_translated_stays() -> None:
    error = SlotMoved("s1", "slot 7 is not on this shard")
    assert translate("s2", error, statement=9) is error


def test_every_error_is_in_the_tree_at_the_top_of_the_file() -> None:
    tree = errors.__doc__ or ""
    for name, item in vars(errors).items():
        if isinstance(item, type) and issubclass(item, ShardError):
            assert name in tree
    assert issubclass(SlotMoved, TryAgain)


def test_unknown_outcomes_are_not_caught_with_known_ones() -> None:
    """ "Nothing has happened" and "may have happened" have only the root in common."""
    for certain in (TryAgain, ShardUnavailable, DuplicateRow, StatementRefused, UnknownBranch):
        assert not issubclass(certain, ConnectionLost)
        assert not issubclass(ConnectionLost, certain)


def test_an_error_passes_from_one_process_to_another() -> None:
    error = TryAgain("s1", "a lock", code=1205, statement=3)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is TryAgain
    assert str(again) == str(error)
    assert (again.shard, again.text, again.code, again.statement) == ("s1", "a lock", 1205, 3)
