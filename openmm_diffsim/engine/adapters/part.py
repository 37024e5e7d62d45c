"""What a learned term is to a trajectory segment: forces and their derivatives."""

from __future__ import annotations

from contextlib import AbstractContextManager

import numpy as np
import openmm
from numpy.typing import NDArray

from ..native import SplinePairForce

Array = NDArray[np.float64]

_DISPLACEMENT = 1e-6  # nm, of the particle that a directional difference moves most


class FieldPart:
    """The forces of one learned term along trajectory segments, at any coefficients.

    To be subclassed. One whose forces are those of its Force in the Context gives ``having``,
    ``put`` and ``parameter_product``; how they depend on positions is found by differences or,
    where it ``has_products``, by ``products``. One that ``computes_forces`` gives ``forces``,
    ``products`` and ``parameter_product``.

    In all methods c are its own coefficients, flat, positions and w are [frames, particles, 3] of
    all particles of the System, positions in nm, and ``box``, [3, 3] in nm, is that of all frames;
    None where it is not periodic.

    Parameters
    ----------
    name : str
        Of its Force.
    periodic : bool
        Does it act across the faces of a box?
    """

    computes_forces: bool = False
    """Are its forces computed here? Else they come with those of a Context that has its Force."""
    has_products: bool = False
    """Does it know how its forces depend on positions?"""
    native: SplinePairForce | None = None
    """Its Force, where the plugin runs whole segments of it."""

    def __init__(self, name: str, periodic: bool) -> None:
        self.name = name
        self.periodic = periodic

    def having(self, c: Array) -> AbstractContextManager[None]:
        """Its Force has these coefficients, in the Context too; afterwards those of before."""
        raise NotImplementedError

    def put(self, force: openmm.Force, context: openmm.Context, c: Array) -> None:
        """Give a copy of its Force, in another Context, these coefficients."""
        raise NotImplementedError

    def forces(self, c: Array, positions: Array, box: Array | None) -> Array:
        """Forces, kJ/mol/nm, [frames, particles, 3]."""
        raise NotImplementedError

    def products(
        self, c: Array, positions: Array, w: Array, box: Array | None
    ) -> tuple[Array, Array]:
        """Derivatives of sum w . F with respect to positions and to c, [coefficients]."""
        raise NotImplementedError

    def parameter_product(self, c: Array, positions: Array, w: Array, box: Array | None) -> Array:
        """sum_fi w_fi . dF_fi/dc over frames and particles, [coefficients]."""
        raise NotImplementedError


def displacement(w: Array) -> float:
    """What to multiply w with, so that the largest of its vectors becomes a small displacement."""
    largest = float(np.sqrt(np.max(np.sum(w**2, axis=-1))))
    return _DISPLACEMENT / largest if largest > 0 else 1.0
