"""The bonds of a System, which OpenMM's molecules are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, NamedTuple

import numpy as np
import openmm
from numpy.typing import NDArray

from ...statistics.molecules import Bonding, parts_of, spanning

IntArray = NDArray[np.int64]

Pairs = Iterator[tuple[int, int]]


class Links(NamedTuple):
    """Pairs of particles, and between which images."""

    pairs: IntArray
    """[links, 2]"""
    periodic: NDArray[np.bool_]
    """[links]: between nearest images?"""


@dataclass(frozen=True)
class Bonds:
    """What the forces of a System hold together; also those within a CustomCVForce or an ATMForce.

    OpenMM counts to one molecule what ``own`` and ``groups`` link, and no more.
    """

    own: Links
    """HarmonicBondForce, CustomBondForce and DrudeForce, constraints, and virtual sites with what
    they are made of."""
    groups: Links
    """Particles of the groups of a CustomCentroidBondForce, although nothing need bond them."""
    compound: Links
    """CustomCompoundBondForce of two particles."""
    joint: Links
    """Neighbours in the list of particles of an angle, a torsion, or a CustomCompoundBondForce of
    more than two. Which of them are bonded it does not say."""

    @property
    def pairs(self) -> IntArray:
        """[bonds, 2]: particles that are known to be bonded."""
        return np.concatenate([self.own.pairs, self.compound.pairs])

    def bonding(self, n_particles: int, stored: bool) -> Bonding:
        """How they hold the molecules of a configuration together.

        ``stored``: it comes from a file, where a box may have cut any bond. In a Context only
        those that are between nearest images can be. Looser links join only what is apart without,
        and those that make no molecule of OpenMM's only where the image counts to their force and
        a file may have changed it.
        """
        cut = [links.pairs[~links.periodic] for links in (self.compound, self.joint) if stored]
        looser = np.concatenate([self.groups.pairs, *cut])
        chosen = spanning(parts_of(self.own.pairs, n_particles)[looser], n_particles)
        periodic = np.zeros(len(looser), dtype=bool)
        periodic[: len(self.groups.periodic)] = self.groups.periodic
        nearest = np.concatenate([self.own.periodic, periodic[chosen]]) | stored
        return Bonding(n_particles, np.concatenate([self.own.pairs, looser[chosen]]), nearest)


def bonds_of(system: openmm.System) -> Bonds:
    """All bonds of a System."""
    own = [(*pair, False) for pair in (*_constraints(system), *_virtual_sites(system))]
    found: tuple[list[tuple[int, int, bool]], ...] = (own, [], [], [])
    for force in with_inner(system.getForces()):
        for rows, kinds in zip(found, (_OWN, _GROUPS, _COMPOUND, _JOINT), strict=True):
            if type(force) in kinds:
                periodic = bool(force.usesPeriodicBoundaryConditions())
                rows.extend((*pair, periodic) for pair in kinds[type(force)](force))
    return Bonds(*map(_links, found))


def chemical_bonds(system: openmm.System, constrained: bool) -> IntArray:
    """Bonds between atoms, [bonds, 2]: without virtual sites, Drude particles and, unless
    ``constrained``, bonds of fixed length."""
    drude = [f for f in system.getForces() if isinstance(f, openmm.DrudeForce)]
    others = [*_virtual_sites(system), *chain.from_iterable(map(_drude, drude))]
    others += [] if constrained else _constraints(system)
    left_out = {(min(pair), max(pair)) for pair in others}
    found = {(min(pair), max(pair)) for pair in bonds_of(system).pairs.tolist()}
    return np.array(sorted(found - left_out), dtype=np.int64).reshape(-1, 2)


def constrained_pairs(system: openmm.System) -> set[tuple[int, int]]:
    """Pairs of fixed length, the smaller index first."""
    return {(min(pair), max(pair)) for pair in _constraints(system)}


def _links(rows: list[tuple[int, int, bool]]) -> Links:
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return Links(table[:, :2], table[:, 2].astype(bool))


def with_inner(forces: Iterable[Any]) -> Iterator[Any]:
    """Forces, and those that stand in them."""
    for force in forces:
        yield force
        if isinstance(force, openmm.CustomCVForce):
            n = force.getNumCollectiveVariables()
            yield from with_inner(map(force.getCollectiveVariable, range(n)))
        elif isinstance(force, openmm.ATMForce):
            inner = map(force.getForce, range(force.getNumForces()))
            yield from with_inner(map(openmm.XmlSerializer.clone, inner))  # with its own class


def _first_two(force: Any) -> Pairs:
    for index in range(force.getNumBonds()):
        a, b, *_ = force.getBondParameters(index)
        yield a, b


def _drude(force: openmm.DrudeForce) -> Pairs:
    for index in range(force.getNumParticles()):
        particle, parent, *_ = force.getParticleParameters(index)
        yield particle, parent


def _compound(force: openmm.CustomCompoundBondForce) -> Iterator[Sequence[int]]:
    for index in range(force.getNumBonds()):
        yield force.getBondParameters(index)[0]


def _two_of_compound(force: openmm.CustomCompoundBondForce) -> Pairs:
    return ((a, b) for a, b in _compound(force)) if _of_two(force) else iter(())


def _more_of_compound(force: openmm.CustomCompoundBondForce) -> Pairs:
    return iter(()) if _of_two(force) else chain.from_iterable(map(pairwise, _compound(force)))


def _of_two(force: openmm.CustomCompoundBondForce) -> bool:
    return bool(force.getNumParticlesPerBond() == 2)


def _angles(force: Any) -> Pairs:
    for index in range(force.getNumAngles()):
        yield from pairwise(force.getAngleParameters(index)[:3])


def _torsions(force: Any) -> Pairs:
    for index in range(force.getNumTorsions()):
        yield from pairwise(force.getTorsionParameters(index)[:4])


def _maps(force: openmm.CMAPTorsionForce) -> Pairs:
    for index in range(force.getNumTorsions()):
        particles = force.getTorsionParameters(index)[1:]
        yield from chain(pairwise(particles[:4]), pairwise(particles[4:]))


def _groups(force: openmm.CustomCentroidBondForce) -> Pairs:
    """The first particle of the groups of each bond, with all others."""
    for index in range(force.getNumBonds()):
        groups, _ = force.getBondParameters(index)
        particles = [p for group in groups for p in force.getGroupParameters(group)[0]]
        yield from ((particles[0], other) for other in particles[1:])


_Kinds = dict[type, Callable[[Any], Pairs]]

_OWN: _Kinds = {
    openmm.HarmonicBondForce: _first_two,
    openmm.CustomBondForce: _first_two,
    openmm.DrudeForce: _drude,
}

_GROUPS: _Kinds = {openmm.CustomCentroidBondForce: _groups}

_COMPOUND: _Kinds = {openmm.CustomCompoundBondForce: _two_of_compound}

_JOINT: _Kinds = {
    openmm.CustomCompoundBondForce: _more_of_compound,
    openmm.HarmonicAngleForce: _angles,
    openmm.CustomAngleForce: _angles,
    openmm.PeriodicTorsionForce: _torsions,
    openmm.RBTorsionForce: _torsions,
    openmm.CustomTorsionForce: _torsions,
    openmm.CMAPTorsionForce: _maps,
}


def _constraints(system: openmm.System) -> Pairs:
    for index in range(system.getNumConstraints()):
        a, b, _ = system.getConstraintParameters(index)
        yield a, b


def _virtual_sites(system: openmm.System) -> Pairs:
    for index in range(system.getNumParticles()):
        if system.isVirtualSite(index):
            site = system.getVirtualSite(index)
            yield from ((index, site.getParticle(k)) for k in range(site.getNumParticles()))
