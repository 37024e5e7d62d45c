"""Learned tables as plain functions, whatever Force runs them: for programs other than OpenMM."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import openmm
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from ...potentials import all_adapters
from .system import has_energy

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class PairTables:
    """What a Force with a table for each pair of types computes."""

    name: str
    types: IntArray
    """[particles], -1 for those that do not interact."""
    exclusions: IntArray
    """[exclusions, 2]"""
    cutoff: float
    """nm"""
    periodic: bool
    table: CubicSpline
    shifts: Array
    """What to add to r to look up each pair of types, nm, [types, types]."""

    def values(self, a: int, b: int, r: Array) -> tuple[Array, Array]:
        """u (kJ/mol) and du/dr (kJ/mol/nm) of two types at r (nm), [len(r)] each."""
        x, inside = r + self.shifts[a, b], r < self.cutoff
        return self.table(x) * inside, self.table(x, 1) * inside


@dataclass(frozen=True)
class TupleTables:
    """What a Force with a table for each type of bond, angle or dihedral angle computes."""

    name: str
    tuples: IntArray
    """[tuples, n]: n = 2 for bonds, 3 for angles, 4 for dihedral angles."""
    types: IntArray
    """[tuples]"""
    low: float
    """Of the range of q; nm or rad."""
    high: float
    periodic: bool
    """Does it act across the faces of a box?"""
    table: CubicSpline
    stride: float
    """From the stretch of a type to that of the next."""
    slopes: tuple[Array, Array] | None
    """Below ``low`` and above ``high`` of each type, where u goes on straight."""

    @property
    def n_types(self) -> int:
        """Those that a tuple has."""
        return int(self.types.max(initial=-1)) + 1

    def values(self, kind: int, q: Array) -> tuple[Array, Array]:
        """u (kJ/mol) and du/dq of a type at q (nm or rad), [len(q)] each."""
        inside = q if self.slopes is None else np.clip(q, self.low, self.high)
        x = inside + self.stride * kind
        u, slope = self.table(x), self.table(x, 1)
        if self.slopes is not None:
            below, above = (ends[kind] for ends in self.slopes)
            u = u + np.where(q < inside, below, above) * (q - inside)
            slope = np.where(q < inside, below, np.where(q > inside, above, slope))
        return u, slope


@dataclass(frozen=True)
class LearnedTables:
    """All tables of a System, and the forces with an energy that are none."""

    pairs: list[PairTables] = field(default_factory=list)
    tuples: list[TupleTables] = field(default_factory=list)
    others: list[openmm.Force] = field(default_factory=list)

    def __add__(self, other: LearnedTables) -> LearnedTables:
        return LearnedTables(
            self.pairs + other.pairs, self.tuples + other.tuples, self.others + other.others
        )


def natural_spline(function: openmm.Continuous1DFunction) -> CubicSpline:
    """The curve that OpenMM draws through a table."""
    values, low, high = function.getFunctionParameters()
    return CubicSpline(np.linspace(low, high, len(values)), values, bc_type="natural")


def learned_tables(system: openmm.System) -> LearnedTables:
    """All learned tables of a System.

    Raises
    ------
    ExportError
        If there is a learned force that no table can say, such as that of a network.
    """
    return sum(map(_of_force, system.getForces()), LearnedTables())


def _of_force(force: openmm.Force) -> LearnedTables:
    for adapter in all_adapters():
        own = adapter.own(force)
        found = None if own is None else adapter.tables(own)
        if found is not None:
            return found
    return LearnedTables(others=[force] if has_energy(force) else [])
