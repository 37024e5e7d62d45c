"""A configuration in a box of another size: how virials are found by differences."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
