"""Features of Lennard-Jones energies: sums of inverse powers of distances, and their virials."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...statistics.powers import ListedPowers, PowerSums
from .term import FrameFeatures

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

_SIGNS = np.array([1.0, -1.0])


def power_sums(
    force: Any,
    class_of: IntArray,
    pair_of: IntArray,
    exclusions: IntArray,
    is_shifted: bool = False,
) -> PowerSums:
    """With the cutoff and switching function of a NonbondedForce or CustomNonbondedForce."""
    has_cutoff = force.getNonbondedMethod() != force.NoCutoff
    cutoff = force.getCutoffDistance()._value if has_cutoff else np.inf
    switched = has_cutoff and force.getUseSwitchingFunction()
    switch = force.getSwitchingDistance()._value if switched else cutoff
    n_pairs = int(pair_of.max(initial=-1)) + 1
    return PowerSums(class_of, pair_of, n_pairs, exclusions, cutoff, switch, is_shifted)


class PowerFeatures(FrameFeatures):
    """S_12 and -S_6 of each pair of classes, from one pass over the pairs.

    Parameters
    ----------
    sums : PowerSums
    tail : array [pairs of classes, 2], nm^3
        What a correction beyond the cutoff adds, times the volume.
    is_periodic : bool
        Does the force see the box?
    listed : ListedPowers, optional
        Pairs that count besides.
    """

    def __init__(
        self, sums: PowerSums, tail: Array, is_periodic: bool, listed: ListedPowers | None = None
    ) -> None:
        self._sums, self._listed = sums, listed
        self._tail = tail
        self._is_periodic = is_periodic

    def energies(self, positions: Array, box: Array | None) -> Array:
        """S."""
        return np.asarray((self.powers(positions, box)[0] * _SIGNS).ravel())

    def both(self, positions: Array, box: Array, centres: Array) -> tuple[Array, Array]:
        """S, and its virials from the same pass."""
        found = self.powers(positions, box, positions - centres)
        energies, virials = ((values * _SIGNS).ravel() for values in found)
        return energies, virials

    def powers(
        self, positions: Array, box: Array | None, offsets: Array | None = None
    ) -> tuple[Array, Array]:
        """As ``PowerSums`` has them, with what counts besides."""
        own_box = box if self._is_periodic else None
        sums, virials = self._sums(positions, own_box, offsets)
        if self._listed is not None:
            self._listed.add(positions, own_box, offsets, sums, virials)
        if own_box is not None:
            beyond = self._tail / np.prod(np.diag(own_box))
            sums += beyond
            virials += 3 * beyond
        return sums, virials


class Joined(FrameFeatures):
    """Those of several, one after the other."""

    def __init__(self, *parts: FrameFeatures) -> None:
        self._parts = parts

    def energies(self, positions: Array, box: Array | None) -> Array:
        """S of all."""
        return np.concatenate([part.energies(positions, box) for part in self._parts])

    def both(self, positions: Array, box: Array, centres: Array) -> tuple[Array, Array]:
        """S of all, and their virials."""
        both = [part.both(positions, box, centres) for part in self._parts]
        energies, virials = (np.concatenate(found) for found in zip(*both, strict=True))
        return energies, virials
