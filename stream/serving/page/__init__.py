"""The page at ``/`` of the service: its files, and what a browser may do with them.

A job's applicants, ranked, and where one of them stands. It asks the service's own endpoints, and
nobody else: no script, style or picture comes from elsewhere. The files have no data, so they need
no token; the page asks for one where the service does, and keeps it in memory.
"""

from __future__ import annotations

from importlib.resources import files

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self';"
    " frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""The page's Content-Security-Policy: not even an id that is HTML could run anything."""

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}


def page_files() -> dict[str, tuple[str, bytes]]:
    """Return what is served at each path: content type and bytes."""
    found = {}
    for file in files(__name__).iterdir():
        content_type = _TYPES.get(f".{file.name.rpartition('.')[2]}")
        if content_type is not None:
            path = "/" if file.name == "index.html" else f"/{file.name}"
            found[path] = content_type, file.read_bytes()
    return found
