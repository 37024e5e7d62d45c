"""Methods that follow g(r) pair by pair, or the averages of the basis sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import TargetError
from ...statistics.averages import statistical_inefficiency
from ...units import MOLAR_GAS_CONSTANT, beta
from ..state import FitView, State
from ..target import Target
from .base import Step

Array = NDArray[np.float64]


@dataclass
class IterativeBoltzmannInversion:
    """u <- u + damping R T ln(p / p_target), function by function.

    For a ``SplinePair``, p being g(r) of each pair of types (Soper 1996; Reith et al. 2003), for
    bonded splines, p being the distribution of each type, and for sums of one of the first and any
    of the second. Each function follows its own distribution as if there were no other: slow along
    soft modes, where several move one distribution, and blind to the pressure. Kept for comparison.

    Parameters
    ----------
    damping : float
    least_g : float
        What is less, of g(r) or of the maximum of a distribution, is noise.
    """

    damping: float = 1.0
    least_g: float = 0.05

    def used_targets(self, view: FitView) -> list[Target]:
        """The g(r) of each pair of types, and the distribution of each type of a bonded potential.

        Raises
        ------
        TargetError
            If the potential is not free, or a function has no such target.
        """
        functions = self._functions(view)
        found = [t for s in view.states for f in functions for _, t in _targets_of(s, f[1])]
        return list({id(target): target for target in found}.values())

    def propose(self, view: FitView) -> Step:
        """One iteration with the distributions of the last round alone."""
        change = np.zeros(len(view.parameters))
        for where, function in self._functions(view):
            rows = change[where].reshape(-1, len(function.basis.centers))  # a view into it
            for state in view.states:
                for row, target in _targets_of(state, function):
                    x, delta = self._ratio(view, state, target, function)
                    rows[row] += function.change_of(x, delta) / len(view.states)
        return Step(change)

    def _ratio(
        self, view: FitView, state: State, target: Target, function: Any
    ) -> tuple[Array, Array]:
        """R T ln(p / p_target), kJ/mol, where both are found and the function acts."""
        assert state.last is not None and target.x is not None
        seen_at = state.last.at(view.parameters)
        p = target.response(seen_at.average(target.observable).numpy(force=True))
        least = self.least_g * (target.observable.tends_to or target.values.max())
        seen = (p > least) & (target.values > least) & function.acts_at(target.x)
        if not seen.any():
            raise TargetError(
                f"iterative Boltzmann inversion: {target.observable.label} of the model and of the "
                "target have no place in common; start nearer, by Boltzmann inversion"
            )
        thermal = MOLAR_GAS_CONSTANT * state.temperature
        return target.x[seen], self.damping * thermal * np.log(p[seen] / target.values[seen])

    @staticmethod
    def _functions(view: FitView) -> list[tuple[slice, Any]]:
        potential = view.potential
        found = potential.functions()
        free = potential.is_linear and len(view.parameters) == len(view.coefficients(0))
        covered = sum(where.stop - where.start for where, _ in found) == len(view.parameters)
        if len(potential.pairs()) > 1 or not free or not covered:
            raise TargetError(
                "iterative Boltzmann inversion needs a SplinePair, bonded splines, or a sum of "
                f"them with one SplinePair, got {type(potential).__name__}; take the default method"
            )
        return found


@dataclass
class RelativeEntropy:
    """Minimum relative entropy: match <S> (Shell, J. Chem. Phys. 129, 144108 (2008)).

    Gradient beta (<S>_target - <S>), Hessian beta^2 Cov(S, S), convex in the coefficients.
    <S>_target is the integral of the basis over the target's g(r), which must therefore reach
    the cutoff for every pair of types. Targets other than g(r) are ignored, which a Refinement
    warns of. The smoothness prior of Gauss-Newton regularises the core.
    """

    uses_prior = True
    roughness: float = 200.0

    def used_targets(self, view: FitView) -> list[Target]:
        """The g(r) of each pair of types.

        Raises
        ------
        TargetError
            If the potential is none of pairs, or a pair of types has no g(r) up to the cutoff.
        """
        pair = self._pair_of(view)
        used = _structure_targets(view, pair)
        for target in used:
            _check_reach(target, pair)
        return used

    def propose(self, view: FitView) -> Step:
        """One Newton step on all pooled frames."""
        n = len(view.parameters)
        hessian, slope = np.zeros((n, n)), np.zeros(n)
        for k in range(len(view.states)):
            own_hessian, own_slope = self._of_state(view, k)
            hessian, slope = hessian + own_hessian, slope + own_slope
        if view.prior is not None:
            hessian = hessian + np.diag(view.prior.precision)
            slope = slope + view.prior.slope(view.parameters.numpy(force=True))
        hessian[np.diag_indices(n)] += 1e-6 * hessian.diagonal().max()
        return Step(np.asarray(-np.linalg.solve(hessian, slope)))

    @staticmethod
    def _pair_of(view: FitView) -> Any:
        pairs = view.potential.pairs()
        alone = len(view.potential.functions()) == 1
        if len(pairs) != 1 or not alone or not view.potential.energy_is_linear:
            raise TargetError(
                f"relative entropy is for a pair potential, got {type(view.potential).__name__}; "
                'take method="adam", or TorchOptimizer(...)'
            )
        return pairs[0][1]

    def _of_state(self, view: FitView, index: int) -> tuple[Array, Array]:
        state, frames = view.states[index], view.frames[index]
        pair = self._pair_of(view)
        w = frames.weights.numpy(force=True)
        sums = state.frames.features
        mean, b = w @ sums, beta(state.temperature)
        target = target_basis_sums(state, pair).reshape(-1)
        energies = state.frames.run_energies()
        independent = frames.n_effective / statistical_inefficiency(energies)
        deviation = sums - mean
        covariance = (deviation * w[:, None]).T @ deviation
        chain = view.chain(index)
        hessian = independent * b**2 * chain.T @ covariance @ chain
        slope = independent * b * chain.T @ (target - mean)
        precision = view.prior_precision(index, self.roughness)
        if precision is not None:
            hessian = hessian + chain.T @ precision @ chain
            slope = slope + chain.T @ precision @ view.from_prior(index)
        return hessian, slope


def _structure_targets(view: FitView, pair: Any) -> list[Target]:
    return [target for state in view.states for _, target in pair_targets(state, pair)]


def _targets_of(state: State, function: Any) -> list[tuple[int, Target]]:
    """The target of each row of a function; see ``pair_targets`` for one of pairs.

    Raises
    ------
    TargetError
        If there is none of a row that is learned.
    """
    if any(function is pair for _, pair in state.state_point.potential.pairs()):
        return pair_targets(state, function)
    places = [(state.state_point.type_of_tuples(t.observable), t) for t in state.targets]
    found = {place[1]: t for place, t in places if place and place[0] == function.name}
    missing = [k for k in range(function.n_types) if k not in found]
    if missing:
        raise TargetError(
            f"this method needs a distribution of the {function.tuples} of each type of "
            f"{function.name}, of these alone: none is of {missing}"
        )
    return sorted(found.items())


def _check_reach(target: Target, pair: Any) -> None:
    """TargetError where a g(r) ends before the cutoff, or is not the model's own."""
    if not target.measurement.is_ideal():
        raise TargetError(
            "relative entropy takes a g(r) as it is, and not one with a resolution, bins, shells "
            "or a normalisation of its own; take gauss-newton"
        )
    x = target.x
    assert x is not None
    if x[-1] < pair.basis.cutoff - 1.5 * np.diff(x).max():
        raise TargetError(
            f"relative entropy needs g(r) up to the cutoff, {pair.basis.cutoff:.4f} nm; "
            f"the target ends at {x[-1]:.4f} nm"
        )


def pair_targets(state: State, pair: Any) -> list[tuple[int, Target]]:
    """The RDF target of each pair of types that is learned.

    Raises
    ------
    TargetError
        If an RDF target mixes pairs of types, or a pair of types that is learned has none.
    """
    found: dict[int, Target] = {}
    learned = pair.learned_rows()
    for target in state.targets:
        if target.observable.is_structure:
            place = None if state.species is None else state.species.pair_of(target.observable)
            if place is None:
                raise TargetError("this method needs RDF targets between single types")
            if learned[place[1]]:
                found[place[1]] = target
    missing = set(np.flatnonzero(learned).tolist()) - set(found)
    if missing:
        raise TargetError(f"this method needs an RDF target for every pair of types: {missing}")
    return sorted(found.items())


def target_basis_sums(state: State, pair: Any) -> Array:
    """<S> that the targets' g(r) imply, [pairs, coefficients]: N_pairs / V int 4 pi r^2 g B dr."""
    sums = np.zeros((pair.n_pairs, pair.basis.n_coefficients))
    volume = float(np.mean(state.frames.volume))
    rows, columns = np.triu_indices(pair.n_types)
    assert state.species is not None
    n = state.species.number
    for row, target in pair_targets(state, pair):
        _check_reach(target, pair)
        x = target.x
        assert x is not None
        a, b = rows[row], columns[row]
        n_pairs = n[a] * (n[a] - 1) / 2 if a == b else n[a] * n[b]
        edges = np.concatenate([[x[0]], 0.5 * (x[1:] + x[:-1]), [pair.basis.cutoff]])
        for g, low, high in zip(target.values, edges[:-1], edges[1:], strict=True):
            r = np.linspace(low, high, 9)
            r = 0.5 * (r[1:] + r[:-1])
            measure = 4 * np.pi * r**2 * (high - low) / len(r)
            sums[row] += n_pairs / volume * g * (measure @ pair.basis.values(r))
    return sums
