"""What a fit leaves behind in its output folder."""

from __future__ import annotations

import platform as machine
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from scipy.signal import find_peaks

from . import io, plotting
from .forces import has_native_force, portable_system
from .refinement import Refinement
from .units import MOLAR_GAS_CONSTANT

Array = NDArray[np.float64]


def write_results(
    fit: Refinement, folder: Path, configuration: Mapping[str, Any]
) -> dict[str, Any]:
    """Write tables, system.xml, state.xml, figure.png and summary.json; returns the summary.

    OpenMM alone loads system.xml; with the native force there is system_native.xml beside it,
    which ``import openmm_diffsim`` lets OpenMM load. For a fit with one state point and one pair
    of types.

    Raises
    ------
    OverlapError
        If the frames do not reach the refined parameters.
    OSError
        If a file cannot be written.
    """
    basis = fit.potential.basis
    r = np.linspace(basis.r_min, basis.cutoff, 400)
    u, error = (table[0] for table in fit.potential_table(r))
    comparisons, scalars = compare(fit)
    summary: dict[str, Any] = {
        "rounds": [vars(entry) for entry in fit.history],
        "final": {
            **fit.summary(),
            "wells": _wells(r, u, error, fit.first_contact(), _thermal_energy(fit)),
            "sampled_from_r_nm": fit.first_contact(),
            "scalars": scalars,
            "parameters": _few_parameters(fit),
        },
        "converged": fit.converged,
        "versions": versions(),
        "configuration": configuration,
    }
    io.write_csv(folder / "potential.csv", "r_nm,u_kJ_mol,standard_error", r, u, error)
    for index, c in enumerate(comparisons):
        header = "r_nm,g_target,g_model,standard_error"
        io.write_csv(folder / f"rdf_{index}.csv", header, c.r, c.target, c.model, c.model_error)
    _write_simulation(fit, folder)
    title = _title(summary["final"])
    figure = plotting.fit_figure(r, u, error, comparisons, summary["rounds"], title=title)
    plotting.save_figure(figure, folder / "figure.png")
    io.write_json(folder / "summary.json", summary)
    return summary


def compare(fit: Refinement) -> tuple[list[plotting.RDFComparison], list[dict[str, Any]]]:
    """Each target beside the model's value: those of g(r), and the scalars, in their order."""
    comparisons, scalars = [], []
    for view in fit.views():
        error = np.sqrt(np.diag(view.own_covariance))
        start = 0
        for target in view.targets:
            here = slice(start, start + len(target.values))
            start = here.stop
            if target.r is not None:
                comparisons.append(
                    plotting.RDFComparison(
                        target.r,
                        target.values,
                        target.uncertainty,
                        view.prediction[here],
                        error[here],
                    )
                )
            else:
                scalars.append(
                    {
                        "observable": type(target.observable).__name__.lower(),
                        "target": target.values[0],
                        "uncertainty": target.uncertainty[0],
                        "model": view.prediction[here][0],
                        "standard_error": error[here][0],
                    }
                )
    return comparisons, scalars


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    packages = ("openmm-diffsim", "openmm", "torch", "numpy", "numba", "mdtraj", "pymbar")
    found = {"python": machine.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _wells(
    r: Array, u: Array, error: Array, first: float, thermal: float
) -> list[dict[str, float]]:
    """Minima of u(r) where pairs are found, the deepest first; below 0.05 kT they are ripples."""
    r, u, error = r[r >= first], u[r >= first], error[r >= first]
    places, _ = find_peaks(-u, prominence=0.05 * thermal)
    wells = [
        {"r_nm": float(r[i]), "u_kJ_mol": float(u[i]), "standard_error": float(error[i])}
        for i in places
    ]
    return sorted(wells, key=lambda well: well["u_kJ_mol"])


def _thermal_energy(fit: Refinement) -> float:
    return MOLAR_GAS_CONSTANT * fit.targets[0].state_point.temperature


def _few_parameters(fit: Refinement) -> dict[str, list[float]]:
    """Parameters of an analytic form by name; those of a spline or a network are too many."""
    return {
        name: value.detach().tolist()
        for name, value in fit.potential.named_parameters()
        if value.numel() <= 8
    }


def _write_simulation(fit: Refinement, folder: Path) -> None:
    simulation = fit.targets[0].state_point.simulation
    state = fit.targets[0].state_point.snapshot()
    things = {"system": portable_system(simulation.system), "state": state}
    if has_native_force(simulation.system):
        things["system_native"] = simulation.system
    for name, thing in things.items():
        text = openmm.XmlSerializer.serialize(thing)
        io.atomic_write_bytes(folder / f"{name}.xml", text.encode())


def _title(final: Mapping[str, Any]) -> str:
    parts = [
        f"{final['md_steps']} MD steps, misfit {final['misfit']:.2f}, "
        f"rms of g(r) {final['rdf_rms']:.4f}"
    ]
    for scalar in final["scalars"]:
        parts.append(
            f"{scalar['observable']} {scalar['model']:.0f} ± {scalar['standard_error']:.0f} bar "
            f"(target {scalar['target']:.0f} ± {scalar['uncertainty']:.0f})"
        )
    return "; ".join(parts)
