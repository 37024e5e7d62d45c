"""How the parameters follow from what was sampled: one class per method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...engine.statepoint import StatePoint
from ...errors import CheckpointError, OverlapError, TargetError
from ...observables import RDF
from ...potentials import (
    NeuralPair,
    PairPotential,
    Potential,
    SplinePair,
    TemperatureDependent,
    flat_parameters,
    learned_parameters,
    parameter_chain,
    set_flat_parameters,
)
from ...samples import Samples
from ...statistics.averages import statistical_inefficiency
from ...statistics.weights import n_effective
from ...units import MOLAR_GAS_CONSTANT, beta
from ..target import Target
from ..theory.state import LiquidTheory
from .frame_space import Rows, expected_misfit, rows_of
from .frame_space import step as frame_space_step
from .gauss_newton import (
    GaussNewtonOptions,
    StateView,
    damping,
    follow,
    linear_model,
    smoothness_precision,
    solve,
    view_state,
)

Array = NDArray[np.float64]

_LEAST_OVERLAP = 0.4  # of n_effective, that an update of a network leaves
_WITHIN_REACH = 0.5  # variance of the change of U/kT that reweighting bears
_RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of a step, until it is nearly linear
_MOST_NONLINEAR = 0.5  # of what a stride changes
_AS_EXPECTED = 0.5  # of what a step within reach should gain
_WORTHWHILE = 0.98  # of the misfit: a step that gains less is the last


@dataclass(frozen=True)
class PairKnowledge:
    """What is known of a pair potential at a state point before anything is sampled."""

    theory: LiquidTheory
    prior_mean: Array  # c_0, [pairs of types, coefficients]


@dataclass
class StateData:
    """One state point: its targets, and everything sampled there so far."""

    state_point: StatePoint
    targets: list[Target]
    knowledge: PairKnowledge | None = None  # None for a network
    pool: Samples | None = None
    last: Samples | None = None

    @property
    def theory(self) -> LiquidTheory:
        """Liquid-state theory of a pair potential."""
        return self._known().theory

    @property
    def prior_mean(self) -> Array:
        """c_0 of the smoothness prior, [pairs of types, coefficients]."""
        return self._known().prior_mean

    def _known(self) -> PairKnowledge:
        if self.knowledge is None:
            raise TargetError("nothing is known of a network before it was sampled")
        return self.knowledge

    @property
    def frames(self) -> Samples:
        """All frames, weighted by the mixture of all rounds."""
        assert self.pool is not None, "nothing was sampled yet"
        return self.pool


class Method(Protocol):
    """Moves the parameters of a potential; ``Refinement`` bounds the step."""

    def update(self, potential: Potential, states: Sequence[StateData]) -> None:
        """Set the parameters to where they should go next.

        Raises
        ------
        TargetError
            If the method is not for such a potential or such targets.
        """

    def parameter_covariance(self) -> Array | None:
        """Covariance of the parameters [parameters, parameters], or None if not estimated."""

    def state_dict(self) -> dict[str, Any]:
        """What the method remembers between rounds: arrays, numbers, strings."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""


class Stateless:
    """A method that remembers nothing between rounds."""

    def parameter_covariance(self) -> Array | None:
        """Not estimated."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""


@dataclass
class GaussNewton(Stateless):
    """Noise-aware Gauss-Newton on all pooled frames; see ``refinement.gauss_newton``.

    Works with every pair potential: its parameters enter through the coefficients. The smoothness
    prior is for splines and ``NeuralPair`` only. A network is moved in the space of the frames, see
    ``refinement.frame_space``.
    """

    options: GaussNewtonOptions = field(default_factory=GaussNewtonOptions)
    covariance: Array | None = field(default=None, init=False)

    def views(self, states: Sequence[StateData]) -> list[StateView]:
        """Averages, Jacobian and noise at every state point."""
        return [view_state(s.targets, s.frames, s.theory, self.options) for s in states]

    def update(self, potential: Potential, states: Sequence[StateData]) -> None:
        """Move to the minimum of the linear model."""
        if not isinstance(potential, PairPotential):
            self._update_network(potential, states)
            return
        views = self.views(states)
        temperatures = [state.state_point.temperature for state in states]
        chains = [parameter_chain(potential, t) for t in temperatures]
        offsets = [
            (potential.coefficients(t).detach().numpy() - state.prior_mean).reshape(-1)
            for t, state in zip(temperatures, states, strict=True)
        ]
        precision = None
        if is_free_form(potential):
            precision = smoothness_precision(
                potential,
                nearest_distance(states[0]),
                MOLAR_GAS_CONSTANT * float(np.mean(temperatures)),
                self.options.roughness,
            )
        step = solve(views, chains, offsets, precision)
        self.covariance = step.covariance
        if is_linear(potential):
            add_to_parameters(potential, torch.from_numpy(step.change))
            return
        parts = zip(views, offsets, strict=True)
        models = []
        for view, offset in parts:
            hessian, slope = linear_model(view, offset, precision)
            models.append((hessian + damping(view), slope))
        follow(potential, temperatures, models)

    def _update_network(self, potential: Potential, states: Sequence[StateData]) -> None:
        """Steps within the reach of the frames or, far from the targets, one stride beyond it.

        How far a linear response holds is a matter of the change per particle, how far reweighting
        reaches of that of all particles together. So a stride may change U/kT by a variance that
        grows with their number.

        What few frames see of some directions asks for large changes of the parameters, which the
        network does not follow linearly. So the ridge is raised until U of the frames, after a
        stride, or the misfit, within reach, changes about as it should: that leaves these
        directions out, where shortening the step would leave little of anything.
        """
        enough = [
            max(_LEAST_OVERLAP * state.frames.n_effective(), state.frames.least_effective)
            for state in states
        ]
        variances = [
            max(_WITHIN_REACH, self.options.stride * state.state_point.n_particles)
            for state in states
        ]
        for _ in range(self.options.network_steps):
            views = [
                view_state(s.targets, s.frames, None, self.options, jacobian=False) for s in states
            ]
            rows = [rows_of(v, s.frames) for v, s in zip(views, states, strict=True)]
            if max(variances) > _WITHIN_REACH and _stride(
                potential, states, views, rows, variances
            ):
                return
            variances = [_WITHIN_REACH] * len(states)
            if _step_within_reach(potential, states, views, rows, enough) > _WORTHWHILE:
                return

    def parameter_covariance(self) -> Array | None:
        """Inverse Hessian of the last update; None for a network."""
        return self.covariance


@dataclass
class IterativeBoltzmannInversion(Stateless):
    """u <- u + damping R T ln(g / g_target), pair by pair (Soper 1996; Reith et al. 2003).

    For a ``SplinePair`` whose pairs of types each have an RDF target. Slow along soft modes and
    blind to the pressure: kept for comparison.
    """

    damping: float = 1.0
    least_g: float = 0.05

    def update(self, potential: Potential, states: Sequence[StateData]) -> None:
        """One iteration with the g(r) of the last round alone."""
        if not isinstance(potential, SplinePair):
            raise TargetError(
                "iterative Boltzmann inversion needs a SplinePair, got "
                f"{type(potential).__name__}; take the default method"
            )
        change = torch.zeros_like(potential.values)
        for state in states:
            kt = MOLAR_GAS_CONSTANT * state.state_point.temperature
            for pair, target in pair_targets(state, potential):
                assert state.last is not None and target.x is not None
                g = target.operator @ state.last.average(target.observable).detach().numpy()
                seen = (g > self.least_g) & (target.values > self.least_g)
                seen &= target.x < potential.basis.cutoff
                delta = self.damping * kt * np.log(g[seen] / target.values[seen])
                centers = potential.basis.centers
                smooth = np.interp(centers, target.x[seen], delta - delta[-1], right=0.0)
                mean = torch.from_numpy(smooth) / len(states)
                change[pair] += potential.basis.interpolate(mean)
        with torch.no_grad():
            potential.values.add_(change)


@dataclass
class RelativeEntropy(Stateless):
    """Minimum relative entropy: match <S> (Shell, J. Chem. Phys. 129, 144108 (2008)).

    Gradient beta (<S>_target - <S>), Hessian beta^2 Cov(S, S), convex in the coefficients.
    <S>_target is the integral of the basis over the target's g(r), which must therefore reach
    the cutoff for every pair of types. Targets other than g(r) are ignored. The smoothness prior
    of Gauss-Newton regularises the core.
    """

    roughness: float = 200.0

    def update(self, potential: Potential, states: Sequence[StateData]) -> None:
        """One Newton step on all pooled frames."""
        potential = _pair(potential, "relative entropy")
        total_hessian: Array | None = None
        total_slope: Array | None = None
        for state in states:
            samples, temperature = state.frames, state.state_point.temperature
            with torch.no_grad():
                w = samples.weights().numpy()
            sums = samples.basis_sums.reshape(len(samples), -1)
            mean = w @ sums
            target = target_basis_sums(state, potential).reshape(-1)
            b = beta(temperature)
            independent = samples.n_effective() / statistical_inefficiency(samples.run_energies())
            deviation = sums - mean
            covariance = (deviation * w[:, None]).T @ deviation
            chain = parameter_chain(potential, temperature)
            hessian = independent * b**2 * chain.T @ covariance @ chain
            slope = independent * b * chain.T @ (target - mean)
            if is_free_form(potential):
                precision = smoothness_precision(
                    potential, nearest_distance(state), 1 / b, self.roughness
                )
                offset = potential.coefficients(temperature).detach().numpy() - state.prior_mean
                hessian += chain.T @ precision @ chain
                slope += chain.T @ precision @ offset.reshape(-1)
            total_hessian = hessian if total_hessian is None else total_hessian + hessian
            total_slope = slope if total_slope is None else total_slope + slope
        assert total_hessian is not None and total_slope is not None
        total_hessian[np.diag_indices(len(total_hessian))] += 1e-6 * total_hessian.diagonal().max()
        change = -np.linalg.solve(total_hessian, total_slope)
        add_to_parameters(potential, torch.from_numpy(change))


class TorchOptimizer:
    """Any ``torch.optim`` optimizer on the reweighted misfit.

    The loss is sum_t weight_t mean((<A> - t)^2 / uncertainty^2), differentiated by the covariance
    formula; each round takes up to ``steps`` steps, until the frames no longer overlap.

    Parameters
    ----------
    factory : callable
        From parameters to an optimizer: ``lambda p: torch.optim.Adam(p, lr=0.05)``.
    steps : int
        Most optimizer steps per round.
    least_overlap : float
        Stop a round's steps when n_effective falls below this share of its value at the start.
    """

    def __init__(
        self,
        factory: Callable[[Iterable[Tensor]], torch.optim.Optimizer],
        steps: int = 20,
        least_overlap: float = 0.5,
    ) -> None:
        self.factory = factory
        self.steps = steps
        self.least_overlap = least_overlap
        self.optimizer: torch.optim.Optimizer | None = None
        self._saved: dict[str, Any] | None = None

    def update(self, potential: Potential, states: Sequence[StateData]) -> None:
        """Steps of the optimizer, as far as the frames reach."""
        optimizer = self._optimizer(potential)
        enough = [
            max(self.least_overlap * state.frames.n_effective(), state.frames.least_effective)
            for state in states
        ]

        def loss() -> Tensor:
            optimizer.zero_grad()
            total = torch.stack([reweighted_loss(state) for state in states]).sum()
            total.backward()  # type: ignore[no-untyped-call]
            return total

        for _ in range(self.steps):
            try:
                optimizer.step(loss)  # type: ignore[arg-type]
            except OverlapError:  # it tried a step of its own that the frames do not reach
                self.optimizer = None  # and was interrupted in the middle of it
                break
            pairs = zip(states, enough, strict=True)
            # with a graph: these weights are those of the next step
            if any(n_effective(state.frames.weights()) < least for state, least in pairs):
                break

    def name(self) -> str:
        """Class of the optimizer."""
        return type(self.factory([torch.zeros(1, requires_grad=True)])).__name__

    def parameter_covariance(self) -> Array | None:
        """Not estimated."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's own moments, flat: 'parameter index/name' to array.

        Raises
        ------
        CheckpointError
            If the optimizer keeps more than arrays, as L-BFGS does.
        """
        if self.optimizer is None:
            return dict(self._saved or {})
        flat: dict[str, Any] = {}
        for index, entry in self.optimizer.state_dict()["state"].items():
            for name, value in entry.items():
                if not isinstance(value, Tensor | None):
                    raise CheckpointError(
                        f"{type(self.optimizer).__name__} keeps {name!r}, which is no array: a "
                        "fit with it cannot be saved; run it without checkpoint=",
                        reason="method",
                    )
                if value is not None:
                    flat[f"{index}/{name}"] = value.numpy(force=True)
        return flat

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the moments when the optimizer is made."""
        self._saved = state
        self.optimizer = None

    def _optimizer(self, potential: Potential) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = self.factory(learned_parameters(potential))
            if self._saved:
                full = self.optimizer.state_dict()
                for key, value in self._saved.items():
                    index, name = key.split("/", 1)
                    full["state"].setdefault(int(index), {})[name] = torch.as_tensor(value)
                self.optimizer.load_state_dict(full)
        return self.optimizer


def _stride(
    potential: Potential,
    states: Sequence[StateData],
    views: Sequence[StateView],
    rows: Sequence[Rows],
    variances: Sequence[float],
) -> bool:
    """The longest step that the energies follow linearly: of small changes of the parameters.

    False, and nothing is changed, if it is within reach.
    """
    start = flat_parameters(potential)
    before = [state.frames.reduced_energies() for state in states]
    for ridge in _RIDGES:
        part = frame_space_step(views, rows, variances, ridge)
        if all(np.sum((r.energies @ part) ** 2) <= _WITHIN_REACH for r in rows):
            set_flat_parameters(potential, start)
            return False
        set_flat_parameters(potential, start + torch.from_numpy(part))
        after = [state.frames.reduced_energies() for state in states]
        deviations = [
            r.nonlinearity(b - a, part) for r, a, b in zip(rows, before, after, strict=True)
        ]
        if max(deviations) <= _MOST_NONLINEAR:
            break
    return True


def _step_within_reach(
    potential: Potential,
    states: Sequence[StateData],
    views: Sequence[StateView],
    rows: Sequence[Rows],
    enough: Sequence[float],
) -> float:
    """The step after which the misfit falls as it should, or else the best; its share of before."""
    start, before = flat_parameters(potential), _misfit(views, states)
    best, least = start, before
    for ridge in _RIDGES:
        change = frame_space_step(views, rows, [_WITHIN_REACH] * len(states), ridge)
        now = start + torch.from_numpy(change)
        set_flat_parameters(potential, now)
        pairs = zip(states, enough, strict=True)
        if not all(state.frames.n_effective() >= share for state, share in pairs):
            continue
        after = _misfit(views, states)
        if after < least:
            best, least = now, after
        if before - after >= _AS_EXPECTED * (before - expected_misfit(views, rows, change)):
            break
    set_flat_parameters(potential, best)
    return least / before


def _misfit(views: Sequence[StateView], states: Sequence[StateData]) -> float:
    """r^T C^-1 r of the present averages, with C as the views have it."""
    total = 0.0
    for view, state in zip(views, states, strict=True):
        with torch.no_grad():
            averages = state.frames.averages([t.observable for t in view.targets])
        found = [t.operator @ a.numpy() for t, a in zip(view.targets, averages, strict=True)]
        residual = np.concatenate(found) - np.concatenate([t.values for t in view.targets])
        total += float(residual @ view.weight @ residual)
    return total


def reweighted_loss(state: StateData) -> Tensor:
    """sum_t weight_t mean((<A> - t)^2 / uncertainty^2) at one state point, with its graph."""
    total = torch.zeros((), dtype=torch.float64)
    averages = state.frames.averages([target.observable for target in state.targets])
    for target, average in zip(state.targets, averages, strict=True):
        prediction = torch.from_numpy(target.operator) @ average
        scaled = (prediction - torch.from_numpy(target.values)) / torch.from_numpy(
            target.uncertainty
        )
        total = total + target.weight * (scaled**2).mean()
    return total


def pair_targets(state: StateData, potential: PairPotential) -> list[tuple[int, Target]]:
    """The RDF target of each pair of types.

    Raises
    ------
    TargetError
        If an RDF target mixes pairs of types, or a pair of types has none.
    """
    found: dict[int, Target] = {}
    for target in state.targets:
        if isinstance(target.observable, RDF):
            shares = state.theory.shares(target.observable)
            if shares is None or shares.max() < 1 - 1e-9:
                raise TargetError("this method needs RDF targets between single types")
            found[int(shares.argmax())] = target
    missing = set(range(potential.n_pairs)) - set(found)
    if missing:
        raise TargetError(f"this method needs an RDF target for every pair of types: {missing}")
    return sorted(found.items())


def target_basis_sums(state: StateData, potential: PairPotential) -> Array:
    """<S> that the targets' g(r) imply, [pairs, coefficients]: N_pairs / V int 4 pi r^2 g B dr."""
    sums = np.zeros((potential.n_pairs, potential.basis.n_coefficients))
    volume = float(np.mean(state.frames.volume))
    rows, columns = np.triu_indices(potential.n_types)
    n = state.theory.n_of_type
    for pair, target in pair_targets(state, potential):
        assert target.x is not None
        if target.x[-1] < potential.basis.cutoff - 1.5 * np.diff(target.x).max():
            raise TargetError(
                f"relative entropy needs g(r) up to the cutoff, {potential.basis.cutoff:.4f} nm; "
                f"the target ends at {target.x[-1]:.4f} nm"
            )
        a, b = rows[pair], columns[pair]
        n_pairs = n[a] * (n[a] - 1) / 2 if a == b else n[a] * n[b]
        edges = np.concatenate(
            [[target.x[0]], 0.5 * (target.x[1:] + target.x[:-1]), [potential.basis.cutoff]]
        )
        for g, low, high in zip(target.values, edges[:-1], edges[1:], strict=True):
            r = np.linspace(low, high, 9)
            r = 0.5 * (r[1:] + r[:-1])
            measure = 4 * np.pi * r**2 * (high - low) / len(r)
            sums[pair] += n_pairs / volume * g * (measure @ potential.basis.values(r))
    return sums


def _pair(potential: Potential, method: str) -> PairPotential:
    if not isinstance(potential, PairPotential):
        raise TargetError(
            f"{method} is for a pair potential, got {type(potential).__name__}; take "
            'method="adam", or TorchOptimizer(...)'
        )
    return potential


def is_linear(potential: Potential) -> bool:
    """Are the parameters spline coefficients?"""
    if isinstance(potential, TemperatureDependent):
        return is_linear(potential.energetic) and is_linear(potential.entropic)
    return isinstance(potential, SplinePair)


def is_free_form(potential: Potential) -> bool:
    """Can the potential have any shape, so that it needs a smoothness prior?"""
    return is_linear(potential) or isinstance(potential, NeuralPair)


def nearest_distance(state: StateData) -> float:
    """Distance of nearest neighbours, nm: first peak of the first RDF target, or rho^(-1/3)."""
    for target in state.targets:
        if target.curve is not None:
            found = target.observable.nearest_distance(target.curve)
            if found is not None:
                return found
    return float(state.state_point.number_density() ** (-1 / 3))


@torch.no_grad()
def add_to_parameters(potential: Potential, change: Tensor) -> None:
    """theta += change, flat over the parameters that require a gradient."""
    set_flat_parameters(potential, flat_parameters(potential) + change)


METHODS: dict[str, Callable[[], Method]] = {
    "gauss-newton": GaussNewton,
    "ibi": IterativeBoltzmannInversion,
    "relative-entropy": RelativeEntropy,
    "adam": lambda: TorchOptimizer(lambda p: torch.optim.Adam(p, lr=0.02)),
}
