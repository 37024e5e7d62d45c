"""``openmm-diffsim compare``: several fits on one page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from .common import FINISHED

_OURS = b'<meta name="generator" content="openmm-diffsim comparison">'
_HEAD = 1000  # bytes of a file in which that stands


def add(commands: Any) -> None:
    """Its arguments."""
    command = commands.add_parser("compare", help="several fits on one page")
    command.add_argument(
        "folders", type=Path, nargs="+", metavar="FOLDER", help="what fits wrote: two or more"
    )
    command.add_argument("--output", type=Path, default=Path("compare.html"), metavar="FILE")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Potentials overlaid, misfits and parameters in one table, and what is not the same."""
    from ..io import atomic_write_bytes
    from ..report.page.compare import compare_page

    if len(options.folders) < 2:
        raise ConfigurationError(
            f"expected two folders or more, got {options.folders[0]}; its own page is report.html",
            got=options.folders,
        )
    _check_output(options.output)
    atomic_write_bytes(options.output, compare_page(options.folders))
    print(f"{options.output}: {len(options.folders)} fits side by side")
    return FINISHED


def _check_output(output: Path) -> None:
    """ConfigurationError where the page would take the place of anything but such a page."""
    if output.is_dir() or not output.parent.is_dir():
        raise ConfigurationError(
            f"--output: got {output}, expected a file in a folder that is there", got=output
        )
    if output.exists():
        with open(output, "rb") as stream:
            if _OURS not in stream.read(_HEAD):
                raise ConfigurationError(
                    f"--output: {output} is there already and no page that this command wrote; "
                    "choose another file, or move that one",
                    got=output,
                )
