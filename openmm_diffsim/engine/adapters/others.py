"""What else acts between the particles that a potential is learned for."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import openmm
from numpy.typing import NDArray

from ..native import SplinePairForce
from .pair_force import pair_force, particle_types

IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]

# All particles of these act on each other, in a way that only their expression knows.
_ANY_PAIR = (openmm.CustomNonbondedForce, openmm.CustomGBForce, openmm.GayBerneForce)


def nonbonded_between(
    system: openmm.System, first: IntArray, second: IntArray, names: Collection[str] = ()
) -> list[str]:
    """Which forces, but for those of these names, act between two sets of particles beyond bonds.

    A NonbondedForce counts where particles of both sets have charges, or Lennard-Jones parameters.
    """
    found = []
    for force in system.getForces():
        if force.getName() not in names and any(
            (a[first].any() and b[second].any()) or (b[first].any() and a[second].any())
            for a, b in _acting(force, system.getNumParticles())
        ):
            found.append(force.getName())
    return found


def _acting(force: openmm.Force, n: int) -> Iterator[tuple[Mask, Mask]]:
    """Particles that act on each other: those of one mask on those of the other."""
    everything = np.ones(n, dtype=bool)
    if isinstance(force, openmm.NonbondedForce):
        parameters = [force.getParticleParameters(i) for i in range(force.getNumParticles())]
        charge, _, epsilon = np.array([[p._value for p in row] for row in parameters]).T
        for k in range(force.getNumParticleParameterOffsets()):
            _, index, more, _, deeper = force.getParticleParameterOffset(k)
            charge[index], epsilon[index] = abs(charge[index]) + abs(more), epsilon[index] + deeper
        yield charge != 0, charge != 0
        yield epsilon != 0, epsilon != 0
    elif SplinePairForce.isinstance(force):
        own = pair_force(force)
        acts = (particle_types(own, 0) >= 0) & bool(own.getCoefficients().any())
        yield acts, acts
    elif isinstance(force, openmm.CustomNonbondedForce) and force.getNumInteractionGroups():
        for k in range(force.getNumInteractionGroups()):
            a, b = (np.isin(np.arange(n), g) for g in force.getInteractionGroupParameters(k))
            yield a, b
    elif isinstance(force, _ANY_PAIR):
        yield everything, everything
