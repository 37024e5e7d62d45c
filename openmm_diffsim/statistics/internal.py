"""Internal coordinates of pairs, triples and quadruples of particles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .molecules import minimum_image

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


def steps_between(positions: Array, tuples: IntArray, box: Array | None) -> Array:
    """From each particle of a tuple to the next, nm, [tuples, n - 1, 3].

    To its nearest image where there is a ``box``, [3, 3] in nm and OpenMM's reduced form.
    ``positions`` are [particles, 3] in nm, ``tuples`` int [tuples, n].
    """
    steps = np.diff(positions[tuples], axis=1)
    return steps if box is None else minimum_image(steps, box)


def distance(steps: Array) -> Array:
    """Length of a step, nm, [tuples], of steps [tuples, 1, 3]."""
    return np.asarray(np.linalg.norm(steps[:, 0], axis=-1))


def angle(steps: Array) -> Array:
    """Angle at the second particle, rad from 0 to pi, [tuples], of steps [tuples, 2, 3]."""
    back, on = -steps[:, 0], steps[:, 1]
    sine = np.linalg.norm(np.cross(back, on), axis=-1)
    return np.asarray(np.arctan2(sine, np.sum(back * on, axis=-1)))


def dihedral(steps: Array) -> Array:
    """Dihedral angle, rad from -pi to pi, 0 for cis, [tuples], of steps [tuples, 3, 3].

    Its sign is IUPAC's, which OpenMM and mdtraj have too.
    """
    first, middle, last = steps[:, 0], steps[:, 1], steps[:, 2]
    there, here = np.cross(first, middle), np.cross(middle, last)
    sine = np.linalg.norm(middle, axis=-1) * np.sum(first * here, axis=-1)
    return np.asarray(np.arctan2(sine, np.sum(there * here, axis=-1)))


COORDINATES: dict[int, Callable[[Array], Array]] = {2: distance, 3: angle, 4: dihedral}
"""What is measured of a tuple, by the number of its particles."""
