"""The command line: refine, rdf, info."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from math import isnan
from pathlib import Path
from typing import Any, NoReturn

from . import interrupts
from .errors import (
    CheckpointError,
    ConfigurationError,
    DiffsimError,
    EquilibrationError,
    OverlapError,
    SamplingError,
    one_line,
)

# Platforms that pip can add, and how.
_HOW_TO_GET = {
    "CUDA": 'pip install "openmm[cuda13]" (or cuda12, as the driver asks), on a machine with a GPU',
    "HIP": 'pip install "openmm[hip7]" (or hip6), on a machine with an AMD GPU',
    "OpenCL": "install an OpenCL driver: the GPU's own, or PoCL for a CPU "
    "(Debian: apt-get install pocl-opencl-icd ocl-icd-libopencl1)",
}

FINISHED, FAILED, BAD_INPUT, NOT_TRUSTED, NOT_CONVERGED = 0, 1, 2, 3, 4
INTERRUPTED, TERMINATED = 130, 143

_RDF_HEADER = "r_nm,g,standard_error"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 finished, of a fit: converged; 2 bad input, said in one line; 3 the fit could not be trusted;
    4 it has not converged; 130 interrupted by Ctrl-C, 143 by TERM; 1 anything else, such as a full
    disk.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may hold anything
    options = _parser().parse_args(arguments)
    try:
        with interrupts.raised():
            return int(options.run(options))
    except BaseException as error:
        return _code_of(error)


def _code_of(error: BaseException) -> int:
    """Say in one line what ended a command; what is a fault of this program is raised again."""
    # On its way an interrupt may have become anything.
    if isinstance(error, KeyboardInterrupt) or interrupts.received() is not None:
        what = error.args if isinstance(error, KeyboardInterrupt) else ()
        return _say(": ".join(["interrupted", *map(str, what)]), interrupts.exit_code())
    if isinstance(error, SamplingError | OverlapError | EquilibrationError):
        return _say(error, NOT_TRUSTED)
    if isinstance(error, DiffsimError):
        return _say(error, BAD_INPUT)
    if isinstance(error, OSError):
        return _say(_what_to_do(error), FAILED)
    raise error


def refine(options: argparse.Namespace) -> int:
    """Run the fit that a configuration file describes."""
    from .configuration.toml import read_configuration

    configuration = read_configuration(options.config, options.trust)
    folder = options.output or configuration.refine.output
    with _held(folder):
        return _refine(configuration, folder, options.resume)


def _refine(configuration: Any, folder: Path, resume: bool) -> int:
    """In a folder that nobody else writes to."""
    import torch

    from .configuration.build import build_refinement
    from .io.manifest import NAME
    from .report.tables import check_results, write_results

    torch.set_num_threads(1)  # small matrices; the cores are for the MD
    checkpoint = folder / "checkpoint.npz"
    if not resume and (checkpoint.exists() or (folder / NAME).exists()):
        raise ConfigurationError(
            f"refine.output: {folder} already holds a fit; go on with it by --resume, or choose "
            "another folder by --output",
            key="refine.output",
            got=folder,
        )
    fit = build_refinement(configuration, warn=_warn)
    told = fit.warnings()  # by what builds it
    if resume and checkpoint.exists():
        fit.resume(checkpoint)
        _warn(f"going on after round {len(fit.history)}")
    elif resume:
        _warn(f"{folder} holds no checkpoint: starting from the beginning")
    check_results(fit, folder)
    fit.checkpoint = checkpoint
    with fit.holding_checkpoint():
        _run(fit, configuration, folder)
    summary = write_results(fit, folder, configuration.raw)
    for text in summary["warnings"]:
        if text not in told:
            _warn(f"warning: {text}")
    print(_closing(fit, summary["final"], folder))
    if fit.converged:
        return FINISHED
    return _say(f"{fit.verdict().sentence()}; go on by --resume, with more rounds", NOT_CONVERGED)


def _closing(fit: Any, final: Any, folder: Path) -> str:
    """How a fit ended, in one line."""
    wells = [
        f"{w['u_kJ_mol']:.3f} +/- {w['standard_error']:.3f} kJ/mol at {w['r_nm']:.3f} nm"
        for w in final["wells"]
    ]
    of_g = "" if isnan(final["rdf_rms"]) else f", rms of g(r) {final['rdf_rms']:.4f}"
    return (
        f"{'converged' if fit.converged else 'not converged'} after {len(fit.history)} rounds: "
        f"misfit {final['misfit']:.3g}{of_g}; minima of u(r): {', '.join(wells) or 'none'}; see "
        f"{folder / 'figure.png'}"
    )


def rdf(options: argparse.Namespace) -> int:
    """g(r) with error bars of a stored trajectory."""
    from . import io
    from .curve import Curve
    from .report import figures
    from .report.trajectory import trajectory_rdf

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
    io.write_csv(output, _RDF_HEADER, curve.x, curve.y, curve.spread)
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
        return stream.readline(100).decode("latin-1").strip() == _RDF_HEADER


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


def _run(fit: Any, configuration: Any, folder: Path) -> None:
    """Run to the end, or leave behind what there is."""
    try:
        if configuration.system.trajectory is not None and not fit.history:
            fit.read(fit.states[0].state_point, configuration.system.trajectory)
            _warn(fit.reweight().sentence())
        else:
            _run_on(fit, configuration.refine)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or interrupts.received() is not None:
            interrupts.acknowledge()
            safe = _write_last_round(fit, folder, configuration.raw)
            raise KeyboardInterrupt(*safe) from None
        if isinstance(error, DiffsimError) and fit.history:
            _try_to_write(fit, folder, configuration.raw)
            _warn(_safe(fit, folder))
        raise


def _run_on(fit: Any, section: Any) -> None:
    """A checkpoint that cannot be written is a warning: the fit goes on."""
    while True:
        try:
            fit.run(section.rounds, section.steps, section.every, section.equilibration)
            return
        except CheckpointError as error:
            _warn(f"warning: {error}")
            if fit.converged or len(fit.history) >= section.rounds:
                fit.checkpoint = None


def _write_last_round(fit: Any, folder: Path, raw: Any) -> list[str]:
    """Results of the last round that is whole: an interrupt comes at any moment; what is safe."""
    if not fit.checkpoint.exists():
        return []
    fit.resume(fit.checkpoint)
    _try_to_write(fit, folder, raw)
    return [_safe(fit, folder)]


def _safe(fit: Any, folder: Path) -> str:
    return f"{len(fit.history)} rounds are safe in {folder}: go on by --resume"


def _try_to_write(fit: Any, folder: Path, raw: Any) -> None:
    from .report.tables import write_results

    try:
        fit.settle()
        write_results(fit, folder, raw)
    except (DiffsimError, OSError) as error:
        _warn(f"no results were written: {error}")


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The output folder is there, and nobody else's; what stays empty is removed again."""
    from .io.lock import Lock, release_all
    from .io.temporary import discard

    made = [path for path in (folder, *folder.parents) if not path.exists()]
    interrupts.tidy += [release_all, lambda: discard(folder)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(folder / "fit.lock", str(folder))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ConfigurationError(
            f"refine.output: cannot write to the folder {folder}: {error.strerror or error}",
            key="refine.output",
            got=folder,
        ) from error
    try:
        with lock:
            yield
    finally:
        for path in made:
            with suppress(OSError):
                path.rmdir()


def _what_to_do(error: OSError) -> str:
    """What went wrong, with which file, and what helps."""
    help_for = {
        errno.ENOSPC: "make room",
        errno.EDQUOT: "make room, your quota is used up",
        errno.EFBIG: "allow larger files (ulimit -f)",
        errno.EACCES: "choose a folder that you may write to",
        errno.EROFS: "choose a folder that you may write to",
    }
    where = f"{error.filename}: " if error.filename else ""
    advice = help_for.get(error.errno or 0)
    return f"{where}{error.strerror or error}" + (f"; {advice}" if advice else "")


def _say(what: object, code: int) -> int:
    print(one_line(f"openmm-diffsim: {what}"), file=sys.stderr)
    return code


def _warn(what: str) -> None:
    print(what, file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        """End the program."""
        self.exit(BAD_INPUT, one_line(f"{self.prog}: {message}; see {self.prog} --help") + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="openmm-diffsim",
        description="Refine a pair potential until simulation and g(r) agree.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("refine", help="run the fit that a configuration describes")
    command.add_argument("config", type=Path, metavar="CONFIG.toml")
    command.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    command.add_argument("--output", type=Path, metavar="DIR", help="instead of refine.output")
    command.add_argument(
        "--trust",
        action="store_true",
        help="run code that the configuration or system.xml holds or names, and write where it "
        "says: only for what you or somebody you trust wrote",
    )
    command.set_defaults(run=refine)

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
    command.set_defaults(run=rdf)

    command = commands.add_parser("info", help="versions, platforms, what is missing")
    command.set_defaults(run=info)
    return parser
