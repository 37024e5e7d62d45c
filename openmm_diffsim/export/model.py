"""A System with learned tables as numbers, which any program can be told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import unit

from ..engine.adapters import LearnedTables, PairTables, TupleTables, bonds_of, learned_tables
from ..engine.context import masses_of
from ..engine.statepoint import StatePoint
from ..errors import ExportError
from ..limits import checked_number
from ..statistics.molecules import parts_of
from ..units import number_in_md_units

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

KINDS = {2: "bond", 3: "angle", 4: "dihedral"}
"""What a tuple of so many particles is."""


@dataclass(frozen=True)
class PairCurve:
    """The potential of a pair of types: a sum over the Forces that act on it."""

    parts: list[tuple[PairTables, int, int]]

    @property
    def cutoff(self) -> float:
        """The largest, nm."""
        return max(tables.cutoff for tables, _, _ in self.parts)

    def values(self, r: Array) -> tuple[Array, Array]:
        """u (kJ/mol) and du/dr (kJ/mol/nm) at r (nm)."""
        found = [tables.values(a, b, r) for tables, a, b in self.parts]
        u, slope = np.sum(found, axis=0)
        return u, slope


@dataclass(frozen=True)
class TupleCurve:
    """The potential of a type of bond, angle or dihedral angle."""

    tables: TupleTables
    kind: int

    @property
    def name(self) -> str:
        """Of the Force, and which of its types."""
        return f"{self.tables.name}, type {self.kind}"

    @property
    def range(self) -> tuple[float, float]:
        """Where it is free, nm or rad."""
        return self.tables.low, self.tables.high

    @property
    def wide_range(self) -> tuple[float, float]:
        """Of a bond, with as much of the straight lines beyond on either side, nm."""
        low, high = self.range
        return max(0.0, 2 * low - high), 2 * high - low

    def values(self, q: Array) -> tuple[Array, Array]:
        """u (kJ/mol) and du/dq (kJ/mol/nm or /rad) at q (nm or rad)."""
        return self.tables.values(self.kind, q)


@dataclass(frozen=True)
class Tuples:
    """All bonds, or all angles, or all dihedral angles."""

    particles: IntArray
    """[tuples, n]"""
    types: IntArray
    """[tuples], counts ``curves``."""
    curves: list[TupleCurve]

    def __len__(self) -> int:
        return len(self.types)


@dataclass(frozen=True)
class Model:
    """What is exported. Units: nm, ps, amu, kJ/mol, K."""

    masses: Array
    """[particles]"""
    types: IntArray
    """[particles]: those that all pair potentials, and the masses, tell apart."""
    names: list[str]
    """[types]"""
    pairs: dict[tuple[int, int], PairCurve]
    """By two types, the smaller first; pairs that no Force acts on are not there."""
    excluded: IntArray
    """Pairs that would act if they were not excluded, [excluded, 2], the smaller first, sorted."""
    tuples: dict[int, Tuples]
    """By the number of particles: 2, 3, 4."""
    molecules: IntArray
    """[particles], from 0."""
    positions: Array
    """[particles, 3]"""
    velocities: Array
    """[particles, 3]; all zero where there are none."""
    box: Array | None
    """[3, 3], in OpenMM's reduced form; None without a periodic box."""
    temperature: float
    left_out: list[str]
    """What the System has besides, a line each."""

    @property
    def type_masses(self) -> Array:
        """[types]"""
        first = [int(np.flatnonzero(self.types == k)[0]) for k in range(len(self.names))]
        return self.masses[first]

    @property
    def cutoff(self) -> float:
        """The largest of all pairs, nm; 0 without any."""
        return max((curve.cutoff for curve in self.pairs.values()), default=0.0)

    def acts(self) -> NDArray[np.bool_]:
        """Which types have a pair potential, [types, types]."""
        found = np.zeros((len(self.names),) * 2, dtype=bool)
        for a, b in self.pairs:
            found[a, b] = found[b, a] = True
        return found


def model_of(
    source: StatePoint | openmm.System,
    state: openmm.State | None = None,
    temperature: Any = None,
) -> Model:
    """What is learned of a state point, or of a System with a State of it.

    Parameters
    ----------
    source : StatePoint or openmm.System
    state : openmm.State with positions, and perhaps velocities; of a state point: its own
    temperature : float, K, or Quantity; of a state point: its own

    Raises
    ------
    ExportError
        If nothing there is a learned table, something that is learned is none, or tables that
        are to be added up do not fit.
    """
    if isinstance(source, StatePoint):
        state = source.snapshot() if state is None else state
        temperature = source.temperature if temperature is None else temperature
        source = source.simulation.system
    if state is None or temperature is None:
        raise ExportError(
            "of a System alone: expected also state=, an openmm.State with positions, and "
            "temperature=, in K"
        )
    tables = learned_tables(source)
    if not tables.pairs and not tables.tuples:
        raise ExportError(
            "the System has no learned table of pairs, bonds, angles or dihedral angles. Learned "
            "parameters of its own forces (SystemParameters) are numbers: numbers.csv has them "
            "by name"
        )
    kelvin = number_in_md_units(temperature, "temperature")
    return _model(source, tables, state, checked_number("temperature", kelvin, ExportError))


def _model(
    system: openmm.System, tables: LearnedTables, state: openmm.State, temperature: float
) -> Model:
    if not state.getDataTypes() & openmm.State.Positions:
        raise ExportError("state: it holds no positions; ask for them by getPositions=True")
    masses = _masses(system)
    kinds = np.stack([*(pair.types for pair in tables.pairs), np.zeros(len(masses))], axis=1)
    _, first, types = np.unique(
        np.column_stack([kinds, masses]), axis=0, return_index=True, return_inverse=True
    )
    own = kinds[first].astype(np.int64)
    tuples = {size: _joined(tables.tuples, size) for size in KINDS}
    return Model(
        masses,
        types.ravel(),
        [_name(k) for k in range(len(first))],
        dict(_pairs(tables.pairs, own)),
        excluded := _excluded(tables.pairs, len(masses)),
        tuples,
        _molecules(system, excluded),
        _vectors(state.getPositions(asNumpy=True), unit.nanometer, len(masses)),
        _velocities(state, len(masses)),
        box := _box(tables, state),
        temperature,
        [*_left_out(system, tables), *_narrow(tables, box)],
    )


def _name(k: int) -> str:
    """A, B, ..., Z, T26, ..."""
    return chr(ord("A") + k) if k < 26 else f"T{k}"


def _masses(system: openmm.System) -> Array:
    masses = masses_of(system)
    for k in np.flatnonzero(masses <= 0):
        raise ExportError(
            f"particle {k} has no mass: it is a virtual site or does not move, which is not "
            "exported; learned tables that act on sites with a mass can be",
            got=int(k),
        )
    return masses


def _pairs(
    tables: Sequence[PairTables], own: IntArray
) -> Iterator[tuple[tuple[int, int], PairCurve]]:
    """``own``: of each type, the type in each of the tables."""
    for a in range(len(own)):
        for b in range(a, len(own)):
            parts = [
                (pair, int(own[a, k]), int(own[b, k]))
                for k, pair in enumerate(tables)
                if own[a, k] >= 0 and own[b, k] >= 0
            ]
            if parts:
                yield (a, b), PairCurve(parts)


def _excluded(tables: Sequence[PairTables], n: int) -> IntArray:
    """Those of all tables, which have to agree where they act on the same pair."""
    codes = [_codes(pair, n) for pair in tables]
    union = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *codes]))
    for pair, known in zip(tables, codes, strict=True):
        acting = (pair.types[union // n] >= 0) & (pair.types[union % n] >= 0)
        for code in union[acting & ~np.isin(union, known)]:
            raise ExportError(
                f"the tables of {pair.name!r} act between particles {code // n} and {code % n}, "
                "which others that are to be added to them exclude: give all the same exclusions",
                got=pair.name,
            )
    return np.stack([union // n, union % n], axis=1)


def _codes(pair: PairTables, n: int) -> IntArray:
    low, high = pair.exclusions.min(axis=1, initial=n), pair.exclusions.max(axis=1, initial=0)
    acting = (pair.types[low] >= 0) & (pair.types[high] >= 0)
    return low[acting] * n + high[acting]


def _joined(tables: Sequence[TupleTables], size: int) -> Tuples:
    """All of one size, with their types one after the other."""
    chosen = [each for each in tables if each.tuples.shape[1] == size]
    curves: list[TupleCurve] = []
    types = [np.zeros(0, dtype=np.int64)]
    for each in chosen:
        types.append(each.types + len(curves))
        curves += [TupleCurve(each, kind) for kind in range(each.n_types)]
    particles = [np.zeros((0, size), dtype=np.int64), *(each.tuples for each in chosen)]
    return Tuples(np.concatenate(particles), np.concatenate(types), curves)


def _molecules(system: openmm.System, excluded: IntArray) -> IntArray:
    """What bonds, constraints, angles and exclusions hold together, counted in their order."""
    bonds = bonds_of(system)
    links = np.concatenate([bonds.pairs, bonds.joint.pairs, excluded])
    parts = parts_of(links, system.getNumParticles())
    _, first, inverse = np.unique(parts, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[inverse.ravel()], dtype=np.int64)


def _vectors(quantity: Any, of: Any, n: int) -> Array:
    values = np.asarray(quantity.value_in_unit(of), dtype=np.float64)
    if values.shape != (n, 3) or not np.all(np.isfinite(values)):
        raise ExportError(
            f"state: expected {n} finite positions, as many as the System has particles, got "
            f"{values.shape[0]}",
            got=values.shape[0],
        )
    return values


def _velocities(state: openmm.State, n: int) -> Array:
    if not state.getDataTypes() & openmm.State.Velocities:
        return np.zeros((n, 3))
    return _vectors(state.getVelocities(asNumpy=True), unit.nanometer / unit.picosecond, n)


def _box(tables: LearnedTables, state: openmm.State) -> Array | None:
    periodic = {pair.periodic for pair in tables.pairs}
    if len(periodic) > 1:
        raise ExportError("some pair tables act across the faces of the box, others do not")
    if not any(periodic or (each.periodic for each in tables.tuples)):
        return None
    vectors = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
    return np.asarray(vectors, dtype=np.float64)


def _left_out(system: openmm.System, tables: LearnedTables) -> list[str]:
    said = [
        f"the force {force.getName()!r} ({type(force).__name__}) is not learned"
        for force in tables.others
    ]
    if system.getNumConstraints():
        said.append(f"{system.getNumConstraints()} constraints of bond lengths")
    barostats = [f for f in system.getForces() if "Barostat" in type(f).__name__]
    return said + [f"the {type(f).__name__}: the volume is constant" for f in barostats]


def _narrow(tables: LearnedTables, box: Array | None) -> Iterator[str]:
    """OpenMM takes one image of each pair, other programs all that are within the cutoff."""
    cutoff = max((pair.cutoff for pair in tables.pairs), default=0.0)
    width = np.inf if box is None else 1 / np.linalg.norm(np.linalg.inv(box), axis=0).max()
    if 2 * cutoff > width:
        yield (
            f"that a pair acts by its nearest image only: the box is {width:.3g} nm wide between "
            f"its faces, less than twice the cutoff of {cutoff:.3g} nm, and other programs count "
            "all images"
        )
