"""The bonds of a System, which OpenMM's molecules are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray

from ...statistics.molecules import Bonding

IntArray = NDArray[np.int64]

Pairs = Iterator[tuple[int, int]]


@dataclass(frozen=True)
class Bonds:
    """Pairs of particles that OpenMM counts to one molecule."""

    pairs: IntArray
    """[bonds, 2]: of HarmonicBondForce, CustomBondForce and DrudeForce, constraints, and virtual
    sites with what they are made of; also within a CustomCVForce or an ATMForce."""
    periodic: NDArray[np.bool_]
    """[bonds]: between nearest images?"""
    groups: IntArray
    """[pairs, 2]: particles of the groups of a CustomCentroidBondForce, which OpenMM takes for one
    molecule although nothing need bond them."""
    groups_periodic: NDArray[np.bool_]
    """[pairs]: as ``periodic``."""

    def bonding(self, n_particles: int, stored: bool) -> Bonding:
        """How they hold the molecules of a configuration together.

        ``stored``: it comes from a file, where a box may have cut any bond. In a Context only
        those that are between nearest images can be.
        """
        parts = Bonding(n_particles, self.pairs, self.periodic).part_of
        key = np.sort(parts[self.groups], axis=1) @ np.array([n_particles, 1])
        chosen = np.unique(key, return_index=True)[1]  # one for each two parts that are apart
        chosen = chosen[parts[self.groups[chosen, 0]] != parts[self.groups[chosen, 1]]]
        nearest = np.concatenate([self.periodic, self.groups_periodic[chosen]]) | stored
        return Bonding(n_particles, np.concatenate([self.pairs, self.groups[chosen]]), nearest)


def bonds_of(system: openmm.System) -> Bonds:
    """All bonds of a System."""
    bonds = [(*pair, False) for pair in (*_constraints(system), *_virtual_sites(system))]
    groups: list[tuple[int, int, bool]] = []
    for force in _with_inner(system.getForces()):
        if type(force) in _BONDED:
            periodic = bool(force.usesPeriodicBoundaryConditions())
            bonds.extend((*pair, periodic) for pair in _BONDED[type(force)](force))
        elif isinstance(force, openmm.CustomCentroidBondForce):
            periodic = bool(force.usesPeriodicBoundaryConditions())
            groups.extend((*pair, periodic) for pair in _groups(force))
    return Bonds(*_columns(bonds), *_columns(groups))


def _columns(rows: list[tuple[int, int, bool]]) -> tuple[IntArray, NDArray[np.bool_]]:
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return table[:, :2], table[:, 2].astype(bool)


def _with_inner(forces: Iterable[Any]) -> Iterator[Any]:
    """Forces, and those that stand in them."""
    for force in forces:
        yield force
        if isinstance(force, openmm.CustomCVForce):
            n = force.getNumCollectiveVariables()
            yield from _with_inner(map(force.getCollectiveVariable, range(n)))
        elif isinstance(force, openmm.ATMForce):
            inner = map(force.getForce, range(force.getNumForces()))
            yield from _with_inner(map(openmm.XmlSerializer.clone, inner))  # with its own class


def _first_two(force: Any) -> Pairs:
    for index in range(force.getNumBonds()):
        a, b, *_ = force.getBondParameters(index)
        yield a, b


def _drude(force: openmm.DrudeForce) -> Pairs:
    for index in range(force.getNumParticles()):
        particle, parent, *_ = force.getParticleParameters(index)
        yield particle, parent


_BONDED: dict[type, Callable[[Any], Pairs]] = {
    openmm.HarmonicBondForce: _first_two,
    openmm.CustomBondForce: _first_two,
    openmm.DrudeForce: _drude,
}


def _groups(force: openmm.CustomCentroidBondForce) -> Pairs:
    """The first particle of the groups of each bond, with all others."""
    for index in range(force.getNumBonds()):
        groups, _ = force.getBondParameters(index)
        particles = [p for group in groups for p in force.getGroupParameters(group)[0]]
        yield from ((particles[0], other) for other in particles[1:])


def _constraints(system: openmm.System) -> Pairs:
    for index in range(system.getNumConstraints()):
        a, b, _ = system.getConstraintParameters(index)
        yield a, b


def _virtual_sites(system: openmm.System) -> Pairs:
    for index in range(system.getNumParticles()):
        if system.isVirtualSite(index):
            site = system.getVirtualSite(index)
            yield from ((index, site.getParticle(k)) for k in range(site.getNumParticles()))
