"""How Prometheus is configured, started and asked whether it is ready."""

from collections.abc import Mapping
from pathlib import Path

import httpx

from tandem.local.errors import LocalError
from tandem.local.ports import HOST
from tandem.local.servers import PROJECT, Prometheus

START_TIMEOUT_S = 60
STOP_GRACE_S = 15
# What the product ships: scrape configuration and rules.
CONFIGURATION = PROJECT / "config/prometheus"
# Kept for two days, and no more than this.
RETENTION_TIME, RETENTION_SIZE = "2d", "1GB"


def configure(folder: Path, configuration: Path = CONFIGURATION) -> None:
    """Let the server in `folder` use a configuration such as the product's, with its rules.

    They are linked: a change there counts from the next start on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("prometheus.yml", "rules"):
        if not (configuration / name).exists():
            raise LocalError(f"there is no {configuration / name}: monitoring needs a checkout")
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(configuration / name)


def watch(folder: Path, coordinators: Mapping[str, int]) -> None:
    """Let the server in `folder` scrape these (name -> port); one that runs sees it by itself."""
    targets = folder / "targets"
    targets.mkdir(parents=True, exist_ok=True)
    part = targets / "coordinators.part"
    part.write_text(
        "".join(
            f'- {{targets: ["{HOST}:{port}"], labels: {{instance: {name}}}}}\n'
            for name, port in coordinators.items()
        )
    )
    part.replace(targets / "coordinators.yml")


def command(server: Prometheus, folder: Path, port: int) -> list[str]:
    """The command line of the server whose configuration and data lie in `folder`."""
    return [
        server.program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--storage.tsdb.retention.time={RETENTION_TIME}",
        f"--storage.tsdb.retention.size={RETENTION_SIZE}",
        f"--web.listen-address={HOST}:{port}",
        *([f"--web.local-assets={server.pages}"] if server.pages else []),
    ]


def url(port: int) -> str:
    """Where its pages and its API are."""
    return f"http://{HOST}:{port}"


def is_ready(port: int) -> str | None:
    """None if it answers queries, else why not."""
    try:
        # Plain HTTP, asked again and again: to read authorities each time would cost 50 ms.
        answer = httpx.get(f"{url(port)}/-/ready", timeout=5, trust_env=False, verify=False)
    except httpx.ConnectError:
        return "no connections taken yet"
    except httpx.HTTPError as error:
        return f"no answer yet ({error})"
    return None if answer.status_code == 200 else f"{answer.status_code}: {answer.text.strip()}"
