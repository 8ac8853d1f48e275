"""The page for operators, from the files beside this one. It holds no data: it asks the API."""

from pathlib import Path

from flask import Response, abort, send_from_directory

from coordinator.http.routes import View, by_name

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


def views() -> dict[str, View]:
    """The views of the page and its files."""

    def show_console() -> Response:
        return _file(PAGE)

    def show_console_file(name: str) -> Response:
        if name not in FILES:
            abort(404)
        return _file(name)

    return by_name(show_console, show_console_file)


def _file(name: str) -> Response:
    # Looked for anew each time, so that page and service are of one version.
    answer = send_from_directory(FOLDER, name, max_age=0)
    answer.headers.update(HEADERS)
    return answer
