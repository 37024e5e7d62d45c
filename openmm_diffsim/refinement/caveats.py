"""What a scientist has to be told of a fit, besides whether it has converged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..curve import Curve
from ..potentials import Potential
from ..units import MOLAR_GAS_CONSTANT
from .comparison import Comparison
from .state import FitView, State

Array = NDArray[np.float64]
Table = Callable[[Array, int], tuple[Array, Array]]  # r, term: u and its error, [pairs, len(r)]

_CENTRE = 0.05  # of the cutoff: further in, next to no pair is
_LARGE = 0.5  # of g(r): where it is more, u(r) should be known
_DETERMINED = 0.5  # kT, most error there
_CLEARLY = 3.0  # standard errors
_NOTHING = 0.01  # kT
_REACH = 3  # knots before the cutoff: further in, u(r) is free
_POINTS = 300  # of a table


def before_sampling(potential: Potential, states: Sequence[State]) -> list[str]:
    """What the targets tell alone: pairs below ``r_min``."""
    measured = [(s, t.observable, t.curve, t.measurement) for s in states for t in s.targets]
    found = [
        _below(potential, state, observable, curve, "the target")
        for state, observable, curve, measurement in measured
        if curve is not None and not measurement.hides_small_values()
    ]
    return _once(found)


def after_sampling(view: FitView, comparisons: Sequence[Comparison], table: Table) -> list[str]:
    """What frames, errors and the potential tell: ``table`` gives u(r) of a term and its error."""
    found = []
    for comparison in comparisons:
        for target, here in comparison.places():
            state = next(s for s in view.states if s.state_point is target.state_point)
            if target.curve is not None:
                model = Curve(target.curve.x, comparison.prediction[here])
                found.append(_below(view.potential, state, target.observable, model, "the model"))
    if view.potential.energy_is_linear:
        for term in range(len(view.potential.pairs())):
            found += _of_potential(view, term, table)
    return _once(found)


def _once(found: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(filter(None, found)))


def _below(potential: Potential, state: State, observable: Any, curve: Curve, whose: str) -> str:
    """Where pairs are found below the first knot of a potential that acts between them."""
    if not observable.is_structure:
        return ""
    first = observable.first_pairs(curve)
    for (_, pair), types in zip(potential.pairs(), state.state_point.pair_types(), strict=True):
        r_min = pair.basis.r_min
        acts = observable.counted_pairs(types) is not None
        inside = curve.x < r_min
        reaches = first is not None and first < r_min and inside.any()
        if not acts or not reaches or r_min < _CENTRE * pair.basis.cutoff:
            continue
        return (
            f"{observable.label} of {whose} is still {float(curve.y[inside][-1]):.2g} at r_min = "
            f"{r_min:.4g} nm, below which {pair.name} goes on as a straight line: take r_min below "
            f"{first:.4g} nm"
        )
    return ""


def _of_potential(view: FitView, term: int, table: Table) -> list[str]:
    """Where a term's u(r) is not determined, or does not vanish by itself at the cutoff."""
    pair = view.potential.pairs()[term][1]
    r = np.linspace(pair.basis.r_min, pair.basis.cutoff, _POINTS)
    u, error = table(r, term)
    thermal = MOLAR_GAS_CONSTANT * min(state.temperature for state in view.states)
    g = np.max([pair_structure(view, k, term, r) for k in range(len(view.states))], axis=0)
    found = []
    for label, *row in zip(_labels(pair.n_types), u, error, g, strict=True):
        values, spread, structure = row
        if not spread.any():  # what is given, not learned
            continue
        found.append(_open(label, r, spread, structure, thermal))
        found.append(_cut(label, pair, r, values, spread, thermal))
    return found


def pair_structure(view: FitView, index: int, term: int, r: Array) -> Array:
    """About g(r) of each pair of types, smeared over a knot, [pairs of types, len(r)].

    Of all pairs of such particles at a state point, bonded ones too, from the basis functions that
    are summed anyway, with N pairs in the volume V:

        g_k = <S_k> V / (N int 4 pi r^2 B_k(r) dr).
    """
    where, pair = view.potential.pairs()[term]
    basis, state, frames = pair.basis, view.states[index], view.frames[index]
    counts = np.bincount(*_of_types(state.state_point.pair_types()[term], pair.n_types))
    rows, columns = np.triu_indices(pair.n_types)
    same = rows == columns
    pairs = np.where(same, 0.5 * counts[rows] * (counts[rows] - 1), counts[rows] * counts[columns])
    fine = np.linspace(basis.r_min, basis.cutoff, 20 * basis.knots)
    shells = np.gradient(fine) * 4 * np.pi * fine**2 @ basis.values(fine)
    weights = frames.weights.numpy(force=True)
    mean = (weights @ state.frames.features)[where].reshape(pair.n_pairs, -1)
    volume = float(weights @ state.frames.volume)
    g = mean * volume / (np.maximum(pairs, 1)[:, None] * shells)
    return np.stack([np.interp(r, basis.centers, row) for row in g])


def _labels(n_types: int) -> list[str]:
    """Of u(r) of each pair of types."""
    types = zip(*np.triu_indices(n_types), strict=True)
    return ["u(r)"] if n_types == 1 else [f"u(r) of types {a}-{b}" for a, b in types]


def _of_types(types: NDArray[np.int64], n_types: int) -> tuple[NDArray[np.int64], None, int]:
    return types[types >= 0], None, n_types


def _open(label: str, r: Array, error: Array, g: Array, thermal: float) -> str:
    """What is not determined where many pairs are."""
    wide = (g > _LARGE) & (error > _DETERMINED * thermal)
    if not wide.any():
        return ""
    first, last, most = r[wide][0], r[wide][-1], error[wide].max()
    return (
        f"{label} is not determined from {first:.3g} to {last:.3g} nm, where many pairs are: its "
        f"standard error is up to {most:.2g} kJ/mol there, {most / thermal:.2g} kT: a pressure, a "
        "second state point or longer rounds would tell"
    )


def _cut(label: str, pair: Any, r: Array, u: Array, error: Array, thermal: float) -> str:
    """What is cut off, and does not fade."""
    before = _REACH * pair.basis.spacing
    at = pair.basis.cutoff - before
    left, spread = (float(np.interp(at, r, values)) for values in (u, error))
    if not abs(left) > max(_CLEARLY * spread, _NOTHING * thermal):
        return ""
    return (
        f"{label} is still {left:.2g} +/- {spread:.1g} kJ/mol {before:.2g} nm before its cutoff, "
        "where it has to vanish with its slope: take a longer cutoff"
    )
