"""The pages for people: the console of operators, and Swagger UI, which shows the API. They hold no
data: they ask the API.
"""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from flask import Response, abort, send_from_directory

from coordinator.http.routes import View, by_name

_HERE = Path(__file__).parent
_SWAGGER_UI = Path(str(files("flask_swagger_ui"))) / "dist"


class Page(NamedTuple):
    """A page: its HTML file, and the files that it loads, each with its folder. `images` is where
    its pictures may come from.
    """

    folder: Path
    html: str
    files: Mapping[str, Path]
    images: str = "'self'"


_CONSOLE_FOLDER, _DOCS_FOLDER = _HERE / "console", _HERE / "docs"
_CONSOLE_FILES = (
    "console.css",
    "console.js",
    "doubt.js",
    "live.js",
    "search.js",
    "dom.js",
    "icon.svg",
)
# The page that comes with Swagger UI has a script within it, and asks others whether the document
# is good: so these of its files, and a page of our own.
_SWAGGER_FILES = (
    "index.css",
    "swagger-ui.css",
    "swagger-ui-bundle.js",
    "favicon-16x16.png",
    "favicon-32x32.png",
)

CONSOLE = Page(_CONSOLE_FOLDER, "console.html", dict.fromkeys(_CONSOLE_FILES, _CONSOLE_FOLDER))
DOCS = Page(
    _DOCS_FOLDER,
    "docs.html",
    {"docs.js": _DOCS_FOLDER, **dict.fromkeys(_SWAGGER_FILES, _SWAGGER_UI)},
    # Swagger UI's style sheet has pictures within it.
    images="'self' data:",
)


def views() -> dict[str, View]:
    """The views of the pages and their files."""

    def show_console() -> Response:
        return _html(CONSOLE)

    def show_console_file(name: str) -> Response:
        return _file(CONSOLE, name)

    def show_docs() -> Response:
        return _html(DOCS)

    def show_docs_file(name: str) -> Response:
        return _file(DOCS, name)

    return by_name(show_console, show_console_file, show_docs, show_docs_file)


def _html(page: Page) -> Response:
    return _send(page, page.folder, page.html)


def _file(page: Page, name: str) -> Response:
    if name not in page.files:
        abort(404)
    return _send(page, page.files[name], name)


def _send(page: Page, folder: Path, name: str) -> Response:
    # Asked for anew each time, so that page and service are of one version.
    answer = send_from_directory(folder, name, max_age=0)
    # All of it comes from here, and no script or style stands within the page: what comes from
    # users stays text.
    answer.headers.update(
        {
            "Content-Security-Policy": (
                "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
                f"img-src {page.images}; base-uri 'none'; form-action 'none'; "
                "frame-ancestors 'none'"
            ),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
    )
    return answer
