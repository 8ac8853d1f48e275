"""The page that shows the API to people: Swagger UI's files, and the page beside this one.

The page that comes with them has a script within it, and asks others whether the document is good.
"""

from importlib.resources import files
from pathlib import Path

from flask import Response, abort, send_from_directory

from coordinator.http.routes import View, by_name

FOLDER = Path(__file__).parent
PAGE = "docs.html"
OWN = ("docs.js",)
SWAGGER_UI = Path(str(files("flask_swagger_ui"))) / "dist"
FILES = (
    "index.css",
    "swagger-ui.css",
    "swagger-ui-bundle.js",
    "favicon-16x16.png",
    "favicon-32x32.png",
)

# As for the console; its style sheet has pictures within it.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def views() -> dict[str, View]:
    """The views of the page and its files."""

    def show_docs() -> Response:
        return _file(FOLDER, PAGE)

    def show_docs_file(name: str) -> Response:
        if name in OWN:
            return _file(FOLDER, name)
        if name not in FILES:
            abort(404)
        return _file(SWAGGER_UI, name)

    return by_name(show_docs, show_docs_file)


def _file(folder: Path, name: str) -> Response:
    # Looked for anew each time, so that page and service are of one version.
    answer = send_from_directory(folder, name, max_age=0)
    answer.headers.update(HEADERS)
    return answer
