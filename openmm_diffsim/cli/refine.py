"""``openmm-diffsim refine``: run the fit that a configuration describes."""

from __future__ import annotations

import argparse
from math import isnan
from pathlib import Path
from typing import Any

from .. import interrupts
from ..errors import CheckpointError, ConfigurationError, DiffsimError
from .common import FINISHED, NOT_CONVERGED, held, say, trust_option, warn


def add(commands: Any) -> None:
    """Its arguments."""
    command = commands.add_parser("refine", help="run the fit that a configuration describes")
    command.add_argument("config", type=Path, metavar="CONFIG.toml")
    command.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    command.add_argument("--output", type=Path, metavar="DIR", help="instead of refine.output")
    trust_option(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the fit that a configuration file describes."""
    from ..configuration.toml import read_configuration

    configuration = read_configuration(options.config, options.trust)
    folder = options.output or configuration.refine.output
    with held(folder):
        return _refine(configuration, folder, options.resume)


def _refine(configuration: Any, folder: Path, resume: bool) -> int:
    """In a folder that nobody else writes to."""
    import torch

    from ..configuration.build import build_refinement
    from ..io.manifest import NAME
    from ..report.tables import check_results, write_results

    torch.set_num_threads(1)  # small matrices; the cores are for the MD
    checkpoint = folder / "checkpoint.npz"
    if not resume and (checkpoint.exists() or (folder / NAME).exists()):
        raise ConfigurationError(
            f"refine.output: {folder} already holds a fit; go on with it by --resume, or choose "
            "another folder by --output",
            key="refine.output",
            got=folder,
        )
    fit = build_refinement(configuration, warn=warn)
    told = fit.warnings()  # by what builds it
    if resume and checkpoint.exists():
        fit.resume(checkpoint)
        warn(f"going on after round {len(fit.history)}")
    elif resume:
        warn(f"{folder} holds no checkpoint: starting from the beginning")
    check_results(fit, folder)
    fit.checkpoint = checkpoint
    with fit.holding_checkpoint():
        _run(fit, configuration, folder)
    summary = write_results(fit, folder, configuration.raw)
    for text in summary["warnings"]:
        if text not in told:
            warn(f"warning: {text}")
    print(_closing(fit, summary["final"], folder))
    if fit.converged:
        return FINISHED
    return say(f"{fit.verdict().sentence()}; go on by --resume, with more rounds", NOT_CONVERGED)


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
        f"{folder / 'report.html'}"
    )


def _run(fit: Any, configuration: Any, folder: Path) -> None:
    """Run to the end, or leave behind what there is."""
    from ..report.running import RunningPage

    try:
        if configuration.system.trajectory is not None and not fit.history:
            fit.read(fit.states[0].state_point, configuration.system.trajectory)
            warn(fit.reweight().sentence())
        else:
            _run_on(fit, configuration.refine, RunningPage(folder, configuration.raw, warn))
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or interrupts.received() is not None:
            interrupts.acknowledge()
            safe = _write_last_round(fit, folder, configuration.raw)
            raise KeyboardInterrupt(*safe) from None
        if isinstance(error, DiffsimError) and fit.history:
            _try_to_write(fit, folder, configuration.raw)
            warn(_safe(fit, folder))
        raise


def _run_on(fit: Any, section: Any, on_round: Any) -> None:
    """A checkpoint that cannot be written is a warning: the fit goes on."""
    while True:
        try:
            lengths = (section.rounds, section.steps, section.every, section.equilibration)
            fit.run(*lengths, on_round=on_round)
            return
        except CheckpointError as error:
            warn(f"warning: {error}")
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
    from ..report.tables import write_results

    try:
        fit.settle()
        write_results(fit, folder, raw)
    except (DiffsimError, OSError) as error:
        warn(f"no results were written: {error}")
