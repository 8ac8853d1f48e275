"""The names of global transactions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shard_client.xid import FORMAT_ID, Gtrid, xid

_names = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-", min_size=1, max_size=10)
_gtrids = st.builds(
    Gtrid, _names, _names, _names, st.integers(0, 16**11 - 1), st.integers(0, 2**64 - 1)
)
NAME = "tandem.s1.c1.019ab5e3c1f.00000000deadbeef"


@given(_gtrids)
def test_a_name_taken_apart_and_put_together(gtrid: Gtrid) -> None:
    assert Gtrid.parse(str(gtrid)) == gtrid


@given(_gtrids, _names)
def test_every_name_fits_into_an_xid(gtrid: Gtrid, shard: str) -> None:
    assert len(str(gtrid)) <= 64
    assert xid(str(gtrid), shard) == f"'{gtrid}','{shard}',{FORMAT_ID}"


def test_a_golden_name() -> None:
    gtrid = Gtrid("tandem", "s1", "c1", 0x19AB5E3C1F, 0xDEADBEEF)
    assert str(gtrid) == "tandem.s1.c1.019ab5e3c1f.00000000deadbeef"
    assert int.from_bytes(b"TAND") == FORMAT_ID


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tandem",
        NAME.upper(),
        NAME[:-1],
        NAME + "0",
        NAME + "\n",
        " " + NAME,
        NAME + ".s1",
        NAME.replace("tandem", ""),
        NAME.replace("tandem", "elevenchars"),
        NAME.replace("s1", "s.1"),
        NAME.replace("c1", "ü"),
        NAME.replace("019ab5e3c1f", "19ab5e3c1f"),
        NAME.replace("deadbeef", "deadbeeg"),
    ],
)
def test_names_of_others(text: str) -> None:
    assert Gtrid.parse(text) is None


@pytest.mark.parametrize(
    ("gtrid", "shard"),
    [
        ("", "s1"),
        ("a'b", "s1"),
        ("a b", "s1"),
        ("a\\", "s1"),
        ("a\n", "s1"),
        ("x" * 65, "s1"),
        (NAME, ""),
        (NAME, "s'1"),
        (NAME, "s1\n"),
        (NAME, "S1"),
        (NAME, "elevenchars"),
    ],
)
def test_nothing_else_gets_into_sql(gtrid: str, shard: str) -> None:
    with pytest.raises(ValueError, match="no XID"):
        xid(gtrid, shard)
