"""``openmm-diffsim rdf``: g(r) with error bars of a stored trajectory."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from .common import FINISHED

_HEADER = "r_nm,g,standard_error"


def add(commands: Any) -> None:
    """Its arguments."""
    command = commands.add_parser("rdf", help="g(r) with error bars of a stored trajectory")
    command.add_argument("topology", type=Path, help="a file with the atoms: PDB, mmCIF, GRO, ...")
    command.add_argument("trajectory", type=Path, help="whatever mdtraj reads: DCD, XTC, ...")
    command.add_argument("--atoms", default="all", help="first selection, in mdtraj's language")
    command.add_argument("--atoms2", help="second selection; default the first")
    command.add_argument("--r-max", type=float, help="nm; default half the smallest box")
    command.add_argument("--bins", type=int, default=200)
    command.add_argument("--intramolecular", action="store_true", help="count these pairs too")
    command.add_argument(
        "--exclude-bonds",
        type=int,
        metavar="N",
        help="of the pairs in one molecule leave out only those so many bonds apart or fewer",
    )
    command.add_argument(
        "--molecules",
        choices=("bonds", "residues"),
        default="bonds",
        help="what makes a molecule: the bonds of TOPOLOGY (default), or each of its residues",
    )
    command.add_argument("--output", type=Path, help="default rdf.csv, and a figure beside it")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """g(r) with error bars of a stored trajectory."""
    from .. import io
    from ..curve import Curve
    from ..report import figures
    from ..report.trajectory import trajectory_rdf

    output = options.output or Path("rdf.csv")
    _check_output(output, (options.topology, options.trajectory))
    observable, estimate = trajectory_rdf(
        options.topology,
        options.trajectory,
        options.atoms,
        options.atoms2,
        options.r_max,
        options.bins,
        options.intramolecular,
        options.exclude_bonds,
        options.molecules,
    )
    axis = observable.rules.axis(observable.r)
    curve = Curve(axis.values, estimate.value, estimate.standard_error)
    io.write_csv(output, _HEADER, curve.x, curve.y, curve.spread)
    figure = figures.curve_figure(observable, axis, curve)
    figures.save_figure(figure, output.with_suffix(".png"))
    print(f"{output} and {output.with_suffix('.png')}: g(r) of {estimate.n_effective:.0f} frames")
    return FINISHED


def _check_output(output: Path, inputs: Sequence[Path]) -> None:
    """ConfigurationError where a table or its figure would take the place of another file."""
    figure = output.with_suffix(".png")
    if figure == output or output.is_dir() or not output.parent.is_dir():
        raise ConfigurationError(
            f"--output: got {output}, expected a file in a folder that is there, for the table; "
            "the figure is beside it as .png"
        )
    for made in filter(Path.exists, (output, figure)):
        if any(path.exists() and made.samefile(path) for path in inputs):
            raise ConfigurationError(f"--output: {made} is what is to be read; choose another file")
    foreign = output if output.exists() and not _is_table(output) else figure
    if foreign.exists() and (foreign == output or not output.exists()):
        raise ConfigurationError(
            f"--output: {foreign} is there already and no g(r) that this command wrote; choose "
            "another file, or move that one"
        )


def _is_table(path: Path) -> bool:
    with open(path, "rb") as stream:
        return stream.readline(100).decode("latin-1").strip() == _HEADER
