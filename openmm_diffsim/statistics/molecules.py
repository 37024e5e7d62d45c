"""Molecules: their centres, what holds them together, and how a box that cut them is undone."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import (
    breadth_first_order,
    connected_components,
    minimum_spanning_tree,
)

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


def molecule_centres(positions: Array, molecule_of: IntArray) -> Array:
    """Mean position of each molecule, nm, [..., molecules, 3].

    Parameters
    ----------
    positions : array [..., particles, 3], nm
    molecule_of : int array [particles], 0 .. molecules - 1, each of which has a particle
    """
    order = np.argsort(molecule_of, kind="stable")
    count = np.bincount(molecule_of)
    starts = np.cumsum(count) - count
    sums = np.add.reduceat(positions[..., order, :], starts, axis=-2)
    return np.asarray(sums / count[:, None])


def minimum_image(displacement: Array, box: Array) -> Array:
    """The nearest image of displacements [..., 3], nm; unique up to half the width of the box.

    ``box`` is [3, 3] in OpenMM's reduced form. What needs no shift comes back bit for bit.
    """
    nearest = np.array(displacement, dtype=np.float64)
    for axis in (2, 1, 0):
        shifts = np.floor(nearest[..., axis] / box[axis, axis] + 0.5)
        nearest -= shifts[..., None] * box[axis]
    return nearest


def pairs_within(bonds: ArrayLike, n_particles: int, most: int) -> IntArray:
    """Pairs i < j that at most so many bonds lie between, in rising order, int [pairs, 2].

    One bond apart are the 1-2 pairs, two the 1-3, three the 1-4.
    """
    neighbours = _graph(np.asarray(bonds, dtype=np.int64).reshape(-1, 2), n_particles)
    near = reached = neighbours if most else csr_array(neighbours.shape)
    for _ in range(most - 1):
        near = near @ neighbours
        reached = reached + near
    i, j = (index.astype(np.int64) for index in reached.nonzero())
    key = np.sort((i * n_particles + j)[i < j])
    return np.stack([key // n_particles, key % n_particles], axis=1)


def chains_of(bonds: ArrayLike, size: int) -> IntArray:
    """All chains of ``size`` (2, 3 or 4) bonded particles, each once, int [chains, size].

    Bonds, angles and dihedral angles, the end with the smaller index first. Three particles that
    are all bonded make no angle: that is how a rigid one is held.
    """
    pairs = {(int(a), int(b)) for a, b in np.asarray(bonds).reshape(-1, 2) if a != b}
    near: dict[int, set[int]] = {}
    for a, b in pairs:
        near.setdefault(a, set()).add(b)
        near.setdefault(b, set()).add(a)
    chains: list[tuple[int, ...]] = [(a,) for a in near]
    for _ in range(size - 1):
        chains = [(*chain, b) for chain in chains for b in near[chain[-1]] if b not in chain]
    once = [chain for chain in chains if chain[0] < chain[-1]]
    if size == 3:
        once = [chain for chain in once if chain[2] not in near[chain[0]]]
    return np.array(sorted(once), dtype=np.int64).reshape(-1, size)


def _graph(bonds: IntArray, n: int) -> csr_array:
    both = np.concatenate([bonds, bonds[:, ::-1]])
    graph = csr_array((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(n, n))
    graph.data[:] = 1.0  # a bond may be given twice
    return graph


def parts_of(bonds: IntArray, n_particles: int) -> IntArray:
    """Which of the parts that bonds hold together each particle is in, int [particles]."""
    _, parts = connected_components(_graph(bonds, n_particles), directed=False)
    return np.asarray(parts, dtype=np.int64)


def spanning(pairs: IntArray, n: int) -> IntArray:
    """Which of the pairs [pairs, 2] suffice to join all that they join, the first of each two."""
    low, high = np.sort(pairs, axis=1).T
    first = np.unique(low * n + high, return_index=True)[1]
    first = first[low[first] != high[first]]
    graph = csr_array((first + 1.0, (low[first], high[first])), shape=(n, n))  # no weight is 0
    return np.sort(minimum_spanning_tree(graph).data.astype(np.int64)) - 1


class Bonding:
    """Which particles bonds hold together, and where their images are when a box cut them.

    Parameters
    ----------
    n_particles : int
    bonds : int array [bonds, 2]
    nearest : bool array [bonds]
        Is a bond between nearest images, so that a box may have cut it? Else it is as long as it
        is.
    """

    def __init__(self, n_particles: int, bonds: IntArray, nearest: NDArray[np.bool_]) -> None:
        self.n_particles = n_particles
        self.bonds = bonds
        self.nearest = nearest

    @cached_property
    def part_of(self) -> IntArray:
        """Which connected part each particle is in, int [particles]."""
        return parts_of(self.bonds, self.n_particles)

    @cached_property
    def _parents(self) -> IntArray:
        """The particle that each hangs on, itself for the first of a part; int [particles]."""
        n = self.n_particles
        roots = np.unique(self.part_of, return_index=True)[1]
        to_roots = np.stack([np.full(len(roots), n), roots], axis=1)
        graph = _graph(np.concatenate([self.bonds, to_roots]), n + 1)
        parents = breadth_first_order(graph, n, directed=False)[1][:n].astype(np.int64)
        return np.where(parents == n, np.arange(n), parents)

    @cached_property
    def _links(self) -> IntArray:
        """Particles whose bond to their parent may be cut, int [links]."""
        n = self.n_particles
        low, high = np.sort(self.bonds[self.nearest], axis=1).T
        children = np.flatnonzero(self._parents != np.arange(n))
        ends = np.sort(np.stack([children, self._parents[children]]), axis=0)
        return children[np.isin(ends[0] * n + ends[1], low * n + high)]

    def whole(self, positions: Array, box: Array) -> tuple[Array, float]:
        """The same configuration with no bond cut, and the longest bond whose image was chosen.

        The first particle of each part stays where it is.

        Parameters
        ----------
        positions : array [particles, 3], nm
        box : array [3, 3], nm, reduced form

        Returns
        -------
        array [particles, 3], nm, ``positions`` itself where nothing was cut; length, nm
        """
        links = self._links
        if not len(links):
            return positions, 0.0
        bond = positions[links] - positions[self._parents[links]]
        nearest = minimum_image(bond, box)
        longest = float(np.sqrt(np.max(np.sum(nearest**2, axis=1))))
        if np.array_equal(bond, nearest):
            return positions, longest
        shifts = np.zeros_like(positions)
        shifts[links] = nearest - bond
        parents = self._parents
        while np.any(parents != parents[parents]):  # each pass doubles how far back it reaches
            shifts, parents = shifts + shifts[parents], parents[parents]
        return positions + shifts, longest
