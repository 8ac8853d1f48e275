"""How a coordinator of a local cluster is started and asked whether it is ready."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from tandem.local.ports import HOST
from tandem.local.servers import PROJECT

MODULE = "coordinator"
START_TIMEOUT_S = 90
# Longer than gunicorn gives its workers to finish their requests.
STOP_GRACE_S = 45
# Coordinators work without them, so they do not get them.
KEPT_FROM_COORDINATORS = {
    "TANDEM_MYSQL_ADMIN_USER",
    "TANDEM_MYSQL_ADMIN_PASSWORD",
    "TANDEM_SHARDS",
    "TANDEM_URL",
    # Those of the commands, who call the coordinators.
    "TANDEM_TOKEN",
    "TANDEM_TOKEN_FILE",
}


def command(module: str = MODULE) -> list[str]:
    """The command line; everything else is in the environment, where passwords are not seen."""
    return [sys.executable, "-m", module]


def environment(cluster: Mapping[str, str], name: str, port: int, scratch: Path) -> dict[str, str]:
    """The environment of coordinator `name`: the caller's, with the cluster's variables over it."""
    merged = {**os.environ, **cluster}
    tokens = merged.get("TANDEM_ACCESS_TOKENS_FILE", "")
    kept = {key: value for key, value in merged.items() if key not in KEPT_FROM_COORDINATORS}
    if file := configuration_file():
        kept["TANDEM_CONFIG"] = str(file)
    return kept | {
        "TANDEM_COORDINATOR_ID": name,
        "TANDEM_COORDINATOR_LISTEN": f"{HOST}:{port}",
        "TANDEM_COORDINATOR_SCRATCH_DIR": str(scratch),
        # For development, on loopback: open, unless a variable says otherwise, and by plain HTTP.
        "TANDEM_ACCESS_TOKENS_FILE": os.path.abspath(tokens) if tokens else "",
        "TANDEM_ACCESS_TLS_CERTIFICATE": "",
        "TANDEM_ACCESS_TLS_KEY": "",
        "TANDEM_ACCESS_TLS_CLIENT_CA": "",
        "PYTHONUNBUFFERED": "1",
    }


def configuration_file() -> Path | None:
    """The file that TANDEM_CONFIG names, or config/tandem.toml here or in the checkout."""
    if named := os.environ.get("TANDEM_CONFIG"):
        return Path(named).absolute()
    files = (Path("config/tandem.toml").absolute(), PROJECT / "config/tandem.toml")
    return next((file for file in files if file.exists()), None)


def url(port: int) -> str:
    """Where a coordinator's API is."""
    return f"http://{HOST}:{port}"


def is_ready(port: int) -> str | None:
    """None if the coordinator can take transfers, else its reasons why not."""
    try:
        # Plain HTTP, asked again and again: to read authorities each time would cost 50 ms.
        answer = httpx.get(f"{url(port)}/readyz", timeout=5, trust_env=False, verify=False)
    except httpx.ConnectError:
        return "no connections taken yet"
    except httpx.HTTPError as error:
        return f"no answer yet ({error})"
    if answer.status_code == 200:
        return None
    try:
        told = answer.json()
        reasons = told.get("reasons") or told.get("detail") or told
    except (ValueError, AttributeError):
        reasons = answer.text
    text = "; ".join(map(str, reasons)) if isinstance(reasons, list) else str(reasons)
    return f"{answer.status_code}: {text[:300]}"
