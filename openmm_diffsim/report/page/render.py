"""Pages from templates, each with its style inside; whatever comes from others is escaped."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from . import text

_FOLDER = Path(__file__).parent / "templates"


def render(template: str, **known: Any) -> bytes:
    """A page of this template, UTF-8."""
    page = _environment().get_template(template).render(style=_style(), **known)
    return page.encode("utf-8", errors="replace")


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # only where a page is made

    made = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"number": text.number, "thousands": text.thousands, "unit": text.unit}
    return made


@cache
def _style() -> Markup:
    return Markup((_FOLDER / "style.css").read_text(encoding="utf-8"))
