"""Sums of inverse powers of distances by pair of classes: features of Lennard-Jones energies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .kernels import PairBlock, exclusion_lists, is_excluded, pair_blocks

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

UNIT = 0.3  # nm, that distances are measured in, so that sums are of the order of the energy


@dataclass(frozen=True)
class PowerSums:
    """Which pairs count, and how: w(r) (UNIT / r)^12 and w(r) (UNIT / r)^6 within the cutoff.

    The weight is 1 up to ``switch`` and falls to zero at the cutoff as OpenMM's switching function,
    1 - 10 t^3 + 15 t^4 - 6 t^5 with t = (r - switch) / (cutoff - switch).
    """

    class_of: IntArray  # [particles], -1 for one that does not interact
    pair_of: IntArray  # [classes, classes], which sum a pair counts to; -1 for none
    n_pairs: int
    exclusions: IntArray  # [exclusions, 2]
    cutoff: float  # nm; inf without one
    switch: float  # nm; the cutoff without one
    is_shifted: bool = False  # less the values at the cutoff, not switched

    def shift(self) -> Array:
        """What is taken off for each pair, [2]."""
        s6 = (UNIT / self.cutoff) ** 6 if self.is_shifted else 0.0
        return np.array([s6**2, s6])

    @cached_property
    def sites(self) -> IntArray:
        """Particles that count at all."""
        return np.flatnonzero(self.class_of >= 0)

    @cached_property
    def _lists(self) -> tuple[IntArray, IntArray]:
        place = np.full(len(self.class_of), -1, dtype=np.int64)
        place[self.sites] = np.arange(len(self.sites))
        own = place[self.exclusions.reshape(-1, 2)]
        return exclusion_lists(own[np.all(own >= 0, axis=1)], len(self.sites))

    def __call__(self, positions: Array, box: Array | None) -> Array:
        """Both sums of each pair of classes, [pairs, 2], of positions [particles, 3] in nm."""
        sums = np.zeros((self.n_pairs, 2))
        classes = self.class_of[self.sites]
        for block in self._blocks(positions, box):
            _add_powers(
                block.i,
                block.j,
                block.distance,
                classes,
                self.pair_of,
                *self._lists,
                self.switch,
                self.cutoff,
                self.shift(),
                sums,
            )
        return sums

    def _blocks(self, positions: Array, box: Array | None) -> Iterator[PairBlock]:
        return pair_blocks(positions[self.sites], box, self.cutoff)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _add_powers(i, j, distance, classes, pair_of, heads, partners, switch, cutoff, shift, sums):
    """Add a block of pairs to the sums, [pairs, 2]."""
    for m in range(len(i)):
        a, b = i[m], j[m]
        pair = pair_of[classes[a], classes[b]]
        if pair < 0 or is_excluded(heads, partners, a, b):
            continue
        r = distance[m]
        s2 = (UNIT / r) ** 2
        s6 = s2 * s2 * s2
        if r > switch:
            t = (r - switch) / (cutoff - switch)
            weight = 1.0 + t * t * t * (-10.0 + t * (15.0 - 6.0 * t))
        else:
            weight = 1.0
        sums[pair, 0] += weight * s6 * s6 - shift[0]
        sums[pair, 1] += weight * s6 - shift[1]
