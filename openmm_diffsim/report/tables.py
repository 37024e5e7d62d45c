"""What a fit leaves behind in its output folder."""

from __future__ import annotations

import platform as machine
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from scipy.signal import find_peaks

from .. import io
from ..curve import Curve
from ..engine.adapters import has_native_force, portable_system
from ..refinement import Refinement, Target
from ..units import MOLAR_GAS_CONSTANT
from . import figures

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
    basis = fit.pair_potential().basis
    r = np.linspace(basis.r_min, basis.cutoff, 400)
    u, error = (table[0] for table in fit.potential_table(r))
    found = compare(fit)
    summary: dict[str, Any] = {
        "rounds": [{**vars(entry), "rolled_back": entry.was_rolled_back} for entry in fit.history],
        "final": {
            **fit.summary(),
            "wells": _wells(r, u, error, fit.first_contact(), _thermal_energy(fit)),
            "sampled_from_r_nm": fit.first_contact(),
            "scalars": found.scalars,
            "unused_targets": [target.observable.label for target in fit.unused_targets],
            "parameters": _few_parameters(fit),
        },
        "converged": fit.converged,
        "versions": versions(),
        "configuration": configuration,
    }
    io.write_csv(folder / "potential.csv", "r_nm,u_kJ_mol,standard_error", r, u, error)
    _write_curves(found.curves, folder)
    _write_simulation(fit, folder)
    io.write_json(folder / "summary.json", summary)
    title = _title(summary["final"])
    figure = figures.fit_figure(r, u, error, found.curves, summary["rounds"], title=title)
    figures.save_figure(figure, folder / "figure.png")
    return summary


@dataclass(frozen=True)
class Comparisons:
    """Each target beside the model's value, in their order."""

    curves: list[figures.Comparison]
    scalars: list[dict[str, Any]]


def compare(fit: Refinement) -> Comparisons:
    """All targets of a fit beside what the model says at the present parameters."""
    found = Comparisons([], [])
    for view in fit.views():
        error = np.sqrt(np.diag(view.own_covariance))
        start = 0
        for target in view.targets:
            here = slice(start, start + len(target.values))
            start = here.stop
            _add(found, target, view.prediction[here], error[here])
    return found


def _add(found: Comparisons, target: Target, model: Array, error: Array) -> None:
    observable = target.observable
    if target.curve is not None and target.axis is not None:
        predicted = Curve(target.curve.x, model, error)
        found.curves.append(figures.Comparison(observable, target.axis, target.curve, predicted))
        return
    for index, value in enumerate(target.values):
        found.scalars.append(
            {
                "observable": observable.name + (f"[{index}]" if len(model) > 1 else ""),
                "unit": observable.unit,
                "target": value,
                "uncertainty": target.uncertainty[index],
                "model": model[index],
                "standard_error": error[index],
            }
        )


def _write_curves(curves: Sequence[figures.Comparison], folder: Path) -> None:
    """rdf_0.csv, ..., angles_0.csv, ..., vacf_0.csv, ...: counted for each observable."""
    written: Counter[str] = Counter()
    for c in curves:
        name, prefix = c.observable.name, c.observable.column and f"{c.observable.column}_"
        header = f"{c.axis.column},{prefix}target,{prefix}model,standard_error"
        path = folder / f"{name}_{written[name]}.csv"
        io.write_csv(path, header, c.target.x, c.target.y, c.model.y, c.model.spread)
        written[name] += 1


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
    parts = [f"{final['md_steps']} MD steps", f"misfit {final['misfit']:.2f}"]
    if np.isfinite(final["rdf_rms"]):
        parts.append(f"rms of g(r) {final['rdf_rms']:.4f}")
    title = ", ".join(parts)
    for scalar in final["scalars"]:
        model = _with_error(scalar["model"], scalar["standard_error"])
        target = _with_error(scalar["target"], scalar["uncertainty"])
        title += f"; {scalar['observable']} {model} {scalar['unit']}".rstrip()
        title += f" (target {target})"
    if final["unused_targets"]:
        title += f"; not used by the method: {', '.join(final['unused_targets'])}"
    return title


def _with_error(value: float, error: float) -> str:
    """Both to two digits of the error, such as "0.00245 ± 0.00012"; whole ones from 10 on."""
    if not (np.isfinite(error) and error > 0):
        return f"{value:.4g} ± {error:.2g}"
    digits = max(0, 1 - int(np.floor(np.log10(error))))
    return f"{value:.{digits}f} ± {error:.{digits}f}"
