"""The command line: refine, rdf, info."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Any

from .errors import (
    CheckpointError,
    ConfigurationError,
    DiffsimError,
    EquilibrationError,
    OverlapError,
    SamplingError,
)

# Platforms that pip can add, and how.
_HOW_TO_GET = {
    "CUDA": 'pip install "openmm[cuda13]" (or cuda12, as the driver asks), on a machine with a GPU',
    "HIP": 'pip install "openmm[hip7]" (or hip6), on a machine with an AMD GPU',
    "OpenCL": "install an OpenCL driver: the GPU's own, or PoCL for a CPU "
    "(Debian: apt-get install pocl-opencl-icd ocl-icd-libopencl1)",
}

FINISHED, FAILED, BAD_INPUT, NOT_TRUSTED, INTERRUPTED = 0, 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 finished; 2 bad input, said in one line; 3 the fit could not be trusted; 130 interrupted;
    1 anything else, such as a full disk.
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (SamplingError, OverlapError, EquilibrationError) as error:
        return _say(error, NOT_TRUSTED)
    except DiffsimError as error:
        return _say(error, BAD_INPUT)
    except OSError as error:
        return _say(error, FAILED)
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED)


def refine(options: argparse.Namespace) -> int:
    """Run the fit that a configuration file describes."""
    import torch

    from .configuration.build import build_refinement
    from .configuration.toml import read_configuration
    from .report.tables import write_results

    torch.set_num_threads(1)  # small matrices; the cores are for the MD
    configuration = read_configuration(options.config)
    folder = options.output or configuration.refine.output
    checkpoint = folder / "checkpoint.npz"
    if checkpoint.exists() and not options.resume:
        raise ConfigurationError(
            f"refine.output: {folder} already holds a fit; go on with it by --resume, or choose "
            "another folder by --output",
            key="refine.output",
            got=folder,
        )
    fit = build_refinement(configuration, warn=_warn)
    if options.resume and checkpoint.exists():
        fit.resume(checkpoint)
        _warn(f"going on after round {len(fit.history)}")
    elif options.resume:
        _warn(f"{folder} holds no checkpoint: starting from the beginning")
    _make_folder(folder)
    fit.checkpoint = checkpoint
    try:
        _run(fit, configuration.refine)
    except (KeyboardInterrupt, DiffsimError):
        if fit.history:
            _try_to_write(fit, folder, configuration.raw)
            _warn(f"{len(fit.history)} rounds are safe in {folder}: go on by --resume")
        raise
    summary = write_results(fit, folder, configuration.raw)
    final = summary["final"]
    wells = [
        f"{w['u_kJ_mol']:.3f} ± {w['standard_error']:.3f} kJ/mol at {w['r_nm']:.3f} nm"
        for w in final["wells"]
    ]
    of_g = "" if isnan(final["rdf_rms"]) else f", rms of g(r) {final['rdf_rms']:.4f}"
    print(
        f"{'converged' if fit.converged else 'finished'} after {len(fit.history)} rounds: misfit "
        f"{final['misfit']:.3g}{of_g}; minima of u(r): "
        f"{', '.join(wells) or 'none'}; see {folder / 'figure.png'}"
    )
    if final["unused_targets"]:
        _warn(f"not used by the method: {', '.join(final['unused_targets'])}")
    return FINISHED


def rdf(options: argparse.Namespace) -> int:
    """g(r) with error bars of a stored trajectory."""
    from . import io
    from .curve import Curve
    from .report import figures
    from .report.trajectory import trajectory_rdf

    observable, estimate = trajectory_rdf(
        options.topology,
        options.trajectory,
        options.atoms,
        options.atoms2,
        options.r_max,
        options.bins,
        options.intramolecular,
    )
    axis = observable.rules.axis(observable.r)
    curve = Curve(axis.values, estimate.value, estimate.standard_error)
    output = options.output or Path("rdf.csv")
    io.write_csv(output, "r_nm,g,standard_error", curve.x, curve.y, curve.spread)
    figure = figures.curve_figure(observable, axis, curve)
    figures.save_figure(figure, output.with_suffix(".png"))
    print(f"{output} and {output.with_suffix('.png')}: g(r) of {estimate.n_effective:.0f} frames")
    return FINISHED


def info(options: argparse.Namespace) -> int:
    """Versions, platforms, what is missing and how to get it."""
    import openmm

    from .report.tables import versions

    for name, version in versions().items():
        print(f"{name:16s} {version}")
    print("\nplatforms of OpenMM, by speed:")
    platforms = [openmm.Platform.getPlatform(i) for i in range(openmm.Platform.getNumPlatforms())]
    for item in sorted(platforms, key=lambda p: -p.getSpeed()):
        print(f"  {item.getName():12s} speed {item.getSpeed():g}")
    for name in sorted(_HOW_TO_GET.keys() - {item.getName() for item in platforms}):
        print(f"  {name:12s} missing: {_HOW_TO_GET[name]}")
    for failure in openmm.Platform.getPluginLoadFailures():
        print(f"  not loaded: {failure}")
    print("\n" + "\n".join(_native_force({item.getName() for item in platforms})))
    return FINISHED


def _native_force(platforms: set[str]) -> list[str]:
    """Is the native force there, for which platforms, and why not for the others?"""
    import openmm

    from .engine import native

    if native.why_not is not None:
        return [
            f"native force: missing: {native.why_not}",
            "learned forces run as a CustomNonbondedForce with a table, pair sums by Numba",
        ]
    lines = [f"native force: present, built for OpenMM {openmm.__version__}, on"]
    for name in sorted(platforms | set(native.loaded) | set(native.not_loaded)):
        if name in native.loaded:
            state = "yes"
        elif name not in platforms:
            state = f"no: OpenMM has no {name} platform here, see above"
        else:
            state = f"no: {native.not_loaded.get(name, 'there is no library for it')}"
        lines.append(f"  {name:12s} {state}")
    return lines


def _run(fit: Any, section: Any) -> None:
    """Run to the end. A checkpoint that cannot be written is a warning: the fit goes on."""
    while True:
        try:
            fit.run(section.rounds, section.steps, section.every, section.equilibration)
            return
        except CheckpointError as error:
            _warn(f"warning: {error}")
            if fit.converged or len(fit.history) >= section.rounds:
                fit.checkpoint = None


def _try_to_write(fit: Any, folder: Path, raw: Any) -> None:
    from .report.tables import write_results

    try:
        fit.settle()
        write_results(fit, folder, raw)
    except (DiffsimError, OSError) as error:
        _warn(f"no results were written: {error}")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"refine.output: cannot make the folder {folder}: {error.strerror or error}",
            key="refine.output",
            got=folder,
        ) from error


def _say(what: object, code: int) -> int:
    print(f"openmm-diffsim: {what}", file=sys.stderr)
    return code


def _warn(what: str) -> None:
    print(what, file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="openmm-diffsim",
        description="Refine a pair potential until simulation and g(r) agree.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("refine", help="run the fit that a configuration describes")
    command.add_argument("config", type=Path, metavar="CONFIG.toml")
    command.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    command.add_argument("--output", type=Path, metavar="DIR", help="instead of refine.output")
    command.set_defaults(run=refine)

    command = commands.add_parser("rdf", help="g(r) with error bars of a stored trajectory")
    command.add_argument("topology", type=Path, help="a file with the atoms: PDB, mmCIF, GRO, ...")
    command.add_argument("trajectory", type=Path, help="whatever mdtraj reads: DCD, XTC, ...")
    command.add_argument("--atoms", default="all", help="first selection, in mdtraj's language")
    command.add_argument("--atoms2", help="second selection; default the first")
    command.add_argument("--r-max", type=float, help="nm; default half the smallest box")
    command.add_argument("--bins", type=int, default=200)
    command.add_argument("--intramolecular", action="store_true", help="count these pairs too")
    command.add_argument("--output", type=Path, help="default rdf.csv, and a figure beside it")
    command.set_defaults(run=rdf)

    command = commands.add_parser("info", help="versions, platforms, what is missing")
    command.set_defaults(run=info)
    return parser
