"""How Forces hold sigma and epsilon of particles and of 1-4 pairs: as a NonbondedForce does."""

from __future__ import annotations

from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray

from ...errors import AttachError
from . import nonbonded
from .nonbonded import Nonbonded
from .rules import Rule, arithmetic
from .tail import tail
from .term import ForcePlace

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Sites:
    """Sigma and epsilon in a NonbondedForce; other ways to hold them are subclasses.

    Parameters
    ----------
    place : ForcePlace
        The Force of the particles.
    """

    rule: Rule = staticmethod(arithmetic)

    def __init__(self, place: ForcePlace) -> None:
        self.place = place

    @property
    def places(self) -> tuple[ForcePlace, ...]:
        """All Forces that hold them."""
        return (self.place,)

    def read(self, system: openmm.System) -> Nonbonded:
        """All numbers; AttachError where its energy is not known here."""
        force = self.place.find(system)
        _check_method(force)
        return nonbonded.read(force)

    def exclusions(self, force: Any) -> IntArray:
        """Pairs of particles that do not count, [exclusions, 2]."""
        return nonbonded.read(force).exceptions

    def defaults(self, force: Any, names: frozenset[str]) -> dict[str, float]:
        """Of global parameters of offsets."""
        return {name: _default(force, name) for name in sorted(names)}

    def frame_of(self, force: Any) -> Any:
        """What of a Force stays where the numbers change, as plain data."""
        return nonbonded.frame_of(force)

    def held(self, force: Any) -> Array:
        """Sigma and epsilon of all particles and 1-4 pairs of a Force."""
        table = nonbonded.read(force)
        return np.concatenate([table.particles, table.own])[:, 1:]

    def put(self, force: Any, particles: dict[int, Array], pairs: dict[int, Array]) -> None:
        """Give particles, and 1-4 pairs, by their index, another sigma and epsilon."""
        for i, (sigma, epsilon) in particles.items():
            nonbonded.set_particle(force, i, sigma=sigma, epsilon=epsilon)
        for k, (sigma, epsilon) in pairs.items():
            nonbonded.set_exception(force, k, sigma=sigma, epsilon=epsilon)

    def cutoff(self, force: Any) -> float:
        """nm; infinite without one."""
        none = force.getNonbondedMethod() == force.NoCutoff
        return np.inf if none else float(force.getCutoffDistance()._value)

    def has_mesh(self, force: Any) -> bool:
        """Is a part of the energy from LJPME?"""
        return bool(force.getNonbondedMethod() == force.LJPME)

    def wraps(self, system: openmm.System) -> bool:
        """Are 1-4 pairs between nearest images?"""
        return bool(self.place.find(system).getExceptionsUsePeriodicBoundaryConditions())

    def tail(self, force: Any, class_of: IntArray, pairs: IntArray) -> Array:
        """The dispersion correction; see ``tail``."""
        return tail(force, class_of, pairs)


def _check_method(force: openmm.NonbondedForce) -> None:
    if force.getNonbondedMethod() == force.LJPME and force.getUseSwitchingFunction():
        raise AttachError(
            f"{force.getName()}: expected LJPME without a switching function: OpenMM's Reference "
            "and CPU platforms leave it out and its GPU platforms do not, so that it is not one "
            "energy; call setUseSwitchingFunction(False)"
        )


def _default(force: openmm.NonbondedForce, name: str) -> float:
    names = [force.getGlobalParameterName(k) for k in range(force.getNumGlobalParameters())]
    return float(force.getGlobalParameterDefaultValue(names.index(name)))
