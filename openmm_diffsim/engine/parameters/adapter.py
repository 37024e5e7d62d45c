"""Parameters of forces that are in a System already, in OpenMM: nothing is added."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import openmm

from ...errors import AttachError
from ...observables import Charges, Particles
from ...potentials import AttachOptions, adapts
from ...statistics.molecules import molecule_centres
from ..adapters.base import Adapter, Array, FeatureRecorder, IntArray, refuse_trajectory
from ..adapters.sum import SumRecorder
from .frames import ProbedRecorder
from .system import SystemParameters
from .term import ForcePlace, FrameFeatures, Term, check_apart


@adapts(SystemParameters)
class SystemParametersAdapter(Adapter):
    """Finds the forces that the parameters are of, and brings new ones to them."""

    potential: SystemParameters
    adds_force = False

    @classmethod
    def own(cls, force: openmm.Force) -> Any:
        """None: every Force is the user's."""
        return None

    def attach(self, system: openmm.System, options: AttachOptions) -> list[openmm.Force]:
        """Find in another System what is learned; gives the Forces that hold it."""
        _refuse_options(options, self.potential.name)
        for term in self.potential:
            if term.key(system) not in term.layouts:
                term.keep(system, term.layout_like(system))
        self.bind(system)
        for place, term in self._placed():
            if not term.knows(place.find(system), self._layouts[term.name]):
                raise AttachError(
                    f"{term.name}: {place.find(system).getName()!r} of this System holds other "
                    "parameters than that of the first one: it would get those of the first; make "
                    "them equal, or learn both apart, by a SystemParameters of each"
                )
        return self.forces

    def bind(self, system: openmm.System) -> bool:
        """Find the Forces.

        Raises
        ------
        AttachError
            If there is nothing to be learned, or the System is another one than those known.
        """
        name = self.potential.name
        if not list(self.potential):
            raise AttachError(f"{name}: nothing is learned yet, call its lennard_jones() or others")
        self.n_particles = system.getNumParticles()
        self._system = system
        self._keys = {term.name: term.key(system) for term in self.potential}
        missing = [t.name for t in self.potential if self._keys[t.name] not in t.layouts]
        if missing:
            raise AttachError(
                f"{name}: this System is none that it was made for or attached to (other "
                "particles, masses, constraints, or what its Forces act on), for "
                f"{missing}: call attach(system) of it"
            )
        self._layouts = {t.name: t.layouts[self._keys[t.name]] for t in self.potential}
        return True

    def check_beside(self, others: Sequence[Adapter]) -> None:
        """PotentialError where another ``SystemParameters`` learns what this one has to do with."""
        theirs = [o.potential for o in others if isinstance(o.potential, SystemParameters)]
        for term in self.potential:
            check_apart(term, chain.from_iterable(theirs))

    @property
    def forces(self) -> list[openmm.Force]:
        """Those that hold what is learned, each once."""
        places = dict.fromkeys(place for place, _ in self._placed())
        return [place.find(self._system) for place in places]

    def _placed(self) -> Iterator[tuple[ForcePlace, Term]]:
        """Each Force of each term."""
        return ((place, term) for term in self.potential for place in term.places)

    @property
    def is_periodic(self) -> bool:
        """Is the System?"""
        return bool(self._system.usesPeriodicBoundaryConditions())

    @property
    def global_parameters(self) -> frozenset[str]:
        """Names of those of a Context that are learned."""
        return frozenset().union(*(term.global_parameters for term in self.potential))

    def update(self, context: openmm.Context | None, temperature: Any) -> None:
        """Write the present parameters to the Forces, and bring them to the Context."""
        if not np.all(np.isfinite(self.potential.coefficients(temperature).numpy(force=True))):
            raise AttachError(f"the coefficients of {self.potential.name!r} are not finite")
        for place, term in self._placed():
            force = place.find(self._system)
            if context is not None:
                term.check_context(force, context)
            if not term.overwrite(force, self._layouts[term.name]):
                _warn_of_loss(term.name, force.getName())
        if context is not None:
            # Once a Force and way: what it holds goes to the Context as a whole.
            ways = {(place, type(term).bring): term for place, term in self._placed()}
            for (place, _), term in ways.items():
                term.bring(place.find(self._system), context)

    def learns_of(self, force: openmm.Force) -> bool:
        """Is anything learned of this Force?"""
        return bool(self._terms_of(force))

    def hide(self, force: openmm.Force, copy: openmm.Force) -> None:
        """Put constants in place of what is learned."""
        for term in self._terms_of(force):
            term.hide(copy, self._layouts[term.name])

    def take_out(self, force: openmm.Force, copy: openmm.Force) -> None:
        """Leave E_0, as far as the terms can."""
        for term in self._terms_of(force):
            if term.leaves_rest(self._layouts[term.name]):
                term.leave_rest(copy, self._layouts[term.name])

    def _terms_of(self, force: openmm.Force) -> list[Term]:
        return [t for place, t in self._placed() if place.find(self._system).this == force.this]

    def charges(self, charges: Charges) -> Charges:
        """With those of all terms."""
        for term in self.potential:
            force, layout = term.place.find(self._system), self._layouts[term.name]
            charges = term.particle_charges(charges, force, layout)
        return charges

    def recorder(
        self, context: openmm.Context, particles: Particles, trajectory: str | Path | None
    ) -> FeatureRecorder:
        """What finds the features of all terms."""
        if self.potential.energy_is_linear:
            refuse_trajectory(trajectory)
            return self._linear(list(self.potential), context, particles)
        path = None if trajectory is None else Path(trajectory)
        recorders = [self._recorder_of(term, context, particles, path) for term in self.potential]
        return SumRecorder(recorders, [True] * len(recorders), tuple(self.potential.slices()))

    def _recorder_of(
        self, term: Any, context: openmm.Context, particles: Particles, path: Path | None
    ) -> FeatureRecorder:
        """Of one term; one that is no polynomial keeps frames in a file with its name."""
        if term.energy_is_linear:
            return self._linear([term], context, particles)
        own = path and path.with_stem(f"{path.stem}_{term.name}")
        return ProbedRecorder(term, self._keys[term.name], context, particles, own)

    def _linear(
        self, terms: Sequence[Term], context: openmm.Context, particles: Particles
    ) -> FeatureRecorder:
        found = [term.features(context, self._layouts[term.name]) for term in terms]
        within = [self._within(term) for term in terms]
        return _ParametersRecorder(found, np.concatenate(within), particles.molecule_of)

    def _within(self, term: Term) -> Array:
        """The coefficients of what ``take_out`` leaves; zeros, where that is nothing."""
        c = term.coefficients().numpy(force=True)
        return 0 * c if term.leaves_rest(self._layouts[term.name]) else c


class _ParametersRecorder(FeatureRecorder):
    """The features of every term, and those of the virial."""

    def __init__(
        self, terms: Sequence[FrameFeatures], within: Array, molecule_of: IntArray
    ) -> None:
        self._terms = terms
        self._within = within
        self._molecule_of = molecule_of
        self._last: tuple[Array, tuple[Array, Array]] | None = None
        super().__init__()

    def features(self, positions: Array, box: Array | None) -> tuple[Array, Array]:
        """S and S' = -3 V dS/dV, moving whole molecules, as ``RestForces.virial`` does."""
        if self._last is None or self._last[0] is not positions:
            self._last = positions, self._at(positions, box)
        return self._last[1]

    def energy_within(self, positions: Array, box: Array | None) -> float:
        """All that ``take_out`` leaves: the Forces are the System's own."""
        return float(self._within @ self.features(positions, box)[0])

    def virial_within(self, positions: Array, box: Array | None) -> float:
        """Likewise."""
        return float(self._within @ self.features(positions, box)[1])

    def _at(self, positions: Array, box: Array | None) -> tuple[Array, Array]:
        if box is None or not self.with_virial:
            found = np.concatenate([term.energies(positions, box) for term in self._terms])
            return found, np.full(len(found), 0.0 if self.with_virial else np.nan)
        centres = molecule_centres(positions, self._molecule_of)[self._molecule_of]
        both = [term.both(positions, box, centres) for term in self._terms]
        energies, virials = zip(*both, strict=True)
        return np.concatenate(energies), np.concatenate(virials)


def _warn_of_loss(term: str, force: str) -> None:
    warnings.warn(
        f"{term}: {force!r} held other parameters than it had when SystemParameters(system) was "
        "made: they are replaced; make it after all changes of the System",
        RuntimeWarning,
        stacklevel=5,
    )


def _refuse_options(options: AttachOptions, name: str) -> None:
    given = [key for key, value in vars(options).items() if value is not None]
    given = [key for key in given if key not in ("temperature", "exclude_bonds")]
    if "backend" in given or "precision" in given:
        raise AttachError(f"{name}: its forces are in the System already, got {given}")
