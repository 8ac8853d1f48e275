"""The page for operators, from the files beside this one. It holds no data: it asks the API."""

from pathlib import Path

from flask import Blueprint, Response, abort, send_from_directory

FOLDER = Path(__file__).parent
PAGE = "console.html"
FILES = ("console.css", "console.js", "doubt.js", "live.js", "search.js", "dom.js", "icon.svg")

# Everything from here, and no script or style within the page: what comes from users stays text.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def blueprint() -> Blueprint:
    """The routes of the page."""
    routes = Blueprint("console", __name__)

    @routes.get("/console")
    def page() -> Response:
        return _file(PAGE)

    @routes.get("/console/<name>")
    def part(name: str) -> Response:
        if name not in FILES:
            abort(404)
        return _file(name)

    return routes


def _file(name: str) -> Response:
    # Looked for anew each time, so that page and service are of one version.
    answer = send_from_directory(FOLDER, name, max_age=0)
    answer.headers.update(HEADERS)
    return answer
