"""Pages opened in headless Chromium, and what is wrong with them there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WIDTHS = (390, 1280)  # a phone, a desk
_BUDGET = 60_000  # ms, of the browser's own clock
_PATIENCE = 240  # seconds

# Each page is in a frame of each width, whose document is asked, with all that folds open.
_HARNESS = """<!DOCTYPE html><html><head><link rel="icon" href="data:,"></head>
<body>{frames}<pre id="found"></pre><script>
function wrong(frame) {{
  const page = frame.contentDocument, width = frame.clientWidth, found = [];
  for (const each of page.querySelectorAll("details")) each.open = true;
  if (page.documentElement.scrollWidth > width)
    found.push("is " + page.documentElement.scrollWidth + " wide");
  for (const each of page.querySelectorAll("body *")) {{
    if (each.closest(".scroll, pre, svg svg")) continue;
    const box = each.getBoundingClientRect();
    if (box.width > 0 && (box.right > width + 1 || box.left < -1))
      found.push(each.tagName + "." + each.getAttribute("class") + " leaves the page");
  }}
  for (const each of page.querySelectorAll("img"))
    if (!each.getAttribute("alt")) found.push("an image without alt");
  for (const each of page.querySelectorAll("svg[role=img], svg:not(svg svg)"))
    if (!each.querySelector("title") || !each.querySelector("title").textContent)
      found.push("a figure without title");
  for (const each of frame.contentWindow.performance.getEntriesByType("resource"))
    found.push("loads " + each.name);
  const ids = [...page.querySelectorAll("[id]")].map(each => each.id);
  if (new Set(ids).size < ids.length) found.push("an id twice");
  const style = frame.contentWindow.getComputedStyle(page.body);
  return {{name: frame.name, found: found, paper: style.backgroundColor, ink: style.color,
          figures: page.querySelectorAll("svg[role=img]").length}};
}}
window.onload = () => {{
  const all = [...document.querySelectorAll("iframe")].map(wrong);
  document.getElementById("found").textContent = JSON.stringify(all);
}};
</script></body></html>"""


@dataclass(frozen=True)
class Seen:
    """What a browser says of all pages."""

    pages: list[dict[str, Any]]
    """Of each page and width: ``name``, what is wrong (``found``), colours, number of figures."""
    console: list[str]
    requests: list[str]
    """Paths that were asked for, besides the pages themselves."""


def look_at(pages: Mapping[str, bytes], folder: Path, dark: bool = False) -> Seen:
    """Open pages at both widths; ``folder`` is for the browser's own files."""
    frames = "".join(
        f'<iframe name="{name} {width}" src="/page/{name}" '
        f'style="border:0;width:{width}px;height:900px"></iframe>'
        for name in pages
        for width in WIDTHS
    )
    content = {"/": _HARNESS.format(frames=frames).encode()}
    content |= {f"/page/{name}": page for name, page in pages.items()}
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            known = content.get(self.path)
            self.send_response(404 if known is None else 200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(known or b"")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        out, errors = _dumped(f"http://127.0.0.1:{server.server_port}/", folder, dark)
    finally:
        server.shutdown()
        server.server_close()
    found = re.search(r'<pre id="found">(.+?)</pre>', out, re.DOTALL)
    assert found is not None, f"the browser did not come to an end: {out[-500:]} {errors[-2000:]}"
    console = re.findall(r"CONSOLE[^\n]*", errors)
    others = [path for path in asked if path not in content]
    return Seen(json.loads(unescape(found[1])), console, others)


def _dumped(url: str, folder: Path, dark: bool) -> tuple[str, str]:
    assert CHROMIUM is not None
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--enable-logging=stderr",
        f"--user-data-dir={folder / 'browser'}",
        f"--virtual-time-budget={_BUDGET}",
        "--window-size=1400,1000",
        *(["--blink-settings=preferredColorScheme=0"] if dark else []),
    ]
    done = subprocess.run(
        [CHROMIUM, *options, "--dump-dom", url],
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        env={**os.environ, "HOME": str(folder)},
    )
    return done.stdout, done.stderr
