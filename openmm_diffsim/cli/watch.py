"""``openmm-diffsim watch``: the page of a fit in a browser, new after each round."""

from __future__ import annotations

import argparse
import errno
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

from ..errors import ConfigurationError
from .common import FINISHED

_HOST = "127.0.0.1"
_PORT = 8077
_EVERY = 3  # seconds
_PAGE = "report.html"
_BODY = b"<body>"

_WAITING = b"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>waiting for the first round</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,"></head>
<body><p>There is no report.html yet: it comes with the first round.</p></body></html>
"""


def add(commands: Any) -> None:
    """Its arguments."""
    command = commands.add_parser("watch", help="the page of a fit in a browser, while it runs")
    command.add_argument("folder", type=Path, metavar="FOLDER", help="refine.output of the fit")
    command.add_argument(
        "--port", type=int, default=_PORT, help=f"of this machine; default {_PORT}, 0 for any"
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve the page to this machine alone, until Ctrl-C."""
    if not options.folder.is_dir():
        raise ConfigurationError(
            f"{options.folder}: expected the folder that a fit writes to", got=options.folder
        )
    server = serve(options.folder, options.port)
    print(f"http://{_HOST}:{server.server_port}/ shows {options.folder}; Ctrl-C ends", flush=True)
    ended = Event()
    thread = Thread(target=_tell_end, args=(options.folder, ended), daemon=True)
    thread.start()
    try:
        server.serve_forever(poll_interval=0.2)
    finally:
        ended.set()
        server.server_close()
    return FINISHED


def serve(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of the page of a folder and of nothing else, on 127.0.0.1.

    Raises
    ------
    ConfigurationError
        If the port is no port, or taken.
    """
    handler = type("Handler", (_Handler,), {"folder": folder})
    try:
        return ThreadingHTTPServer((_HOST, port), handler)
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        raise ConfigurationError(
            f"--port: got {port}: {error}; take another, or 0 for any that is free", got=port
        ) from error


def is_running(folder: Path) -> bool:
    """Is a process at work in the folder?"""
    from ..io.lock import is_held

    return is_held(folder / "fit.lock")


def page_of(folder: Path) -> tuple[bytes, bool]:
    """The page as it is now, with a line about the fit on top, and whether there will be more."""
    more = is_running(folder)
    try:
        page = (folder / _PAGE).read_bytes()
    except FileNotFoundError:
        return _WAITING, True
    told = (
        f"The fit is running; this page looks for a new round every {_EVERY} seconds."
        if more
        else "The fit has ended: nothing runs in this folder."
    )
    banner = f'<p class="banner" role="status">{told}</p>'.encode()
    return page.replace(_BODY, _BODY + b"\n" + banner, 1), more


class _Handler(BaseHTTPRequestHandler):
    """Answers with the page to whoever asks for it by a name of this machine."""

    folder: Path

    def do_GET(self) -> None:
        """The page, at / only."""
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if host not in (_HOST, "localhost"):  # a name that others chose may lead here, too
            self.send_error(403)
            return
        if self.path not in ("/", f"/{_PAGE}"):
            self.send_error(404)
            return
        page, more = page_of(self.folder)
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.send_header("Cache-Control", "no-store")
        if more:
            self.send_header("Refresh", str(_EVERY))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a terminal is for what a user should know."""


def _tell_end(folder: Path, ended: Event) -> None:
    """Say so in the terminal once the fit ends."""
    was_running = False
    while not ended.wait(_EVERY):
        if is_running(folder):
            was_running = True
        elif was_running:
            print(f"the fit in {folder} has ended; see {folder / _PAGE}", flush=True)
            return
