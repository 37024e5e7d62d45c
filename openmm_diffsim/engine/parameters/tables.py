"""What a CustomNonbondedForce with Lennard-Jones parameters by pair of types holds, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import unit

from ...errors import AttachError
from ...statistics.powers import UNIT

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

# What tells of which form the energy is: A and B in md units, and distances, nm.
_TRIALS, _DISTANCES = ((2.0, 0.0), (0.0, 3.0), (5.0, 7.0)), (0.3, 0.41, 0.55)


@dataclass(frozen=True)
class Tables:
    """What such a force holds.

    Attributes
    ----------
    row_of : int array [particles]
        Row of the tables.
    values : array [rows, rows, 2]
        A (kJ/mol nm^12) and B (kJ/mol nm^6) of u = A / r^12 - B / r^6.
    """

    row_of: IntArray
    values: Array

    def sites(self) -> tuple[Array, Array]:
        """sigma (nm) and epsilon (kJ/mol) of each pair of rows, zero where there is nothing."""
        a, b = np.moveaxis(self.values, -1, 0)
        there = (a > 0) & (b > 0)
        a, b = np.where(there, a, 1.0), np.where(there, b, 1.0)
        return np.where(there, (a / b) ** (1 / 6), 0.0), np.where(there, b**2 / (4 * a), 0.0)


def read(force: openmm.CustomNonbondedForce) -> Tables:
    """Parameters of all particles.

    Raises
    ------
    AttachError
        If it is no such force.
    """
    n = force.getNumTabulatedFunctions()
    tables = [force.getTabulatedFunction(k) for k in range(n)]
    is_known = n == 2 and all(isinstance(t, openmm.Discrete2DFunction) for t in tables)
    if not is_known or force.getNumPerParticleParameters() != 1 or force.getNumInteractionGroups():
        raise AttachError(
            f"{force.getName()}: expected a CustomNonbondedForce with two Discrete2DFunctions, of "
            "A and B in u = A / r^12 - B / r^6, and the row of these as the only parameter of a "
            "particle, and no interaction groups; custom() learns parameters of others",
            got=force.getEnergyFunction(),
        )
    power = _power(force)
    columns = [_square(table) ** p for table, p in zip(tables, (1 / power, 1.0), strict=True)]
    rows = [force.getParticleParameters(i)[0] for i in range(force.getNumParticles())]
    return Tables(np.array(rows, dtype=np.int64), np.stack(columns, axis=-1))


def _square(table: openmm.Discrete2DFunction) -> Array:
    n, m, values = table.getFunctionParameters()
    return np.array(values, dtype=np.float64).reshape(m, n)


def _power(force: openmm.CustomNonbondedForce) -> float:
    """1, or 1/2 where the first table is the root of A."""
    return _power_of(xml_of(_alone(force, 1.0, 1.0)))


@cache
def _power_of(xml: str) -> float:
    """By the energies of two particles."""
    force = openmm.XmlSerializer.deserialize(xml)
    r = np.array(_DISTANCES)
    found = np.array([[_pair_energy(force, a, b, x) for x in _DISTANCES] for a, b in _TRIALS])
    for power in (1.0, 0.5):
        expected = np.array([a ** (1 / power) / r**12 - b / r**6 for a, b in _TRIALS])
        if np.allclose(found, expected, rtol=1e-9):
            return power
    raise AttachError(
        f"{force.getName()}: expected u = A / r^12 - B / r^6 of its two tables A and B, the first "
        f"perhaps as a root, got {force.getEnergyFunction()!r}",
        got=force.getEnergyFunction(),
    )


def _alone(force: openmm.CustomNonbondedForce, a: float, b: float) -> openmm.CustomNonbondedForce:
    """The same for one kind of particle, without particles."""
    own = openmm.XmlSerializer.clone(force)
    empty = openmm.CustomNonbondedForce(own.getEnergyFunction())
    empty.addPerParticleParameter(own.getPerParticleParameterName(0))
    for k, value in enumerate((a, b)):
        table = openmm.Discrete2DFunction(1, 1, [value])
        empty.addTabulatedFunction(own.getTabulatedFunctionName(k), table)
    for k in range(own.getNumGlobalParameters()):
        name = own.getGlobalParameterName(k)
        empty.addGlobalParameter(name, own.getGlobalParameterDefaultValue(k))
    empty.setCutoffDistance(own.getCutoffDistance())
    empty.setUseSwitchingFunction(own.getUseSwitchingFunction())
    empty.setSwitchingDistance(own.getSwitchingDistance())
    return empty


def xml_of(force: openmm.Force) -> str:
    """A Force as text, to know it by."""
    return str(openmm.XmlSerializer.serialize(force))


def _energy(force: openmm.CustomNonbondedForce, x: Array, side: float) -> float:
    for _ in x:
        force.addParticle([0])
    return energy_of(force, x, side)


def energy_of(force: openmm.Force, x: Array, side: float) -> float:
    """kJ/mol, of a Force alone, which is given away, with particles at x [particles, 3], nm."""
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*np.eye(3) * side)
    for _ in x:
        system.addParticle(1.0)
    system.addForce(force)
    reference = openmm.Platform.getPlatform("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), reference)
    context.setPositions(x)
    energy = context.getState(energy=True).getPotentialEnergy()
    return float(energy.value_in_unit(unit.kilojoule_per_mole))


def _pair_energy(force: openmm.CustomNonbondedForce, a: float, b: float, r: float) -> float:
    own = _alone(force, a, b)
    own.setNonbondedMethod(own.NoCutoff)
    return _energy(own, np.array([[0, 0, 0], [r, 0, 0]]), 10.0)


def write(force: openmm.CustomNonbondedForce, sigma: Array, epsilon: Array) -> None:
    """Give the tables other A and B, by sigma and epsilon of each pair of rows, [rows, rows]."""
    a, b = 4 * epsilon * sigma**12, 4 * epsilon * sigma**6
    for k, values in enumerate((a ** _power(force), b)):
        n = len(values)
        force.getTabulatedFunction(k).setFunctionParameters(n, n, values.ravel().tolist())


def exclusions(force: openmm.CustomNonbondedForce) -> IntArray:
    """Pairs of particles, [exclusions, 2]."""
    pairs = [force.getExclusionParticles(k) for k in range(force.getNumExclusions())]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def tail(force: openmm.CustomNonbondedForce, row_of: IntArray, pairs: IntArray) -> Array:
    """The long-range correction times the volume per coefficient of each pair, [pairs, 2], nm^3.

    As ``tail.tail`` for a NonbondedForce; OpenMM integrates numerically, to five digits.
    """
    periodic = force.getNonbondedMethod() == force.CutoffPeriodic
    if not (periodic and force.getUseLongRangeCorrection()):
        return np.zeros((len(pairs), 2))
    n, counts = len(row_of), np.bincount(row_of, minlength=int(pairs.max()) + 1).astype(float)
    a, b = pairs.T
    number = np.where(a == b, counts[a] * (counts[a] + 1) / 2, counts[a] * counts[b])
    side = 2.5 * force.getCutoffDistance()._value
    root = _power(force)
    trials = ((UNIT ** (12 * root), 0.0), (0.0, UNIT**6))
    constants = []
    for trial in trials:
        own = _alone(force, *trial)
        own.setNonbondedMethod(own.CutoffPeriodic)
        own.setUseLongRangeCorrection(True)
        constants.append(_energy(own, np.zeros((1, 3)), side) * side**3)
    return np.asarray(2 * n / (n + 1) * number[:, None] * np.array(constants) * [1.0, -1.0])
