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

from .. import io
from ..curve import Curve
from ..engine.adapters import has_native_force, portable_system
from ..refinement import ParameterTable, Refinement, Target, Verdict
from ..units import ReducedUnits, stated_units
from . import figures, page
from .functions import FunctionTable, function_files, function_tables, names_of, wells_of
from .page.text import with_error
from .parameters import (
    PARAMETERS,
    few_parameters,
    has_few,
    number_csv,
    parameter_csv,
    parameters_json,
    told,
)
from .running import manifest_of

Array = NDArray[np.float64]

_PARAMETERS, _NUMBERS = "parameters.csv", "numbers.csv"


def write_results(
    fit: Refinement, folder: Path, configuration: Mapping[str, Any]
) -> dict[str, Any]:
    """Write what a fit leaves behind to a folder; returns the summary.

    potential.csv, bond.csv, ... : each function of a coordinate, with errors; numbers.csv: physical
    parameters of a System; parameters.csv: those of an analytic form; parameters.json: all of them,
    for ``load_parameters``; rdf_0.csv, ...: each curve beside its target, with the name of its
    state where there are several. A fit in reduced units has each table in these too, as
    potential_reduced.csv. OpenMM alone loads system.xml; with the native force there is
    system_native.xml beside it, which ``import openmm_diffsim`` lets OpenMM load. These are of the
    first state; of several each has its own, as NAME_system.xml.

    report.html is one page of all that. What was written is noted in written.json.

    Raises
    ------
    OverlapError
        If the frames do not reach the refined parameters.
    TakenError
        If a file of such a name is there that this fit did not write; see ``check_results``.
    OSError
        If a file cannot be written.
    """
    functions = function_tables(fit)
    found = compare(fit)
    table = fit.parameter_table() if _has_table(fit) else None
    summary = _summary(fit, functions, found, table, configuration)
    title = "\n".join([_title(summary["final"]), *_notes(fit.verdict(), summary["warnings"])])
    units = stated_units(configuration)
    files = {
        **_function_files(functions, units),
        PARAMETERS: parameters_json(fit.potential, fit.result.covariance),
        **_parameter_files(fit, table),
        **curve_files(found.curves, units),
        **_simulation_files(fit),
        "figure.png": figures.figure_bytes(_figure(functions, found, summary, title)),
        "summary.json": io.json_bytes(summary),
    }
    files[page.NAME] = page.results_page(fit, summary, files, folder.resolve().name)
    manifest_of(fit, folder).write(files)
    return summary


def _summary(
    fit: Refinement,
    functions: Sequence[FunctionTable],
    found: Comparisons,
    table: ParameterTable | None,
    configuration: Mapping[str, Any],
) -> dict[str, Any]:
    """All of a fit as plain data."""
    few = None if table is None or not has_few(fit.potential) else told(table)
    return {
        "rounds": [{**vars(entry), "rolled_back": entry.was_rolled_back} for entry in fit.history],
        "final": {
            **fit.summary(),
            "wells": wells_of(functions, fit),
            "sampled_from_r_nm": fit.first_contact() if fit.potential.pairs() else None,
            "scalars": found.scalars,
            "agreement": _agreement(fit),
            "unused_targets": [target.observable.label for target in fit.unused_targets],
            "parameters": few_parameters(fit.potential),
            "parameter_errors": few,
            "numbers": fit.potential.numbers(table),
        },
        "converged": fit.converged,
        "states": _states(fit),
        "terms": _terms(fit, functions),
        "theory": [state.why_no_theory or "used" for state in fit.states],
        "verdict": fit.verdict().as_data(),
        "warnings": fit.warnings(),
        "versions": versions(),
        "configuration": configuration,
    }


def _states(fit: Refinement) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "temperature_K": state.temperature,
            "pressure_bar": state.pressure,
            "particles": state.state_point.simulation.system.getNumParticles(),
            "targets": [target.observable.label for target in state.targets],
        }
        for name, state in zip(names_of(fit), fit.states, strict=True)
    ]


def _terms(fit: Refinement, functions: Sequence[FunctionTable]) -> list[dict[str, Any]]:
    """Of the potential: name, class, and the tables that it has."""
    return [
        {
            "name": term.name,
            "kind": type(term).__name__,
            "tables": [f"{f.file}.csv" for f in functions if f.term == term.name],
        }
        for term in fit.potential.addends()
    ]


def _figure(
    functions: Sequence[FunctionTable],
    found: Comparisons,
    summary: Mapping[str, Any],
    title: str,
) -> Any:
    """The first pair potential, or else the first function, with all curves."""
    rounds = summary["rounds"]
    if not functions:
        return figures.fit_figure(None, None, None, found.curves, rounds, title=title)
    shown, *others = functions
    others = [f for f in others if f.term != shown.term]
    return figures.fit_figure(
        shown.q, shown.u, shown.error, found.curves, rounds, title=title, others=others
    )


def _has_table(fit: Refinement) -> bool:
    """Are there parameters that mean something each?"""
    return has_few(fit.potential) or bool(fit.potential.numbers())


def check_results(fit: Refinement, folder: Path) -> None:
    """Can ``write_results`` write there, without replacing what this fit did not write?

    Raises
    ------
    TakenError
        If not: it names the file.
    """
    curves = [_stem(fit, t) for t in fit.targets if t.curve is not None and t.axis is not None]
    systems = [f"{name}.xml" for name in _simulation(fit)]
    tables = [*function_files(fit), *_numbered(curves)]
    names = [f"{stem}{of}.csv" for stem in tables for of in ("", "_reduced")]
    own = [PARAMETERS, _PARAMETERS, _NUMBERS]
    manifest_of(fit, folder).check(
        [*names, *own, *systems, "figure.png", "summary.json", page.NAME]
    )


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
            add_to(found, target, view.prediction[here], error[here], _state_of(fit, target))
    return found


def add_to(found: Comparisons, target: Target, model: Array, error: Array, state: str) -> None:
    """A target beside the model's values, [points], and their errors; ``state`` names where."""
    observable = target.observable
    if target.curve is not None and target.axis is not None:
        predicted = Curve(target.curve.x, model, error)
        found.curves.append(
            figures.Comparison(observable, target.axis, target.curve, predicted, state)
        )
        return
    for index, value in enumerate(target.values):
        found.scalars.append(
            {
                "observable": observable.name + (f"[{index}]" if len(model) > 1 else ""),
                **({"state": state} if state else {}),
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


def _function_files(
    functions: Sequence[FunctionTable], units: ReducedUnits | None
) -> dict[str, bytes]:
    files = {f"{each.file}.csv": each.csv() for each in functions}
    if units is not None:
        files |= {f"{each.file}_reduced.csv": each.csv(units) for each in functions}
    return files


def curve_files(
    curves: Sequence[figures.Comparison], units: ReducedUnits | None = None
) -> dict[str, bytes]:
    """rdf_0.csv, ..., angles_0.csv, ..., vacf_0.csv, ...: counted for each observable."""
    stems = _numbered([_with_state(c.observable.name, c.state) for c in curves])
    files = {f"{stem}.csv": _curve_table(c) for stem, c in zip(stems, curves, strict=True)}
    if units is not None:
        pairs = zip(stems, curves, strict=True)
        files |= {f"{stem}_reduced.csv": _curve_table(c, units) for stem, c in pairs}
    return files


def _stem(fit: Refinement, target: Target) -> str:
    return _with_state(target.observable.name, _state_of(fit, target))


def _state_of(fit: Refinement, target: Target) -> str:
    """The name of the state point of a target, of the first of several; none of the only one."""
    if len(fit.states) == 1:
        return ""
    points = [state.state_point for state in fit.states]
    return names_of(fit)[next(k for k, p in enumerate(points) if p is target.state_point)]


def _with_state(name: str, state: str) -> str:
    return f"{name}_{state}" if state else name


def _numbered(names: Sequence[str]) -> list[str]:
    counts: Counter[str] = Counter()
    files = []
    for name in names:
        files.append(f"{name}_{counts[name]}")
        counts[name] += 1
    return files


def _curve_table(c: figures.Comparison, units: ReducedUnits | None = None) -> bytes:
    prefix = c.observable.column and f"{c.observable.column}_"
    of_x, of_y, x = 1.0, 1.0, c.axis.column
    if units is not None:
        of_x, of_y = units.factor(c.axis.kind), units.factor(c.observable.kind)
        x = f"{c.axis.name}_reduced"
    header = f"{x},{prefix}target,{prefix}model,standard_error"
    columns = (c.target.y, c.model.y, c.model.spread)
    return io.csv_bytes(header, c.target.x / of_x, *(column / of_y for column in columns))


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


def _parameter_files(fit: Refinement, table: ParameterTable | None) -> dict[str, bytes]:
    files = {}
    if table is not None and has_few(fit.potential):
        files[_PARAMETERS] = parameter_csv(table)
    if numbers := fit.potential.numbers(table):
        files[_NUMBERS] = number_csv(numbers)
    return files


def _simulation_files(fit: Refinement) -> dict[str, bytes]:
    things = {name: thing() for name, thing in _simulation(fit).items()}
    return {
        f"{name}.xml": openmm.XmlSerializer.serialize(thing).encode()
        for name, thing in things.items()
    }


def _simulation(fit: Refinement) -> dict[str, Callable[[], Any]]:
    """What plain OpenMM goes on from, and the native form of it, by the names of the files."""
    things = _of_point("", fit.states[0].state_point)
    if len(fit.states) > 1:
        for name, state in zip(names_of(fit), fit.states, strict=True):
            things |= _of_point(f"{name}_", state.state_point)
    return things


def _of_point(prefix: str, point: Any) -> dict[str, Callable[[], Any]]:
    system = point.simulation.system
    things = {f"{prefix}system": lambda: portable_system(system), f"{prefix}state": point.snapshot}
    native = {f"{prefix}system_native": lambda: system}
    return things | (native if has_native_force(system) else {})


def _title(final: Mapping[str, Any]) -> str:
    parts = [f"{final['md_steps']} MD steps", f"misfit {final['misfit']:.2f}"]
    if np.isfinite(final["rdf_rms"]):
        parts.append(f"rms of g(r) {final['rdf_rms']:.4f}")
    title = ", ".join(parts)
    for scalar in final["scalars"]:
        model = with_error(scalar["model"], scalar["standard_error"])
        target = with_error(scalar["target"], scalar["uncertainty"])
        of = f" of {scalar['state']}" if "state" in scalar else ""
        title += f"; {scalar['observable']}{of} {model} {scalar['unit']}".rstrip()
        title += f" (target {target})"
    for each in final["agreement"]:
        for nuisance in filter(lambda u: u["found"], each["nuisances"]):
            value = with_error(nuisance["value"], nuisance["error"])
            title += f"; {nuisance['name']} of {each['observable']} {value}"
    return title


def _notes(verdict: Verdict, warnings: Sequence[str]) -> list[str]:
    """What a figure has to say of a fit, a line each; what the verdict says is no warning more."""
    first = [] if verdict.converged else [verdict.sentence()]
    return first + [text for text in warnings if not any(text in said for said in first)]
