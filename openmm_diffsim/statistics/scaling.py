"""Virials: what a box does that is scaled while molecules move whole.

With d the vector between two particles, r its length and D that between the centres of their
molecules, d becomes d + (lambda - 1) D, so that a pair energy f(r) has

    -df / d ln lambda = -(r f'(r)) (d.D) / r^2.

An energy that jumps at its cutoff has a part there that only a difference sees: a pair that a
change by ``SCALING`` takes across counts by that.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .kernels import largest_range

Array = NDArray[np.float64]

SCALING = 1e-3  # of the box length, for a central difference


def scaled(
    positions: Array, centres: Array, box: Array, scale: float | Array
) -> tuple[Array, Array]:
    """Positions [particles, 3] and box [3, 3], both scaled; molecules move whole.

    ``centres`` [particles, 3] is the centre of each particle's molecule. All in nm. ``scale`` is
    one number, or one for each axis.
    """
    return positions + (scale - 1) * centres, box * scale


def margin(cutoff: float, offsets: Array | None) -> float:
    """How far from the cutoff pairs may be that scaling takes across it, nm.

    ``offsets`` [particles, 3] are those of particles from the centres of their molecules, nm; None
    where no virial is asked for.
    """
    if offsets is None or not np.isfinite(cutoff):
        return 0.0
    widest = 2 * float(np.sqrt(np.max(np.sum(offsets**2, axis=1), initial=0.0)))
    return SCALING * (cutoff + widest) / (1 - SCALING)


def reach(cutoff: float, beyond: float, box: Array | None) -> float:
    """The range to look for pairs in, nm: cutoff and margin, as far as images are known."""
    return cutoff + beyond if box is None else max(cutoff, min(cutoff + beyond, largest_range(box)))


@njit(cache=True)  # type: ignore[untyped-decorator]
def lever(displacement, a, b, offsets):
    """d.D of particles a and b."""
    found = 0.0
    for axis in range(3):
        d = displacement[axis]
        found += d * (d - offsets[a, axis] + offsets[b, axis])
    return found


@njit(cache=True)  # type: ignore[untyped-decorator]
def crossing(displacement, a, b, offsets, cutoff):
    """Of a pair that scaling takes across the cutoff: -1 / (2 SCALING) or its opposite, and r.

    f(r) times the first is the central difference, r being the distance on the inner side. Zeros
    of a pair that stays on one side.
    """
    longer, shorter = 0.0, 0.0
    for axis in range(3):
        d = displacement[axis]
        change = SCALING * (d - offsets[a, axis] + offsets[b, axis])
        longer += (d + change) ** 2
        shorter += (d - change) ** 2
    if (longer < cutoff * cutoff) == (shorter < cutoff * cutoff):
        return 0.0, 0.0
    factor = 0.5 / SCALING
    return (-factor if longer < cutoff * cutoff else factor), np.sqrt(min(longer, shorter))
