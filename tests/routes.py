"""The routes that the service has, and what the table of routes says of them."""

import re

from coordinator.http.app import create_app
from coordinator.http.routes import ROUTES
from coordinator.security.tokens import Scope
from coordinator.settings import Settings
from coordinator.wiring import WorkerProcess


def routes() -> list[tuple[str, str]]:
    """Method and address of each; `{}` is a variable part. Nothing is started for it."""
    return sorted(
        (method, _plain(rule.rule))
        for rule in create_app(WorkerProcess(Settings(), 0)).url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    )


def scopes() -> dict[str, Scope | None]:
    """The scope that each route of the table needs; None: it is public."""
    return {f"{route.method} {_plain(route.rule)}": route.scope for route in ROUTES}


def _plain(rule: str) -> str:
    return re.sub("<[^>]*>", "{}", rule)
