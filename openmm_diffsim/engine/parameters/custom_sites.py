"""Sigma and epsilon of particles in a CustomNonbondedForce: OPLS as GROMACS's files have it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray

from ...errors import AttachError
from . import tables
from .nonbonded import Nonbonded
from .rules import Rule, arithmetic, geometric
from .sites import Sites
from .tail import long_range
from .term import ForcePlace, forces_of

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

_DISTANCES = np.array([0.3, 0.41, 0.55])  # nm
_TRIALS = np.array([[1.3, 0.7], [0.6, 1.1]])  # numbers of two particles


@dataclass(frozen=True)
class Columns:
    """What the two numbers of an entry are.

    Attributes
    ----------
    order : (int, int)
        Where sigma and epsilon are, or B and A, of u = A / r^12 - B / r^6.
    power : float or None
        Of A and B, that the numbers are; None: they are sigma and epsilon.
    """

    order: tuple[int, int]
    power: float | None

    def sites(self, rows: Array) -> Array:
        """Sigma and epsilon, [entries, 2], of the numbers of entries."""
        first, second = rows[:, self.order].T
        if self.power is None:
            return np.column_stack([first, second])
        b, a = first ** (1 / self.power), second ** (1 / self.power)
        there = (a > 0) & (b > 0)
        a, b = np.where(there, a, 1.0), np.where(there, b, 0.0)
        return np.column_stack(
            [np.where(there, (a / np.where(there, b, 1.0)) ** (1 / 6), 0.0), b**2 / (4 * a)]
        )

    def numbers(self, site: Array) -> list[float]:
        """The numbers of an entry with this sigma and epsilon."""
        sigma, epsilon = site.tolist()
        both = [sigma, epsilon]
        if self.power is not None:
            both = [(4 * epsilon * sigma**n) ** self.power for n in (6, 12)]
        return [both[self.order.index(k)] for k in (0, 1)]


class CustomSites(Sites):
    """Of a CustomNonbondedForce with two numbers of each particle, and a CustomBondForce of pairs.

    Parameters
    ----------
    place, pairs : ForcePlace
        Of the particles, and of 1-4 pairs where there is such a Force.
    columns, of_pairs : Columns
        What their numbers are.
    rule : callable
    """

    def __init__(
        self,
        place: ForcePlace,
        columns: Columns,
        rule: Rule,
        pairs: ForcePlace | None = None,
        of_pairs: Columns | None = None,
    ) -> None:
        super().__init__(place)
        self.columns, self.rule = columns, rule
        self.pairs, self.of_pairs = pairs, of_pairs

    @classmethod
    def of(cls, system: openmm.System, place: ForcePlace) -> CustomSites:
        """What the numbers are is found by energies of two particles.

        Raises
        ------
        AttachError
            If they are not Lennard-Jones parameters, or a particle only repels.
        """
        force = place.find(system)
        known = None if _has_more(force) else _form(tables.xml_of(_empty(force)))
        if known is None:
            raise AttachError(
                f"{force.getName()}: expected a CustomNonbondedForce of Lennard-Jones energies, "
                "with sigma and epsilon, or roots of their coefficients, as the only parameters of "
                "a particle, no global parameters and no interaction groups; pair_tables() learns "
                "those of tables, custom() parameters of others",
                got=force.getEnergyFunction(),
            )
        found = [(p, c) for p in _bond_places(system) if (c := _pair_form(p.find(system)))]
        pairs, of_pairs = found[0] if len(found) == 1 else (None, None)
        sites = cls(place, *known, pairs, of_pairs)
        _check_repelling(force, sites)
        return sites

    @property
    def places(self) -> tuple[ForcePlace, ...]:
        return (self.place,) if self.pairs is None else (self.place, self.pairs)

    def read(self, system: openmm.System) -> Nonbonded:
        particles = self.held(self.place.find(system))
        pairs = None if self.pairs is None else self.pairs.find(system)
        own = np.zeros((0, 2)) if pairs is None else self.held(pairs)
        atoms = [] if pairs is None else _atoms(pairs)
        return Nonbonded(
            np.column_stack([np.zeros(len(particles)), particles]),
            np.zeros((len(particles), 3)),
            frozenset(),
            np.array(atoms, dtype=np.int64).reshape(-1, 2),
            np.column_stack([np.zeros(len(own)), own]),
            np.zeros((len(own), 3), dtype=bool),
            False,
        )

    def exclusions(self, force: Any) -> IntArray:
        return tables.exclusions(force)

    def frame_of(self, force: Any) -> Any:
        if hasattr(force, "getNumBonds"):
            return _atoms(force)
        return [
            np.asarray(tables.exclusions(force)).tolist(),
            [force.getNumParticles(), force.getNonbondedMethod(), force.getUseSwitchingFunction()],
            [force.getCutoffDistance()._value, force.getSwitchingDistance()._value],
        ]

    def held(self, force: Any) -> Array:
        if hasattr(force, "getNumBonds"):
            assert self.of_pairs is not None
            rows = [force.getBondParameters(k)[2] for k in range(force.getNumBonds())]
            return self.of_pairs.sites(np.array(rows, dtype=np.float64).reshape(-1, 2))
        rows = [force.getParticleParameters(i) for i in range(force.getNumParticles())]
        return self.columns.sites(np.array(rows, dtype=np.float64).reshape(-1, 2))

    def put(self, force: Any, particles: dict[int, Array], pairs: dict[int, Array]) -> None:
        if hasattr(force, "getNumBonds"):
            assert self.of_pairs is not None
            for k, site in pairs.items():
                i, j, _ = force.getBondParameters(k)
                force.setBondParameters(k, i, j, self.of_pairs.numbers(site))
            return
        for i, site in particles.items():
            force.setParticleParameters(i, self.columns.numbers(site))

    def has_mesh(self, force: Any) -> bool:
        return False

    def wraps(self, system: openmm.System) -> bool:
        if self.pairs is None:
            return False
        return bool(self.pairs.find(system).usesPeriodicBoundaryConditions())

    def tail(self, force: Any, class_of: IntArray, pairs: IntArray) -> Array:
        """OpenMM integrates numerically, to five digits."""
        periodic = force.getNonbondedMethod() == force.CutoffPeriodic
        if not (periodic and force.getUseLongRangeCorrection()):
            return np.zeros((len(pairs), 2))

        def of_one(sigma: float, length: float) -> float:
            lone = _empty(force)
            lone.setNonbondedMethod(lone.CutoffPeriodic)
            lone.setUseLongRangeCorrection(True)
            row = self.columns.numbers(np.array([sigma, 1.0]))
            return _energy(lone, [row], np.zeros((1, 3)), length)

        return long_range(of_one, self.cutoff(force), class_of, pairs)


def _has_more(force: openmm.CustomNonbondedForce) -> bool:
    return bool(
        force.getNumPerParticleParameters() != 2
        or force.getNumGlobalParameters()
        or force.getNumTabulatedFunctions()
        or force.getNumInteractionGroups()
        or force.getNumComputedValues()
    )


@cache
def _form(xml: str) -> tuple[Columns, Rule] | None:
    """What the numbers of particles are, and the rule, of a Force without particles."""
    found = np.array([
        _energy(openmm.XmlSerializer.deserialize(xml), _TRIALS.tolist(), _apart(r), 10.0)
        for r in _DISTANCES
    ])  # fmt: skip
    for columns, rule in product(_all_columns(None, 0.5), (arithmetic, geometric)):
        (s1, e1), (s2, e2) = columns.sites(_TRIALS)
        if np.allclose(found, _lennard_jones(rule(s1, s2), (e1 * e2) ** 0.5), rtol=1e-9):
            return columns, rule
    return None


def _pair_form(force: openmm.CustomBondForce) -> Columns | None:
    """What the numbers of pairs are, if they are Lennard-Jones parameters."""
    if force.getNumPerBondParameters() != 2 or force.getNumGlobalParameters():
        return None
    found = np.array([_bond_energy(force, r) for r in _DISTANCES])
    for columns in _all_columns(None, 1.0):
        (site,) = columns.sites(_TRIALS[:1])
        if np.allclose(found, _lennard_jones(*site), rtol=1e-9):
            return columns
    return None


def _all_columns(*powers: float | None) -> Iterator[Columns]:
    return (Columns(order, power) for order, power in product(((0, 1), (1, 0)), powers))


def _lennard_jones(sigma: float, epsilon: float) -> Array:
    s6 = (sigma / _DISTANCES) ** 6
    return np.asarray(4 * epsilon * (s6**2 - s6))


def _empty(force: openmm.CustomNonbondedForce) -> openmm.CustomNonbondedForce:
    """The same, with its cutoff and switch, without particles."""
    empty = openmm.CustomNonbondedForce(force.getEnergyFunction())
    for k in range(2):
        empty.addPerParticleParameter(force.getPerParticleParameterName(k))
    empty.setCutoffDistance(force.getCutoffDistance())
    empty.setUseSwitchingFunction(force.getUseSwitchingFunction())
    empty.setSwitchingDistance(force.getSwitchingDistance())
    return empty


def _energy(force: Any, rows: Sequence[Any], x: Array, side: float) -> float:
    for row in rows:
        force.addParticle(row)
    return tables.energy_of(force, x, side)


def _bond_energy(force: openmm.CustomBondForce, r: float) -> float:
    own = openmm.CustomBondForce(force.getEnergyFunction())
    for k in range(2):
        own.addPerBondParameter(force.getPerBondParameterName(k))
    own.addBond(0, 1, _TRIALS[0].tolist())
    return tables.energy_of(own, _apart(r), 10.0)


def _apart(r: float) -> Array:
    return np.array([[0, 0, 0], [r, 0, 0]])


def _bond_places(system: openmm.System) -> list[ForcePlace]:
    count = len(forces_of(system, openmm.CustomBondForce))
    return [ForcePlace(openmm.CustomBondForce, k) for k in range(count)]


def _atoms(force: openmm.CustomBondForce) -> list[list[int]]:
    return [list(force.getBondParameters(k)[:2]) for k in range(force.getNumBonds())]


def _check_repelling(force: openmm.CustomNonbondedForce, sites: CustomSites) -> None:
    """AttachError where a particle has a coefficient of r^-12 alone, which no epsilon says."""
    rows = np.array([force.getParticleParameters(i) for i in range(force.getNumParticles())])
    gone = rows.any(axis=1) & ~sites.held(force).all(axis=1) if len(rows) else np.zeros(0)
    if sites.columns.power is not None and gone.any():
        i = int(np.argmax(gone))
        raise AttachError(
            f"{force.getName()}: particle {i} has {rows[i].tolist()}, one of its coefficients of "
            "r^-12 and r^-6 alone, which is no sigma and epsilon; custom() learns it",
            got=rows[i].tolist(),
        )
