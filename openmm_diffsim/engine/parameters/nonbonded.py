"""What a NonbondedForce holds, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import openmm
from numpy.typing import NDArray

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Nonbonded:
    """Parameters of particles and of exceptions, and what offsets add to them.

    Attributes
    ----------
    particles : array [particles, 3]
        Charge (e), sigma (nm), epsilon (kJ/mol).
    shifts : the same shape
        What the force's own parameter offsets add, at the defaults of their global parameters.
    offset_by : frozenset of str
        Global parameters of offsets of sigma or epsilon.
    exceptions : int array [exceptions, 2]
        Pairs of particles.
    own : array [exceptions, 3]
        Product of charges (e^2), sigma, epsilon of each exception.
    is_offset : bool array [exceptions, 3]
        Which of these have offsets.
    """

    particles: Array
    shifts: Array
    offset_by: frozenset[str]
    exceptions: IntArray
    own: Array
    is_offset: NDArray[np.bool_]
    is_charge_offset: bool
    """Are there offsets of charges of particles?"""


def read(force: openmm.NonbondedForce) -> Nonbonded:
    """All of it."""
    n, m = force.getNumParticles(), force.getNumExceptions()
    particles = [[p._value for p in force.getParticleParameters(i)] for i in range(n)]
    exceptions = [force.getExceptionParameters(k) for k in range(m)]
    defaults = {
        force.getGlobalParameterName(k): force.getGlobalParameterDefaultValue(k)
        for k in range(force.getNumGlobalParameters())
    }
    shifts, offset_by, charged = np.zeros((n, 3)), set(), False
    for k in range(force.getNumParticleParameterOffsets()):
        name, index, *more = force.getParticleParameterOffset(k)
        shifts[index] += defaults[name] * np.array(more)
        offset_by |= {name} if more[1] or more[2] else set()
        charged |= more[0] != 0
    is_offset = np.zeros((m, 3), dtype=bool)
    for k in range(force.getNumExceptionParameterOffsets()):
        _, index, *more = force.getExceptionParameterOffset(k)
        is_offset[index] |= np.array(more) != 0
    return Nonbonded(
        np.array(particles, dtype=np.float64).reshape(-1, 3),
        shifts,
        frozenset(offset_by),
        np.array([e[:2] for e in exceptions], dtype=np.int64).reshape(-1, 2),
        np.array([[p._value for p in e[2:]] for e in exceptions], dtype=np.float64).reshape(-1, 3),
        is_offset,
        charged,
    )


def frame_of(force: openmm.NonbondedForce) -> list[object]:
    """Method, pairs of exceptions, and offsets: what stays where parameters change."""
    pairs = [force.getExceptionParameters(k)[:2] for k in range(force.getNumExceptions())]
    offsets = [
        [getattr(force, f"get{kind}ParameterOffset")(k) for k in range(count)]
        for kind, count in (
            ("Particle", force.getNumParticleParameterOffsets()),
            ("Exception", force.getNumExceptionParameterOffsets()),
        )
    ]
    return [force.getNonbondedMethod(), force.getNumParticles(), pairs, offsets]


def set_particle(force: openmm.NonbondedForce, index: int, **new: float) -> None:
    """Give a particle another ``charge``, ``sigma`` or ``epsilon``; the others stay."""
    names = ("charge", "sigma", "epsilon")
    old = force.getParticleParameters(index)
    force.setParticleParameters(
        index, *(new.get(name, value) for name, value in zip(names, old, strict=True))
    )


def set_exception(force: openmm.NonbondedForce, index: int, **new: float) -> None:
    """Give an exception another ``charge`` product, ``sigma`` or ``epsilon``; the rest stays."""
    i, j, *old = force.getExceptionParameters(index)
    names = ("charge", "sigma", "epsilon")
    force.setExceptionParameters(
        index, i, j, *(new.get(name, value) for name, value in zip(names, old, strict=True))
    )
