"""The routes that the service has."""

import re

from coordinator.http.app import create_app
from coordinator.settings import Settings
from coordinator.wiring import Process


def routes() -> list[tuple[str, str]]:
    """Method and address of each; `{}` is a variable part. Nothing is started for it."""
    return sorted(
        (method, re.sub("<[^>]*>", "{}", rule.rule))
        for rule in create_app(Process(Settings(), 0)).url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    )
