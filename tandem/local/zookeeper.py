"""How ZooKeeper is configured, started and asked whether it is ready."""

import socket
from pathlib import Path

from tandem.local.ports import HOST
from tandem.local.servers import ZooKeeper

START_TIMEOUT_S = 60
STOP_GRACE_S = 15
# A session may be as short as two ticks and, set below, as long as a coordinator's setting allows.
CONFIGURATION = """\
dataDir={data}
clientPort={port}
clientPortAddress={host}
tickTime=500
maxSessionTimeout=120000
maxClientCnxns=0
autopurge.snapRetainCount=3
autopurge.purgeInterval=1
admin.enableServer=false
4lw.commands.whitelist=srvr
"""


def configure(folder: Path, port: int) -> Path:
    """Write the configuration of a server whose data lie in `folder`; returns its path."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    file = folder / "zoo.cfg"
    file.write_text(CONFIGURATION.format(data=data, port=port, host=HOST))
    return file


def command(server: ZooKeeper, configuration: Path) -> list[str]:
    """The command line of a server alone, not part of an ensemble."""
    return [
        server.java,
        "-Xmx128m",
        "-XX:+UseSerialGC",
        # It does little; to make it the quickest it could be would cost more than it ever does.
        "-XX:TieredStopAtLevel=1",
        "-Dzookeeper.jmx.log4j.disable=true",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
        "-cp",
        server.class_path,
        "org.apache.zookeeper.server.quorum.QuorumPeerMain",
        str(configuration),
    ]


def is_ready(port: int) -> str | None:
    """None if the server serves clients, else why not."""
    try:
        with socket.create_connection((HOST, port), timeout=5) as connection:
            connection.sendall(b"srvr")
            answer = b""
            while piece := connection.recv(4096):
                answer += piece
    except ConnectionRefusedError:
        return "no connections taken yet"
    except OSError as error:
        return str(error)
    return None if b"Mode:" in answer else answer.decode(errors="replace").strip()
