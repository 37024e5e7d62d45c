"""The dispersion correction of a NonbondedForce as a linear function of its coefficients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import unit

from ...statistics.powers import UNIT

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

_CORRECTED = (
    openmm.NonbondedForce.CutoffPeriodic,
    openmm.NonbondedForce.Ewald,
    openmm.NonbondedForce.PME,
)


def tail(force: openmm.NonbondedForce, class_of: IntArray, pairs: IntArray) -> Array:
    """What it adds, times the volume, per coefficient of each pair of classes, [pairs, 2], nm^3.

    With N particles, of which n_a are of class a, OpenMM counts n_a n_b pairs, n_a (n_a + 1) / 2 of
    one class, of N (N + 1) / 2, so that the energy is

        E V = 2 N / (N + 1) sum_ab n_ab [c_ab12 K_12 - c_ab6 K_6].

    The K, which depend on the cutoff and the switching function, are asked of OpenMM. The sign of
    K_6 is that of the sums of inverse powers.
    """
    if not force.getUseDispersionCorrection() or force.getNonbondedMethod() not in _CORRECTED:
        return np.zeros((len(pairs), 2))

    def of_one(sigma: float, length: float) -> float:
        return _of_one(force, sigma, length)

    return long_range(of_one, force.getCutoffDistance()._value, class_of, pairs)


def long_range(
    of_one: Callable[[float, float], float], cutoff: float, class_of: IntArray, pairs: IntArray
) -> Array:
    """The same, by the energy, kJ/mol, of one particle of this sigma in a cube of this side, nm."""
    n = len(class_of)
    counts = np.bincount(class_of[class_of >= 0], minlength=int(pairs.max()) + 1).astype(float)
    a, b = pairs.T
    number = np.where(a == b, counts[a] * (counts[a] + 1) / 2, counts[a] * counts[b])
    return np.asarray(2 * n / (n + 1) * number[:, None] * _constants(of_one, cutoff))


def _constants(of_one: Callable[[float, float], float], cutoff: float) -> Array:
    """K_12 and K_6: from the energies of a single particle at two sigmas."""
    sigmas = np.array([1.0, 0.5]) * cutoff
    energies = [of_one(sigma, 2.5 * cutoff) * (2.5 * cutoff) ** 3 for sigma in sigmas]
    s6 = (sigmas / UNIT) ** 6
    found = np.linalg.solve(4 * np.column_stack([s6**2, -s6]), energies)
    return np.asarray(found)


def _of_one(force: openmm.NonbondedForce, sigma: float, length: float) -> float:
    """Energy of one particle with epsilon 1 in a cubic box, kJ/mol."""
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*np.diag([length] * 3))
    system.addParticle(1.0)
    lone = openmm.NonbondedForce()
    lone.setNonbondedMethod(lone.CutoffPeriodic)
    lone.setCutoffDistance(force.getCutoffDistance())
    lone.setUseSwitchingFunction(force.getUseSwitchingFunction())
    lone.setSwitchingDistance(force.getSwitchingDistance())
    lone.addParticle(0.0, sigma, 1.0)
    system.addForce(lone)
    reference = openmm.Platform.getPlatform("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), reference)
    context.setPositions(np.zeros((1, 3)))
    energy = context.getState(energy=True).getPotentialEnergy()
    return float(energy.value_in_unit(unit.kilojoule_per_mole))
