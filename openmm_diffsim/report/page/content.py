"""What a page says of a fit, gathered from the fit itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DiffsimError
from ...refinement import Refinement, Target
from ...refinement.convergence import names_of
from ...refinement.result import Result
from . import figures
from .figures import Figure, Table
from .text import duration, number, thousands, unit, with_error

Array = NDArray[np.float64]

_FEW = 24  # parameters that a page shows at once
_MOST = 400  # and at all
_POINTS = 300  # of a table


@dataclass(frozen=True)
class ParameterRow:
    """One learned number."""

    name: str
    value: str
    prior: str
    share: float | None
    """Standard error over that of the prior; None where either is not known."""


@dataclass(frozen=True)
class TermStory:
    """One term of the potential."""

    name: str
    kind: str
    figures: Sequence[Figure]
    n_parameters: int


def asked(fit: Refinement) -> list[tuple[str, list[str]]]:
    """What was to be learned from what: a heading and its lines."""
    states = [_state_text(state) for state in fit.states]
    if len(states) > 1:
        states = [
            f"{_state_name(k, s)}: {t}"
            for k, (s, t) in enumerate(zip(fit.states, states, strict=True))
        ]
    terms = [_term_text(term) for term in fit.potential.addends()]
    names = names_of(fit.targets)
    targets = [f"{n}: {_target_text(fit, t)}" for n, t in zip(names, fit.targets, strict=True)]
    return [
        ("State points" if len(states) > 1 else "State point", states),
        ("Learned", terms),
        ("From", targets),
        ("By", [_words(type(fit.method).__name__)]),
    ]


def _term_text(term: Any) -> str:
    name = "" if term.name == type(term).__name__ else f"{term.name}: "
    return f"{name}{_kind(term)}, {_learned(term)}"


def _learned(term: Any) -> str:
    n = sum(p.numel() for p in term.parameters() if p.requires_grad)
    return (
        f"{thousands(n)} parameter{'s' if n != 1 else ''}"
        if n
        else "given, nothing of it is learned"
    )


def _kind(term: Any) -> str:
    return _words(type(term).__name__)


def _words(name: str) -> str:
    """``SplinePair`` as "spline pair", ``LennardJones`` as "Lennard-Jones"."""
    if name in ("LennardJones", "GaussNewton"):
        return name[:-5] + "-Jones" if name == "LennardJones" else "Gauss-Newton"
    text = "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()
    return text if text.count(" ") < 4 else name


def _state_name(index: int, state: Any) -> str:
    return getattr(state.state_point, "name", None) or str(index + 1)


def _state_text(state: Any) -> str:
    point = state.state_point
    parts = [f"{thousands(point.n_particles)} particles", f"{state.temperature:g} K"]
    if state.pressure is not None:
        parts.append(f"{state.pressure:g} bar")
    elif point.box() is not None:
        parts.append(f"{point.number_density():.4g} nm⁻³, constant volume")
    frames = 0 if state.pool is None else len(state.pool)
    parts += [f"{thousands(frames)} frames"] if frames else []
    return ", ".join(parts)


def _target_text(fit: Refinement, target: Target) -> str:
    points = [s.state_point for s in fit.states]
    where = [points.index(p) for p in target.state_points if p in points]
    at = f", at state point {_listed([_state_name(k, fit.states[k]) for k in where])}"
    at = at if len(points) > 1 and where else ""
    if target.curve is None:
        value = _of(target.values[0], target.uncertainty[0], target.observable.unit)
        return (value if len(target.values) == 1 else f"{len(target.values)} values") + at
    source = f" of {target.curve.path.name}" if target.curve.path else ""
    return (
        f"{len(target.values)} points{source}, errors about "
        f"{number(float(np.median(target.uncertainty)), 2)}{at}"
    )


def _of(value: float, error: float, name: str) -> str:
    return f"{with_error(value, error)} {unit(name)}".rstrip()


def term_stories(fit: Refinement, result: Result) -> list[TermStory]:
    """Each term, with a figure for each function of one coordinate that it consists of."""
    found = []
    for term in fit.potential.addends():
        here = {id(function) for _, function in term.functions()}
        drawn = [
            figures.potential_figure(table)
            for where, function in fit.potential.functions()
            if id(function) in here
            for table in _tables(result, where, function)
        ]
        n = sum(p.numel() for p in term.parameters() if p.requires_grad)
        found.append(TermStory(term.name, _kind(term), drawn, n))
    return found


def _tables(result: Result, where: slice, function: Any) -> Iterator[Table]:
    """u(q) of a function, at each temperature at which it is another one."""
    view = result.view
    low, high = function.ends()
    q = np.linspace(low, high, _POINTS)
    known: list[Array] = []
    for kelvin, c in sorted(_coefficients(view, where)):
        if any(np.array_equal(c, other) for other in known):
            continue
        known.append(c)
        u, error = result.potential(q, kelvin, function.name)
        density = _density(view, where, function, q)
        yield Table(
            function.name, function.coordinate, function.quantity, q, u, error, density,
            function.row_names(),
        )  # fmt: skip


def _coefficients(view: Any, where: slice) -> list[tuple[float, Array]]:
    found = {s.temperature: view.coefficients(k)[where] for k, s in enumerate(view.states)}
    return list(found.items())


def _density(view: Any, where: slice, function: Any, q: Array) -> Array | None:
    """How many there are about q in all frames together, reweighted, [rows, len(q)].

    From the features, dU/dc_k = sum of B_k over all that is there. None where energies have none.
    """
    if not view.potential.energy_is_linear:
        return None
    total = sum(
        len(state.frames)
        * frames.weights.numpy(force=True)
        @ np.abs(state.frames.features[:, where])
        for state, frames in zip(view.states, view.frames, strict=True)
    )
    values = np.abs(function.basis.values(q))
    return np.asarray(np.reshape(total, (-1, values.shape[1])) @ values.T)


def parameter_rows(
    fit: Refinement, result: Result
) -> tuple[list[ParameterRow], list[ParameterRow]]:
    """Physical numbers, and the parameters themselves; none of these where they are too many."""
    n = len(result.view.parameters)
    if n > _MOST:
        return [], []
    table = result.parameters
    shares = table.posterior_over_prior
    plain = [
        ParameterRow(
            name,
            with_error(table.values[k], table.standard_error[k]),
            number(table.prior[k], 2),
            float(shares[k]) if np.isfinite(shares[k]) and np.isfinite(table.prior[k]) else None,
        )
        for k, name in enumerate(table.names)
    ]
    physical = [
        ParameterRow(name, with_error(value, error), "", None)
        for name, (value, error) in fit.potential.numbers(table).items()
    ]
    return physical, plain


def sentence(
    fit: Refinement, wells: Sequence[Mapping[str, Any]], physical: Sequence[ParameterRow]
) -> str:
    """What was found, in one sentence."""
    if not fit.history:
        return "Nothing was sampled yet."
    rounds = f"{len(fit.history)} round{'s' if len(fit.history) > 1 else ''}"
    verdict = fit.verdict()
    missed = [t.name for t in verdict.targets if t.misfit > t.limit]
    if verdict.converged:
        n = len(verdict.targets)
        which = {1: "the target is", 2: "both targets are"}.get(n, f"all {n} targets are")
        met = f"After {rounds} {which} met within the errors"
    elif missed:
        are = "are" if len(missed) > 1 else "is"
        met = f"After {rounds} {_listed(missed)} {are} not met within the errors"
    else:
        reason = verdict.reasons()[0].partition(": ")[0]  # what to do stands elsewhere
        met = f"After {rounds} every target is near, but {reason}"
    return f"{met}{_numbers_found(wells, physical)}."


def _numbers_found(wells: Sequence[Mapping[str, Any]], physical: Sequence[ParameterRow]) -> str:
    if wells:
        well = wells[0]
        depth = with_error(well["u_kJ_mol"], well["standard_error"]).replace("-", "−")
        return f"; the potential is deepest at {well['r_nm']:.3f} nm: {depth} kJ/mol"
    if 0 < len(physical) <= 4:
        return "; " + ", ".join(f"{row.name} = {row.value}" for row in physical)
    return ""


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def tiles(fit: Refinement) -> list[tuple[str, str]]:
    """Numbers at a glance: name and value."""
    if not fit.history:
        return []
    last = fit.history[-1]
    found = [
        ("rounds", str(len(fit.history))),
        ("misfit", number(last.misfit, 2)),
        ("effective frames", f"{last.n_effective:.0f}"),
        ("MD steps", thousands(last.md_steps)),
        ("time", duration(last.seconds)),
    ]
    if np.isfinite(last.rdf_rms):
        found.insert(2, ("rms of g(r)", number(last.rdf_rms, 2)))
    return found


def verdict_rows(fit: Refinement) -> list[Any]:
    """Every target by its own error."""
    return list(fit.verdict().targets) if fit.history else []


def go_on(fit: Refinement, files: Sequence[str]) -> tuple[str, str]:
    """How production goes on from here: code, and what to know of it."""
    state = fit.states[0]
    point = state.state_point
    thermostat = (
        f"openmm.LangevinMiddleIntegrator({state.temperature:g}, 1.0, {point.timestep:g})"
        "  # K, 1/ps, ps"
    )
    systems = [name for name in files if name.endswith("system.xml")]
    states = [name for name in files if name.endswith("state.xml")]
    if systems and states:
        code = (
            "import openmm\n"
            f"read = lambda name: openmm.XmlSerializer.deserialize(open(name).read())\n"
            f"integrator = {thermostat}\n"
            f'context = openmm.Context(read("{systems[0]}"), integrator)\n'
            f'context.setState(read("{states[0]}"))\n'
            "integrator.step(1000)"
        )
        told = "In this folder, by OpenMM alone: the refined energy is in the System."
        if any(name.endswith("system_native.xml") for name in files):
            told += (
                " Faster, with the plugin: import openmm_diffsim first and read system_native.xml."
            )
        return code, told
    code = (
        "potential.attach(system)  # with the same atoms=, types=, ... as in the fit\n"
        f"integrator = {thermostat}\n"
        "simulation = app.Simulation(topology, system, integrator)\n"
        "point = diffsim.StatePoint(simulation, potential)  # sets the refined parameters\n"
        "simulation.step(1000)"
    )
    return code, "In the script of the fit, where potential holds what was refined."


def text_of(configuration: Mapping[str, Any] | None) -> str:
    """A configuration, readable."""
    if not configuration:
        return ""
    return json.dumps(configuration, indent=1, default=str, ensure_ascii=False)


def wells_of(summary: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """Minima of u(r), where a summary knows them."""
    final = (summary or {}).get("final") or {}
    return list(final.get("wells") or [])


def rounds_of(fit: Refinement) -> list[dict[str, Any]]:
    """As in summary.json."""
    return [{**vars(entry), "rolled_back": entry.was_rolled_back} for entry in fit.history]


def warnings_of(fit: Refinement, result: Result, is_running: bool) -> list[str]:
    """All that has to be known, and while a fit runs what is known anyway."""
    if is_running:
        return list(result.remarks)
    try:
        return fit.warnings()
    except DiffsimError as error:
        return [str(error)]


def is_few(rows: Sequence[ParameterRow]) -> bool:
    """Are they so few that they are shown at once?"""
    return len(rows) <= _FEW
