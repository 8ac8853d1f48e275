"""TLS to ZooKeeper: the server is verified where authorities are given, and asks who calls."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from coordinator.cluster import ClusterError, client, publish_map, read_map
from coordinator.settings import Settings, load
from tests.certificates import Authority
from tests.cluster import reserved_port, wait_until
from tests.contract.test_zookeeper_sessions import MAP, session
from tests.keeper import OwnKeeper, own_keeper


class Secured:
    """A ZooKeeper that speaks TLS on a port of its own, and asks for certificates there."""

    def __init__(self, keeper: OwnKeeper, port: int, authority: Authority, folder: Path) -> None:
        self.keeper = keeper
        self.port = port
        self.authority = authority
        self.others = Authority(folder, "others")
        self.mine = authority.sign("mine")
        self._cluster = f"tls-{secrets.token_hex(2)}"

    def settings(self, **changed: str) -> Settings:
        loaded = load(
            environ={
                "TANDEM_CLUSTER_ID": self._cluster,
                "TANDEM_ZOOKEEPER_HOSTS": f"127.0.0.1:{self.port}",
                "TANDEM_ZOOKEEPER_TLS_CA": str(self.authority.file),
                "TANDEM_ZOOKEEPER_TLS_CERTIFICATE": str(self.mine),
                "TANDEM_ZOOKEEPER_TLS_KEY": str(self.mine),
                "TANDEM_ZOOKEEPER_USER": "tandem",
                "TANDEM_ZOOKEEPER_PASSWORD": "right",
            }
        )
        keeper = msgspec.structs.replace(loaded.zookeeper, **changed)
        return msgspec.structs.replace(loaded, zookeeper=keeper)


def lines(port: int, certificate: Path, authority: Authority) -> list[str]:
    return [
        f"secureClientPort={port}",
        "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
        "ssl.keyStore.type=PEM",
        f"ssl.keyStore.location={certificate}",
        "ssl.trustStore.type=PEM",
        f"ssl.trustStore.location={authority.file}",
        "ssl.clientAuth=need",
        # Of clients: their certificates name no host.
        "ssl.hostnameVerification=false",
    ]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder, "authority")
    with reserved_port() as port:
        configured = lines(port, authority.sign("server"), authority)
        with own_keeper(folder, *configured) as keeper:
            made = Secured(keeper, port, authority, folder)
            publish_map(made.settings(), MAP)
            yield made


def test_a_server_that_is_who_it_should_be(secured: Secured) -> None:
    with session("c1", secured.settings()) as one:
        wait_until(lambda: one.leads and one.map.current, 10, lambda: str(one.trouble))
        assert one.trouble is None


@pytest.mark.parametrize("wrong", ["authority", "host", "no certificate", "no TLS"])
def test_what_does_not_fit_is_refused_by_name(
    secured: Secured, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = {
        "authority": {"tls_ca": str(secured.others.file)},
        "host": {"hosts": f"localhost:{secured.port}"},
        "no certificate": {"tls_certificate": "", "tls_key": ""},
        "no TLS": {"hosts": secured.keeper.hosts},
    }
    settings = secured.settings(**changed[wrong])
    with session("c1", settings) as one:
        if wrong != "no certificate":
            wait_until(lambda: one.trouble is not None, 10, "it is not told")
            assert "zookeeper.tls_ca" in (one.trouble or "")
        assert not one.is_connected
        assert one.map.current is None
    monkeypatch.setattr(client, "_CONNECT_TIMEOUT_S", 1.0)
    with pytest.raises(ClusterError, match=r"zookeeper\.(tls_ca|hosts)"):
        read_map(settings)
