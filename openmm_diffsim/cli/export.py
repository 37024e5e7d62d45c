"""``openmm-diffsim export``: what a fit learned, for LAMMPS, GROMACS or HOOMD-blue."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .common import FINISHED, warn


def add(commands: Any) -> None:
    """Its arguments."""
    command = commands.add_parser("export", help="what a fit learned, for another program")
    command.add_argument("folder", type=Path, metavar="FOLDER", help="the output folder of a fit")
    command.add_argument("--to", required=True, choices=("lammps", "gromacs", "hoomd"))
    command.add_argument("--output", type=Path, metavar="DIR", help="default FOLDER/lammps, ...")
    command.add_argument("--state", metavar="NAME", help="which state point, of several")
    command.add_argument("--temperature", type=float, metavar="K", help="default that of the fit")
    command.add_argument("--points", type=int, help="rows of a table")
    command.add_argument(
        "--trust",
        action="store_true",
        help="run code that system.xml holds: only of what you or somebody you trust wrote",
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the files, and say what is left out."""
    from ..export import ENGINES, read_results

    model = read_results(options.folder, options.state, options.temperature, options.trust)
    folder = options.output or options.folder / options.to
    how = {} if options.points is None else {"points": options.points}
    exported = ENGINES[options.to](model, folder, **how)
    for what in exported.left_out:
        warn(f"not exported: {what}")
    print(f"{folder}: {', '.join(path.name for path in exported.files)}")
    return FINISHED
