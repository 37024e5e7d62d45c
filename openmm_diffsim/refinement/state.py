"""A fit as its parts see it: state points with their frames, and a view that methods are given."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..engine.baths import conditions
from ..engine.statepoint import MOST_DRIFT
from ..engine.trajectory import sample_trajectory
from ..errors import StatePointError, TargetError
from ..limits import shown
from ..observables import Observable
from ..potentials import (
    ParameterPrior,
    Potential,
    SplinePair,
    flat_parameters,
    set_flat_parameters,
)
from ..samples import Samples, View, check_same_forces
from ..statistics.averages import drift
from ..units import MOLAR_GAS_CONSTANT
from .averages import Knowledge, Sight
from .comparison import Comparison, compare, groups_of
from .initial import invert
from .replicas import Replicas
from .species import Species
from .target import Target
from .theory import LiquidTheory

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

_LOG = logging.getLogger(__name__)


@dataclass
class State:
    """One state point of a fit: what is measured there, and everything sampled there so far."""

    state_point: Any  # a StatePoint
    targets: list[Target]
    theory: LiquidTheory | None = None
    """None where liquid-state theory has no say, see ``why_no_theory``."""
    prior_mean: Array | None = None
    """c_0, [coefficients], what the potential's prior is about; None: the present ones."""
    pool: Samples | None = None
    last: Samples | None = None
    species: Species | None = None
    """None where no pair potential acts."""
    why_no_theory: str = ""
    """Empty where theory is used."""

    @property
    def frames(self) -> Samples:
        """All frames, weighted by the mixture of all rounds.

        Raises
        ------
        StatePointError
            If there is none yet.
        """
        if self.pool is None:
            raise StatePointError(
                "nothing was sampled yet: a fit knows no averages before run() or read()"
            )
        return self.pool

    def __post_init__(self) -> None:
        self.temperature = float(self.state_point.temperature)
        """K, that the targets are for."""
        self.pressure: float | None = self.state_point.pressure
        """bar."""
        self.replicas = Replicas(self.state_point)

    def check_conditions(self) -> None:
        """StatePointError where the Simulation is no longer what it was.

        At another temperature or pressure than the targets are for, or with other forces than its
        frames were sampled with.
        """
        point = self.state_point
        got, expected = (point.temperature, point.pressure), (self.temperature, self.pressure)
        if got != expected:
            raise StatePointError(
                f"a state point of this fit is now at {conditions(*got)}, but was at "
                f"{conditions(*expected)} when the fit was made, which its targets are for: set "
                "thermostat and barostat back, or make a new Refinement",
                got=got,
                expected=expected,
            )
        if self.pool is not None:
            last = self.pool.runs[-1]
            check_same_forces(last, replace(last, rest=self.state_point.rest()))

    def recorded(self) -> list[Observable]:
        """What is recorded in every frame."""
        observables = [o for t in self.targets for point, o in t.terms if point is self.state_point]
        if self.theory is not None:
            observables += self.theory.rdfs
        return list(dict.fromkeys(observables))

    def read(
        self, trajectory: Any, theta: Tensor, temperature: Any, pressure: Any, place: Path | None
    ) -> Samples:
        """The frames of a stored trajectory that was sampled with these parameters.

        ``place`` is where those of a network are kept. A trajectory that drifts is warned of.
        """
        point, potential = self.state_point, self.state_point.potential
        now = flat_parameters(potential)
        try:
            set_flat_parameters(potential, theta)
            samples = sample_trajectory(
                potential,
                trajectory,
                point.simulation.context,
                self.recorded(),
                temperature=self.temperature if temperature is None else temperature,
                pressure=self.pressure if pressure is None else pressure,
                frames=place,
            )
        finally:
            set_flat_parameters(potential, now)
            point.apply()
        drifts = [drift(run.run_energies()) for run in samples.each_run()]
        if max(drifts) > MOST_DRIFT:
            warnings.warn(
                f"the energy of a trajectory drifts, by {max(drifts):.1f} standard errors from its "
                f"first to its second half, where at most {MOST_DRIFT} are expected: leave out its "
                "beginning, where it was not yet in equilibrium",
                stacklevel=3,
            )
        self._warn_of_the_same(samples)
        here = samples.reweight(self.temperature, self.pressure)
        return replace(here, floor=min(here.floor, 0.5 * len(here)))

    def _warn_of_the_same(self, samples: Samples) -> None:
        """A warning where frames are there already, as of a file that is read twice."""
        if self.pool is None or not samples.potential.energy_is_linear:
            return
        known, read = _keys(self.pool), _keys(samples)
        shared = len(known & read)
        if shared and len(read) > 1:
            warnings.warn(
                f"{shared} of {len(read)} frames are there already: was a trajectory read twice? "
                "They count twice, and error bars become too small",
                stacklevel=4,
            )

    def add(self, samples: Samples) -> None:
        """Frames of one more round, or further ones of it."""
        self.last = samples
        self.pool = samples if self.pool is None else Samples.pool([self.pool, samples])

    def contact(self, least: float = 0.1) -> float | None:
        """The smallest r, nm, at which each g(r) of the targets has risen; None without one."""
        found = [t.observable.contact(t.curve, least) for t in self.targets if t.curve is not None]
        return max((r for r in found if r is not None), default=None)

    def nearest_distance(self) -> float:
        """Distance of nearest neighbours, nm: first peak of the first g(r), or rho^(-1/3)."""
        for target in self.targets:
            if target.curve is not None:
                found = target.observable.nearest_distance(target.curve)
                if found is not None:
                    return found
        return float(self.state_point.number_density() ** (-1 / 3))

    def moved(self) -> float:
        """How far particles moved in any run, over the distance of neighbours.

        Infinite where there is no g(r) among the targets, as in a trap, or it was not recorded.
        """
        if not any(target.observable.is_structure for target in self.targets):
            return float("inf")
        most = max(run.rms_displacement for run in self.frames.runs)
        return most / self.nearest_distance() if np.isfinite(most) else float("inf")


def _keys(samples: Samples) -> set[bytes]:
    """What tells a frame from others at any parameters: features and volume, to the last bit."""
    rows = np.column_stack([samples.features, samples.volume])
    return {row.tobytes() for row in rows}


def make_states(
    potential: Potential, targets: Sequence[Target], prior: Any, theory: bool = True
) -> list[State]:
    """The state points of all targets, and what is known there before anything is sampled.

    ``theory``: may liquid-state theory be asked, where it has a say?
    """
    points = dict.fromkeys(point for target in targets for point, _ in target.terms)
    return [_make_state(potential, point, targets, prior, theory) for point in points]


def _make_state(
    potential: Potential, point: Any, targets: Sequence[Target], prior: Any, wanted: bool
) -> State:
    mine = [t for t in targets if any(p is point for p, _ in t.terms)]
    given = _given(prior, potential, point)
    species = Species(point) if potential.pairs() else None
    theory, why_not = _theory(point, mine, species, wanted)
    if given is None and species is None:
        given = _present(potential, point)
    elif given is None and species is not None:
        given = _mean_force(potential, point, mine, species)
    return State(point, mine, theory, given, species=species, why_no_theory=why_not)


def _given(prior: Any, potential: Potential, point: Any) -> Array | None:
    """The c_0 that a user says, [coefficients]; None: "auto"."""
    if isinstance(prior, str) and prior == "auto":
        return None
    n = len(_present(potential, point))
    try:
        given = np.asarray(torch.as_tensor(prior).detach().reshape(-1), dtype=np.float64)
    except (TypeError, ValueError, RuntimeError):
        given = np.zeros(0)
    if given.shape != (n,):
        raise TargetError(
            f"prior: got {shown(prior)}, expected 'auto' or the {n} coefficients of "
            f"{potential.name}, as potential.coefficients(temperature) gives them",
            got=prior,
        )
    return given


def _theory(
    point: Any, targets: Sequence[Target], species: Species | None, wanted: bool
) -> tuple[LiquidTheory | None, str]:
    """What liquid-state theory says at a state point, or why it says nothing."""
    grids = [t.axis.values for t in targets if t.axis is not None and t.observable.is_structure]
    if species is None:
        why_not = f"{point.potential.name} is no pair potential"
    elif not wanted:
        why_not = "the method is not to use it"
    else:
        why_not = LiquidTheory.why_not(point, species, grids)
    if species is None or why_not:
        _LOG.info("at %g K the frames speak alone, without theory: %s", point.temperature, why_not)
        return None, why_not
    return LiquidTheory(point, species, grids), ""


def _present(potential: Potential, point: Any) -> Array:
    """The coefficients that it has, a copy."""
    return np.array(potential.coefficients(point.temperature).numpy(force=True))


def _mean_force(
    potential: Potential, point: Any, targets: Sequence[Target], species: Species
) -> Array:
    """Potential of mean force of the targets, or the present coefficients where they lack it.

    Where other forces act between the same particles, they are part of the mean force already: what
    is learned of a spline is a correction, which is none, but for its core, as far as is known.
    Of charges alone next to nothing is in the mean force, see ``boltzmann_inversion``.
    """
    mean = _present(potential, point)
    pairs = potential.pairs()
    for target in targets:
        found = species.pair_of(target.observable)
        if found is None or target.curve is None or not pairs[found[0]][1].is_free_form:
            continue
        (where, pair), row = pairs[found[0]], found[1]
        if not pair.learned_rows()[row]:
            continue
        basis = pair.basis
        scratch = SplinePair(basis.r_min, basis.cutoff, basis.knots, pair.n_types)
        charges = point.charges_between(*_particles(point, found))
        invert(scratch, target.curve, point.temperature, row, charges=charges)
        rows = mean[where].reshape(pair.n_pairs, -1)  # a view into it
        inverted = scratch.spline_coefficients().detach().numpy()[row]
        others = point.other_forces(*_particles(point, found))
        if charges is not None or not others:
            rows[row] = inverted
            continue
        if _is_like(basis, rows[row], inverted, scratch.core_radius[row].item(), point):
            warnings.warn(
                f"{pair.name} begins as the potential of mean force of a g(r) between particles "
                f"that {' and '.join(others)} also acts on: these pairs are described twice. The "
                "prior is about no correction; begin there too, as a new SplinePair does",
                stacklevel=6,
            )
        if pair.is_linear:
            none = torch.zeros(pair.n_pairs, basis.n_coefficients, dtype=torch.float64)
            rows[row] = pair.with_core(none)[row].numpy(force=True)
    return mean


def _particles(point: Any, place: tuple[int, int]) -> list[IntArray]:
    """Those of both types of a pair of types of one of the ``pairs``."""
    types = point.pair_types()[place[0]]
    kinds = point.potential.pairs()[place[0]][1].n_types
    rows, columns = np.triu_indices(kinds)
    return [np.flatnonzero(types == side[place[1]]) for side in (rows, columns)]


def _is_like(basis: Any, c: Array, inverted: Array, contact: float, point: Any) -> bool:
    """Are two potentials the same to a tenth of kT where pairs are found?"""
    r = np.linspace(contact, 0.95 * basis.cutoff, 100)
    u, w = basis.values(r) @ c, basis.values(r) @ inverted
    thermal = MOLAR_GAS_CONSTANT * point.temperature
    return bool(np.abs(u - w).max() < 0.1 * thermal < 0.5 * np.ptp(w))


@dataclass(frozen=True, eq=False)
class FitView:
    """A fit at one set of parameters, frozen: what a ``Method`` is given.

    Attributes
    ----------
    potential : Potential
    states : tuple of State
        Targets and frames of every state point.
    start : Tensor [parameters]
        theta that the fit has, flat over those of the potential that require a gradient.
    memory : mapping
        What the method's last step left to remember; empty at first.
    change : Tensor [parameters]
        What was added to ``start`` since.
    prior : ParameterPrior, optional
        What is known of the parameters themselves; None: nothing.
    """

    potential: Potential
    states: tuple[State, ...]
    start: Tensor
    memory: Mapping[str, Any] = field(default_factory=dict)
    change: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    prior: ParameterPrior | None = None

    @cached_property
    def parameters(self) -> Tensor:
        """theta here, [parameters]."""
        return self.start + self.change

    def at(self, parameters: Tensor) -> FitView:
        """The same fit at other parameters."""
        return replace(self, change=parameters - self.start)

    def moved(self, change: Array) -> FitView:
        """The same fit, its parameters changed by ``change`` [parameters].

        Where a step of ``view.change`` ends is, to the last bit, where the view is: what a method
        has evaluated there is not evaluated again.
        """
        return replace(self, change=self.change + torch.from_numpy(change))

    def of(self, states: Sequence[State]) -> FitView:
        """The same fit with other frames, or data, at these parameters."""
        start = self.parameters.detach()
        return FitView(self.potential, tuple(states), start, self.memory, prior=self.prior)

    @cached_property
    def frames(self) -> list[View]:
        """All frames of every state point at these parameters."""
        return [state.frames.at(self.parameters) for state in self.states]

    @property
    def targets(self) -> list[Target]:
        """All targets, each once."""
        return list({id(t): t for state in self.states for t in state.targets}.values())

    @cached_property
    def groups(self) -> list[tuple[list[Target], list[int]]]:
        """Targets that hang together, and the indices of their state points."""
        index = {id(state.state_point): k for k, state in enumerate(self.states)}
        return [(ts, [index[id(p)] for p in points]) for ts, points in groups_of(self.targets)]

    def averages(self, target: Target) -> list[Tensor]:
        """Of all terms of a target, [values] each, with a graph to the parameters."""
        index = {id(state.state_point): k for k, state in enumerate(self.states)}
        return [self.frames[index[id(point)]].average(o) for point, o in target.terms]

    def reaches(self, least: Sequence[float]) -> bool:
        """Is n_effective of every state point at least that?"""
        return all(f.n_effective >= n for f, n in zip(self.frames, least, strict=True))

    def enough(self, share: float) -> list[float]:
        """Of each state point, the n_effective that an update leaves: a share of the present."""
        return [max(share * f.n_effective, f.samples.least_effective) for f in self.frames]

    def compare(
        self, knowledge: Knowledge | None = None, jacobian: bool = True
    ) -> list[Comparison]:
        """How each group of targets compares with the frames; see ``comparison.compare``.

        Found once, however often it is asked.
        """
        asked = knowledge, jacobian
        if (more := (knowledge, True)) in self._compared:
            return self._compared[more]
        if asked not in self._compared:
            self._compared[asked] = [
                compare(targets, [self._sight(k) for k in members], knowledge, jacobian)
                for targets, members in self.groups
            ]
        return self._compared[asked]

    @cached_property
    def _compared(self) -> dict[tuple[Knowledge | None, bool], list[Comparison]]:
        """What ``compare`` has found."""
        return {}

    def _sight(self, index: int) -> Sight:
        state = self.states[index]
        return Sight(state.state_point, self.frames[index], state.theory)

    def coefficients(self, index: int) -> Array:
        """c at the temperature of a state point, [coefficients]."""
        return self._coefficients[index]

    @cached_property
    def kelvins(self) -> list[float]:
        """Of each state point, one that coefficients are the same at as at its own temperature."""
        all_of_them = [state.temperature for state in self.states]
        if self.potential.depends_on_temperature:
            return all_of_them
        return all_of_them[:1] * len(all_of_them)

    @cached_property
    def _coefficients(self) -> list[Array]:
        found = {
            kelvin: self.potential.coefficients_at(self.parameters, kelvin).numpy(force=True)
            for kelvin in set(self.kelvins)
        }
        return [found[kelvin] for kelvin in self.kelvins]

    def chain(self, index: int) -> Array:
        """dc/dtheta at the temperature of a state point, [coefficients, parameters]."""
        return self._chains[index]

    @cached_property
    def _chains(self) -> list[Array]:
        rows = np.eye(len(self.coefficients(0)))
        found = {
            kelvin: self.potential.pull_back(rows, self.parameters, kelvin)
            for kelvin in set(self.kelvins)
        }
        return [found[kelvin] for kelvin in self.kelvins]

    def from_prior(self, index: int) -> Array:
        """c - c_0 at a state point, [coefficients]."""
        c, mean = self.coefficients(index), self.states[index].prior_mean
        return np.zeros_like(c) if mean is None else c - mean

    def prior_precision(self, index: int, roughness: float) -> Array | None:
        """The potential's ``prior_precision`` at a state point, [coefficients] squared.

        State points of one temperature share it, and all temperatures what is the same at each.
        """
        blocks = self.prior_blocks(index, roughness)
        if not blocks:
            return None
        n = len(self.coefficients(index))
        precision = np.zeros((n, n))
        for where, block in blocks:
            precision[where, where] = block
        return precision

    def prior_blocks(self, index: int, roughness: float) -> list[tuple[slice, Array]]:
        """``prior_precision`` where it is not zero."""
        blocks = self.potential.prior_blocks(*self._known(index, roughness))
        return [(where, block * self._share(index)) for where, block in blocks]

    def _known(self, index: int, roughness: float) -> tuple[float, float, float, int]:
        state = self.states[index]
        n_temperatures = len({s.temperature for s in self.states})
        return state.temperature, state.nearest_distance(), roughness, n_temperatures

    def _share(self, index: int) -> float:
        """Of a state point in what its temperature tells."""
        temperatures = [s.temperature for s in self.states]
        return 1 / temperatures.count(temperatures[index])

    def step_size(self, change: Array) -> float | None:
        """Largest change of what the potential is a function of, in kT; None: frames must tell.

        ``change`` is of the parameters, [parameters].
        """
        after = self.moved(change)
        sizes = [
            self.potential.step_size(
                after.coefficients(k) - self.coefficients(k), s.temperature, s.contact() or 0.0
            )
            for k, s in enumerate(self.states)
        ]
        known = [size for size in sizes if size is not None]
        return float(np.max(known)) if known else None  # NaN if any is


def compared(view: FitView, knowledge: Knowledge) -> list[Comparison]:
    """What the frames alone say of the targets: for a misfit, without a Jacobian."""
    return view.compare(knowledge, jacobian=False)


def misfit_of(comparisons: Sequence[Comparison]) -> float:
    """Root mean square of residual / combined uncertainty over all points."""
    sizes = [len(c.residual) for c in comparisons]
    squares = [c.misfit() ** 2 for c in comparisons]
    return float(np.sqrt(np.average(squares, weights=sizes)))


def rdf_rms(comparisons: Sequence[Comparison]) -> float:
    """Root mean square deviation of all g(r) targets; NaN without one."""
    squares = [
        c.residual[where] ** 2
        for c in comparisons
        for target, where in c.places()
        if target.observable.is_structure
    ]
    return float(np.sqrt(np.mean(np.concatenate(squares)))) if squares else float("nan")


def check_targets(potential: Potential, targets: Sequence[Target]) -> None:
    """Raises TargetError for no target, or one of another potential."""
    if not targets:
        raise TargetError("a refinement needs at least one target")
    for target in targets:
        for point in target.state_points:
            if point.potential is not potential:
                raise TargetError("a target's state point holds another potential")
