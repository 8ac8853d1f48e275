"""TLS to shards: who they are is verified where authorities are given, for every connection."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shard_client.admin import make_shard
from shard_client.connection import ShardConnection
from shard_client.errors import ShardUnavailable
from shard_client.tls import Tls
from tandem.local.cluster import LocalCluster
from tests.certificates import Authority
from tests.cluster import wait_until
from tests.contract.bench import soon
from tests.contract.lone import CLUSTER, SERVICE, Lone

# A server takes no certificate that has expired already.
SOON_DAYS = 3 / 86_400


class Served:
    """A server that shows certificates of a test's own, and asks clients for such ones."""

    def __init__(self, lone: Lone, folder: Path) -> None:
        self.lone = lone
        self.authority = Authority(folder, "authority")
        self.others = Authority(folder, "others")
        self.tls = Tls(str(self.authority.file))
        self.good = self.authority.sign("good")
        self._shown = folder / "shown.pem"
        self._shown.write_bytes(self.good.read_bytes())
        # MySQL takes no certificate that it does not trust itself.
        both = folder / "both.pem"
        both.write_bytes(self.authority.file.read_bytes() + self.others.file.read_bytes())
        self.options = [
            f"--ssl-ca={both}",
            f"--ssl-cert={self._shown}",
            f"--ssl-key={self._shown}",
        ]

    def show(self, certificate: Path) -> None:
        """Let the server take another certificate."""
        self._shown.write_bytes(certificate.read_bytes())
        is_mariadb = self.lone.is_mariadb
        self.lone.admin("FLUSH SSL" if is_mariadb else "ALTER INSTANCE RELOAD TLS")

    def cipher(self, tls: Tls) -> str:
        """How a connection with it is encrypted; "" if it is not."""
        connection = ShardConnection(self.lone.address._replace(tls=tls), 2.0, 60)
        try:
            status = connection.rows("SHOW SESSION STATUS LIKE 'Ssl_cipher'", soon())
            return str(status[0][1])
        finally:
            connection.close()


def accepted(served: Served) -> bool:
    try:
        return bool(served.cipher(served.tls))
    except ShardUnavailable:
        return False


def restart(lone: Lone, *options: str) -> None:
    local = LocalCluster(lone.local.data_dir, shard_options=options)
    local.stop("s1")
    local.start("s1")


@pytest.fixture(scope="module")
def served(lone: Lone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(lone, tmp_path_factory.mktemp("served"))
    restart(lone, *made.options)
    try:
        yield made
    finally:
        restart(lone)


def test_a_server_that_is_who_it_should_be(served: Served) -> None:
    assert served.cipher(served.tls)
    # Without authorities as ever: encrypted, and not asked who it is.
    served.show(served.others.sign("stranger"))
    try:
        assert served.cipher(Tls())
    finally:
        served.show(served.good)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("authority", "self.signed|unable to get local issuer"),
        ("expired", "expired"),
        ("host", "mismatch"),
    ],
)
def test_a_server_that_is_not(served: Served, wrong: str, named: str) -> None:
    """Neither coordinators nor the administrator log in there."""
    certificates = {
        "authority": served.others.sign("other"),
        "expired": served.authority.sign("expired", days=SOON_DAYS),
        "host": served.authority.sign("elsewhere", host="127.0.0.9"),
    }
    served.show(certificates[wrong])
    admin = served.lone.admin_address._replace(tls=served.tls)
    try:
        wait_until(lambda: not accepted(served), 10, "it is taken for good")
        for address in (served.lone.address, served.lone.admin_address):
            with pytest.raises(ShardUnavailable, match=rf"mysql\.tls_ca.*({named})"):
                ShardConnection(address._replace(tls=served.tls), 2.0, 60)
        with pytest.raises(ShardUnavailable, match=r"mysql\.tls_ca"):
            make_shard(admin, CLUSTER, [(0, 4095)], SERVICE)
    finally:
        served.show(served.good)
    assert served.cipher(served.tls)


def test_all_that_sets_up_a_shard_is_verified(served: Served) -> None:
    admin = served.lone.admin_address._replace(tls=served.tls)
    served.lone.admin(f"ALTER USER '{admin.user}'@'%' REQUIRE SSL")
    try:
        assert make_shard(admin, CLUSTER, [(0, 4095)], SERVICE) == served.lone.uuid
    finally:
        served.lone.admin(f"ALTER USER '{admin.user}'@'%' REQUIRE NONE")


def test_a_user_who_needs_a_certificate(served: Served) -> None:
    """A stolen password alone is good for nothing then."""
    mine, stranger = str(served.authority.sign("mine")), str(served.others.sign("theirs"))
    name = f"{SERVICE.name}@'%'"
    served.lone.admin(f"ALTER USER {name} REQUIRE SUBJECT '/CN=mine'")
    try:
        assert served.cipher(served.tls._replace(certificate=mine, key=mine))
        for tls in (
            served.tls,
            served.tls._replace(certificate=stranger, key=stranger),
            served.tls._replace(certificate=str(served.good), key=str(served.good)),
        ):
            with pytest.raises(ShardUnavailable):
                served.cipher(tls)
        # What sets the user up again leaves it so.
        make_shard(served.lone.admin_address, CLUSTER, [(0, 4095)], SERVICE)
        with pytest.raises(ShardUnavailable, match="Access denied"):
            served.cipher(served.tls)
    finally:
        served.lone.admin(f"ALTER USER {name} REQUIRE NONE")


def test_new_authorities_count_for_the_next_connection(served: Served, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(served.others.file.read_bytes())
    tls = Tls(str(file))
    with pytest.raises(ShardUnavailable, match=r"mysql\.tls_ca"):
        served.cipher(tls)
    file.write_bytes(served.others.file.read_bytes() + served.authority.file.read_bytes())
    assert served.cipher(tls)
    file.unlink()
    with pytest.raises(ShardUnavailable, match=r"ca\.pem"):
        served.cipher(tls)


def test_a_server_without_tls_is_refused(lone: Lone, tmp_path: Path) -> None:
    """As if somebody between had taken the offer away; no password is sent."""
    restart(lone, "--skip-ssl" if lone.is_mariadb else "--tls-version=")
    try:
        tls = Tls(str(Authority(tmp_path, "authority").file))
        with pytest.raises(ShardUnavailable, match=r"mysql\.tls_ca.*doesn't support"):
            ShardConnection(lone.address._replace(tls=tls), 2.0, 60)
        lone.connect().close()
    finally:
        restart(lone)
