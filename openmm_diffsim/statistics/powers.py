"""Sums of inverse powers of distances by pair of classes: features of Lennard-Jones energies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .kernels import exclusion_lists, is_excluded, pair_blocks
from .molecules import minimum_image
from .scaling import crossing, lever, margin, reach

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

    def __call__(
        self, positions: Array, box: Array | None, offsets: Array | None = None
    ) -> tuple[Array, Array]:
        """Both sums of each pair of classes, and their virials -d/d ln L, [pairs, 2] each.

        Parameters
        ----------
        positions : array [particles, 3], nm
        box : array [3, 3], nm, or None
        offsets : array [particles, 3], nm, optional
            From the centre of each particle's molecule, which moves whole. Without them there are
            no virials: zeros.
        """
        sums, virials = np.zeros((2, self.n_pairs, 2))
        own = None if offsets is None else offsets[self.sites]
        beyond = margin(self.cutoff, own)
        for block in pair_blocks(positions[self.sites], box, reach(self.cutoff, beyond, box)):
            _add_powers(
                *block,
                self.class_of[self.sites],
                self.pair_of,
                *self._lists,
                np.zeros((0, 3)) if own is None else own,
                self.cutoff - beyond,
                self.switch,
                self.cutoff,
                self.shift(),
                sums,
                virials,
            )
        return sums, virials


@njit(cache=True)  # type: ignore[untyped-decorator]
def _powers(r, switch, cutoff, shift):
    """w (UNIT / r)^12 and ^6, less the shift, and r times their derivatives."""
    s2 = (UNIT / r) ** 2
    s6 = s2 * s2 * s2
    weight, slope = 1.0, 0.0
    if switch < r < cutoff:
        t = (r - switch) / (cutoff - switch)
        weight += t * t * t * (-10.0 + t * (15.0 - 6.0 * t))
        slope = -30.0 * r * (t * (1.0 - t)) ** 2 / (cutoff - switch)
    return (
        weight * s6 * s6 - shift[0],
        weight * s6 - shift[1],
        (slope - 12.0 * weight) * s6 * s6,
        (slope - 6.0 * weight) * s6,
    )


@njit(cache=True)  # type: ignore[untyped-decorator]
def _add_powers(
    i, j, displacement, distance, classes, pair_of, heads, partners, offsets, inner,
    switch, cutoff, shift, sums, virials,
):  # fmt: skip
    """Add a block of pairs to the sums, [pairs, 2], and where there are offsets to the virials.

    Below ``inner`` no pair crosses the cutoff.
    """
    for m in range(len(i)):
        a, b = i[m], j[m]
        pair = pair_of[classes[a], classes[b]]
        if pair < 0 or is_excluded(heads, partners, a, b):
            continue
        r = distance[m]
        p12, p6, slope12, slope6 = _powers(r, switch, cutoff, shift)
        if r < cutoff:
            sums[pair, 0] += p12
            sums[pair, 1] += p6
        if len(offsets) == 0:
            continue
        if r > inner:
            factor, within = crossing(displacement[m], a, b, offsets, cutoff)
            if factor != 0.0:
                p12, p6, _, _ = _powers(within, switch, cutoff, shift)
                virials[pair, 0] += factor * p12
                virials[pair, 1] += factor * p6
                continue
        if r < cutoff:
            levered = lever(displacement[m], a, b, offsets) / (r * r)
            virials[pair, 0] -= slope12 * levered
            virials[pair, 1] -= slope6 * levered


@dataclass(frozen=True)
class ListedPowers:
    """Pairs that are listed, whatever their distance: exceptions, with a factor for each power."""

    pairs: IntArray  # [listed, 2]
    pair_of: IntArray  # [listed], which sums a pair counts to
    factors: Array  # [listed, 2]
    nearest: bool  # between nearest images?

    def add(
        self,
        positions: Array,
        box: Array | None,
        offsets: Array | None,
        sums: Array,
        virials: Array,
    ) -> None:
        """Add what they have to ``PowerSums``, [pairs, 2]; arguments are as there."""
        i, j = self.pairs.T
        d = positions[i] - positions[j]
        if self.nearest and box is not None:
            d = minimum_image(d, box)
        r2 = np.sum(d**2, axis=1)
        s6 = (UNIT**2 / r2) ** 3
        powers = self.factors * np.column_stack([s6**2, s6])
        np.add.at(sums, self.pair_of, powers)
        if offsets is not None:
            levered = np.sum(d * (d - offsets[i] + offsets[j]), axis=1) / r2
            np.add.at(virials, self.pair_of, powers * [12.0, 6.0] * levered[:, None])
