"""What else acts on the particles that a potential is learned for."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import openmm
from numpy.typing import NDArray

from ..context import masses_of
from ..native import SplinePairForce
from .base import Adapter
from .bonds import with_inner
from .pair_force import is_zero_table, pair_force, particle_types
from .system import has_energy, without_forces

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]

_TERMS = ("getNumParticles", "getNumBonds", "getNumAngles", "getNumTorsions")
# These act on particles that they list together, or on each by itself. All else that has an energy
# counts as acting between any two particles, in a way that only its expression or its code knows.
_LISTED = (
    openmm.HarmonicBondForce,
    openmm.CustomBondForce,
    openmm.HarmonicAngleForce,
    openmm.CustomAngleForce,
    openmm.PeriodicTorsionForce,
    openmm.RBTorsionForce,
    openmm.CustomTorsionForce,
    openmm.CMAPTorsionForce,
    openmm.CustomCompoundBondForce,
    openmm.CustomCentroidBondForce,
    openmm.DrudeForce,
    openmm.CustomExternalForce,
    openmm.RMSDForce,
    openmm.CustomCVForce,  # what stands in it is asked itself
    openmm.ATMForce,
)


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
            for part in with_inner([force])
            for a, b in _acting(part, system.getNumParticles())
        ):
            found.append(force.getName())
    return found


def charges_between(
    system: openmm.System, first: IntArray, second: IntArray, names: Collection[str] = ()
) -> tuple[float, float] | None:
    """Charges, e, of two sets of particles, where these are all that acts between them.

    None where something else does, or nothing, or the charges of a set differ; ``names`` are of
    forces that do not count.
    """
    acting = nonbonded_between(system, first, second, names)
    forces = [force for force in system.getForces() if force.getName() in acting]
    if len(forces) != 1 or not isinstance(forces[0], openmm.NonbondedForce):
        return None
    charge, epsilon = _charges_and_depths(forces[0])
    if (epsilon[first].any() and epsilon[second].any()) or _is_offset(forces[0]):
        return None
    found = [np.unique(charge[atoms]) for atoms in (first, second)]
    return (float(found[0][0]), float(found[1][0])) if max(map(len, found)) == 1 else None


def beyond_pairs(system: openmm.System, learned: Adapter) -> str:
    """What makes more of a System than free sites with the learned pairs alone; "" if nothing.

    Any force with an energy counts, on whatever it acts, and pairs that the learned one leaves out.
    """
    n = system.getNumParticles()
    acting = np.any([types >= 0 for types in learned.pair_types()], axis=0)
    sites = sum(system.isVirtualSite(i) for i in range(n))
    forces = [f for f in system.getForces() if f.getName() not in learned.names]
    others = [f.getName() for f in forces if _acts(f, n)]
    found = {
        f"are {system.getNumConstraints()} constraints": system.getNumConstraints(),
        f"are {sites} virtual sites": sites,
        f"acts {' and '.join(others)} too": others,
        "are pairs that it leaves out": any(len(pairs) for pairs in learned.exclusions()),
        "are particles without mass, which stay in place": (masses_of(system)[acting] == 0).any(),
    }
    return next((what for what, there in found.items() if there), "")


def acting_forces(
    system: openmm.System, names: Collection[str] = (), learned: Adapter | None = None
) -> openmm.System:
    """A copy of a System with the forces that act, but for those of these names.

    ``learned``: without what it learns of them, as far as that can be taken out.
    """
    kept = without_forces(system)
    for force in system.getForces():
        if force.getName() in names or not _acts(force, system.getNumParticles()):
            continue
        copy = openmm.XmlSerializer.clone(force)
        if learned is not None and learned.learns_of(force):
            learned.take_out(force, copy)
        if _acts(copy, system.getNumParticles()):
            kept.addForce(copy)
    return kept


def _acts(force: openmm.Force, n: int) -> bool:
    """False for thermostats and the like, for what has no terms, and for one that is zero."""
    if any(a.any() and b.any() for a, b in _acting(force, n)):
        return True
    if isinstance(force, openmm.NonbondedForce):
        if force.getNumExceptionParameterOffsets():
            return True
        rows = [force.getExceptionParameters(i)[2:] for i in range(force.getNumExceptions())]
        return any(charge._value or epsilon._value for charge, _, epsilon in rows)
    if pair_force(force) is not None or not has_energy(force):
        return False
    terms = [getattr(force, name)() for name in _TERMS if hasattr(force, name)]
    return not terms or any(terms)


def _acting(force: openmm.Force, n: int) -> Iterator[tuple[Mask, Mask]]:
    """Particles that act on each other: those of one mask on those of the other."""
    everything = np.ones(n, dtype=bool)
    if isinstance(force, openmm.NonbondedForce):
        charge, epsilon = _charges_and_depths(force)
        for k in range(force.getNumParticleParameterOffsets()):
            _, index, more, _, deeper = force.getParticleParameterOffset(k)
            charge[index], epsilon[index] = abs(charge[index]) + abs(more), epsilon[index] + deeper
        yield charge != 0, charge != 0
        yield epsilon != 0, epsilon != 0
    elif SplinePairForce.isinstance(force):
        own = pair_force(force)
        acts = (particle_types(own, 0) >= 0) & bool(own.getCoefficients().any())
        yield acts, acts
    elif is_zero_table(force):
        return
    elif isinstance(force, openmm.CustomNonbondedForce) and force.getNumInteractionGroups():
        for k in range(force.getNumInteractionGroups()):
            a, b = (np.isin(np.arange(n), g) for g in force.getInteractionGroupParameters(k))
            yield a, b
    elif has_energy(force) and not isinstance(force, _LISTED):
        yield everything, everything


def _charges_and_depths(force: openmm.NonbondedForce) -> tuple[Array, Array]:
    """Charge, e, and epsilon, kJ/mol, of each particle, without offsets; [particles] each."""
    parameters = [force.getParticleParameters(i) for i in range(force.getNumParticles())]
    charge, _, epsilon = np.array([[p._value for p in row] for row in parameters]).T
    return charge, epsilon


def _is_offset(force: openmm.NonbondedForce) -> bool:
    return bool(force.getNumParticleParameterOffsets())
