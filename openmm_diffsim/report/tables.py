"""What a fit leaves behind in its output folder."""

from __future__ import annotations

import platform as machine
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
from ..refinement import ParameterTable, Refinement, Target, Verdict
from ..units import MOLAR_GAS_CONSTANT
from . import figures, page
from .running import manifest_of

Array = NDArray[np.float64]

_PARAMETERS = "parameters.csv"
_FEW = 8  # parameters of a name, of an analytic form


def write_results(
    fit: Refinement, folder: Path, configuration: Mapping[str, Any]
) -> dict[str, Any]:
    """Write tables, system.xml, state.xml, figures, report.html and summary.json, which it returns.

    OpenMM alone loads system.xml; with the native force there is system_native.xml beside it,
    which ``import openmm_diffsim`` lets OpenMM load. For a fit with one state point.

    What was written is noted in written.json.

    Raises
    ------
    OverlapError
        If the frames do not reach the refined parameters.
    TakenError
        If a file of such a name is there that this fit did not write; see ``check_results``.
    OSError
        If a file cannot be written.
    """
    basis = fit.pair_potential().basis
    r = np.linspace(basis.r_min, basis.cutoff, 400)
    u, error = fit.potential_table(r)
    found = compare(fit)
    agreed = _agreement(fit)
    table = fit.parameter_table() if _has_few(fit) else None
    summary: dict[str, Any] = {
        "rounds": [{**vars(entry), "rolled_back": entry.was_rolled_back} for entry in fit.history],
        "final": {
            **fit.summary(),
            "wells": _all_wells(r, u, error, fit),
            "sampled_from_r_nm": fit.first_contact(),
            "scalars": found.scalars,
            "agreement": agreed,
            "unused_targets": [target.observable.label for target in fit.unused_targets],
            "parameters": _few_parameters(fit),
            "parameter_errors": None if table is None else _told(table),
        },
        "converged": fit.converged,
        "theory": [state.why_no_theory or "used" for state in fit.states],
        "verdict": fit.verdict().as_data(),
        "warnings": fit.warnings(),
        "versions": versions(),
        "configuration": configuration,
    }
    title = "\n".join([_title(summary["final"]), *_notes(fit.verdict(), summary["warnings"])])
    figure = figures.fit_figure(r, u, error, found.curves, summary["rounds"], title=title)
    files = {
        "potential.csv": _potential_file(r, u, error),
        **({} if table is None else {_PARAMETERS: _parameter_file(table)}),
        **_curve_files(found.curves),
        **_simulation_files(fit),
        "figure.png": figures.figure_bytes(figure),
        "summary.json": io.json_bytes(summary),
    }
    files[page.NAME] = page.results_page(fit, summary, files, folder.resolve().name)
    manifest_of(fit, folder).write(files)
    return summary


def check_results(fit: Refinement, folder: Path) -> None:
    """Can ``write_results`` write there, without replacing what this fit did not write?

    Raises
    ------
    TakenError
        If not: it names the file.
    """
    curves = [t.observable.name for t in fit.targets if t.curve is not None and t.axis is not None]
    systems = [f"{name}.xml" for name in _simulation(fit)]
    own = [_PARAMETERS] if _has_few(fit) else []
    names = ["potential.csv", *own, *_numbered(curves), *systems, "figure.png", "summary.json"]
    manifest_of(fit, folder).check([*names, page.NAME])


@dataclass(frozen=True)
class Comparisons:
    """Each target beside the model's value, in their order."""

    curves: list[figures.Comparison]
    scalars: list[dict[str, Any]]


def compare(fit: Refinement) -> Comparisons:
    """All targets of a fit beside what the model says at the present parameters."""
    found = Comparisons([], [])
    for view in fit.comparisons():
        error = view.own_error()
        for target, here in view.places():
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


def _agreement(fit: Refinement) -> list[dict[str, Any]]:
    """Of each target whether it is reached within its errors, and what its nuisances are."""
    return [
        {
            "observable": each.target.observable.label,
            "chi_squared": each.chi_squared,
            "expected": each.expected,
            "p_value": each.p_value,
            "reached": each.is_reached,
            "nuisances": [{**vars(u), "found": u.is_found} for u in each.nuisances],
            "text": str(each),
        }
        for each in fit.agreement()
    ]


def _curve_files(curves: Sequence[figures.Comparison]) -> dict[str, bytes]:
    """rdf_0.csv, ..., angles_0.csv, ..., vacf_0.csv, ...: counted for each observable."""
    names = _numbered([c.observable.name for c in curves])
    return {name: _curve_table(c) for name, c in zip(names, curves, strict=True)}


def _numbered(names: Sequence[str]) -> list[str]:
    counts: Counter[str] = Counter()
    files = []
    for name in names:
        files.append(f"{name}_{counts[name]}.csv")
        counts[name] += 1
    return files


def _curve_table(c: figures.Comparison) -> bytes:
    prefix = c.observable.column and f"{c.observable.column}_"
    header = f"{c.axis.column},{prefix}target,{prefix}model,standard_error"
    return io.csv_bytes(header, c.target.x, c.target.y, c.model.y, c.model.spread)


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


def _potential_file(r: Array, u: Array, error: Array) -> bytes:
    """One column and its error for each pair of types, [pairs, len(r)]."""
    names = [f"u_kJ_mol{of},standard_error{of}" for of in _pairs_of_types(len(u), "_{}_{}")]
    columns = [column for pair in zip(u, error, strict=True) for column in pair]
    return io.csv_bytes(",".join(["r_nm", *names]), r, *columns)


def _pairs_of_types(n_pairs: int, text: str) -> list[str]:
    """What to call each pair of types; nothing where there is one."""
    n_types = int((2 * n_pairs) ** 0.5)
    pairs = [text.format(a, b) for a in range(n_types) for b in range(a, n_types)]
    return pairs if n_pairs > 1 else [""]


def _all_wells(r: Array, u: Array, error: Array, fit: Refinement) -> list[dict[str, Any]]:
    """Minima of all pairs of types, which each says where there are several."""
    found: list[dict[str, Any]] = []
    names = _pairs_of_types(len(u), "{} {}")
    for name, *row in zip(names, u, error, strict=True):
        own: dict[str, Any] = {"types": name} if name else {}
        wells = _wells(r, row[0], row[1], fit.first_contact(), _thermal_energy(fit))
        found += [well | own for well in wells]
    return sorted(found, key=lambda well: float(well["u_kJ_mol"]))


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
        if value.numel() <= _FEW
    }


def _has_few(fit: Refinement) -> bool:
    """Are all parameters those of an analytic form?"""
    sizes = [p.numel() for p in fit.potential.parameters() if p.requires_grad]
    return bool(sizes) and max(sizes) <= _FEW


def _told(table: ParameterTable) -> dict[str, Any]:
    own = {name: getattr(table, name) for name in ("names", "standard_error", "correlation")}
    return own | {"posterior_over_prior": table.posterior_over_prior}


def _parameter_file(table: ParameterTable) -> bytes:
    columns = (table.values, table.standard_error, table.prior, table.posterior_over_prior)
    rows = zip(table.names, *columns, strict=True)
    lines = ["parameter,value,standard_error,prior,posterior_over_prior"]
    lines += [f"{n},{v:.10g},{e:.4g},{p:.4g},{q:.4g}" for n, v, e, p, q in rows]
    return ("\n".join(lines) + "\n").encode()


def _simulation_files(fit: Refinement) -> dict[str, bytes]:
    things = {name: thing() for name, thing in _simulation(fit).items()}
    return {
        f"{name}.xml": openmm.XmlSerializer.serialize(thing).encode()
        for name, thing in things.items()
    }


def _simulation(fit: Refinement) -> dict[str, Callable[[], Any]]:
    """What plain OpenMM goes on from, and the native form of it, by the names of the files."""
    point = fit.targets[0].state_point
    system = point.simulation.system
    things = {"system": lambda: portable_system(system), "state": point.snapshot}
    return things | ({"system_native": lambda: system} if has_native_force(system) else {})


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
    for each in final["agreement"]:
        for nuisance in filter(lambda u: u["found"], each["nuisances"]):
            value = _with_error(nuisance["value"], nuisance["error"])
            title += f"; {nuisance['name']} of {each['observable']} {value}"
    return title


def _notes(verdict: Verdict, warnings: Sequence[str]) -> list[str]:
    """What a figure has to say of a fit, a line each; what the verdict says is no warning more."""
    first = [] if verdict.converged else [verdict.sentence()]
    return first + [text for text in warnings if not any(text in said for said in first)]


def _with_error(value: float, error: float) -> str:
    """Both to two digits of the error, such as "0.00245 ± 0.00012"; whole ones from 10 on."""
    if not (np.isfinite(error) and error > 0):
        return f"{value:.4g} ± {error:.2g}"
    digits = max(0, 1 - int(np.floor(np.log10(error))))
    return f"{value:.{digits}f} ± {error:.{digits}f}"
