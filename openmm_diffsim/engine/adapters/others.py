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
_BONDS = (openmm.HarmonicBondForce, openmm.CustomBondForce)


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


def bonded_twice(
    system: openmm.System, atoms: IntArray, exclusions: list[IntArray], names: Collection[str] = ()
) -> list[str]:
    """Which forces and constraints bind pairs of these particles that are not all excluded.

    ``exclusions`` are those of the potential, each [pairs, 2]: they describe such a pair alone.
    """
    chosen = set(atoms.tolist())
    excluded = {frozenset(pair) for each in exclusions for pair in each.tolist()}
    return [
        name
        for name, pairs in _bonds(system)
        if name not in names
        and any(set(pair) <= chosen and frozenset(pair) not in excluded for pair in pairs)
    ]


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


def _bonds(system: openmm.System) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    for force in system.getForces():
        if isinstance(force, _BONDS):
            parameters = map(force.getBondParameters, range(force.getNumBonds()))
            yield force.getName(), [(int(p[0]), int(p[1])) for p in parameters]
    constraints = map(system.getConstraintParameters, range(system.getNumConstraints()))
    yield "constraints", [(int(a), int(b)) for a, b, _ in constraints]
