"""Internal coordinates: distances, angles and dihedrals of listed particles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .molecules import minimum_image

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


def distances(positions: Array, pairs: IntArray, box: Array | None = None) -> Array:
    """|r_j - r_i| of pairs i, j, nm, [..., pairs].

    Parameters
    ----------
    positions : array [..., particles, 3], nm
    pairs : int array [pairs, 2]
    box : array [3, 3], nm, optional
        Where vectors are those to nearest images; reduced form.
    """
    return np.asarray(np.linalg.norm(_vector(positions, pairs, 0, 1, box), axis=-1))


def angles(positions: Array, triples: IntArray, box: Array | None = None) -> Array:
    """The angle i-j-k at j, rad, 0 .. pi, [..., triples]; arguments as for ``distances``.

    From both sine and cosine, so that it is as good near 0 and pi as elsewhere.
    """
    a = _vector(positions, triples, 1, 0, box)
    b = _vector(positions, triples, 1, 2, box)
    sine = np.linalg.norm(np.cross(a, b), axis=-1)
    return np.asarray(np.arctan2(sine, np.sum(a * b, axis=-1)))


def dihedrals(positions: Array, quadruples: IntArray, box: Array | None = None) -> Array:
    """The dihedral of i-j-k-l about j-k, rad, -pi .. pi, zero for cis, [..., quadruples].

    The sign is IUPAC's and OpenMM's: positive where, seen along j-k, l is clockwise of i.
    """
    a = _vector(positions, quadruples, 0, 1, box)
    b = _vector(positions, quadruples, 1, 2, box)
    c = _vector(positions, quadruples, 2, 3, box)
    first, second = np.cross(a, b), np.cross(b, c)
    sine = np.linalg.norm(b, axis=-1) * np.sum(a * second, axis=-1)
    return np.asarray(np.arctan2(sine, np.sum(first * second, axis=-1)))


COORDINATES: dict[int, Callable[[Array, IntArray, Array | None], Array]] = {
    2: distances,
    3: angles,
    4: dihedrals,
}
"""What is measured of a tuple, by the number of its particles."""


def _vector(positions: Array, atoms: IntArray, start: int, end: int, box: Array | None) -> Array:
    vector = positions[..., atoms[:, end], :] - positions[..., atoms[:, start], :]
    return vector if box is None else minimum_image(vector, box)
