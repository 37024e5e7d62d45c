"""The part of a Lennard-Jones energy that LJPME takes from a mesh, with geometric coefficients.

LJPME sums -C_i C_j / r^6, C = 2 epsilon^(1/2) sigma^3, over all images by a mesh; within the cutoff
it takes that back, shifted to zero there, and the Lorentz-Berthelot rule counts in its place.
What the mesh has and what is taken back is a polynomial of second degree in the C of the types.
"""

from __future__ import annotations

import numpy as np
import openmm
from numpy.typing import NDArray

from ...statistics.powers import UNIT
from ...statistics.products import ListedProducts, PairFunction, ProductSums, dispersion
from ...statistics.reciprocal import ParticleMesh, dispersion_waves
from . import nonbonded
from .product_features import Beyond, ProductFeatures

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


def mesh_features(
    force: openmm.NonbondedForce,
    context: openmm.Context,
    class_of: IntArray,
    c: Array,
    learned: IntArray,
) -> ProductFeatures:
    """Features of the ``monomials_of`` the C of learned classes.

    Parameters
    ----------
    force : openmm.NonbondedForce
        With LJPME.
    context : openmm.Context
        That it is in.
    class_of : int array [particles], -1 for one without
    c : array [classes]
        C in units of UNIT^3; of those that are learned it is not read.
    learned : int array
        Which classes these are.
    """
    alpha, *shape = force.getLJPMEParametersInContext(context)
    n = len(learned)
    type_of_class = np.full(len(c) + 1, -1)
    type_of_class[learned] = np.arange(n)
    type_of = type_of_class[class_of]
    fixed = np.where(type_of >= 0, 0.0, np.append(c, 0.0)[class_of])
    exceptions = nonbonded.read(force).exceptions
    nearest = bool(force.getExceptionsUsePeriodicBoundaryConditions())
    function, cutoff = dispersion(alpha), force.getCutoffDistance()._value
    shift = float(function(np.array(cutoff))[0])
    within = PairFunction.tabulated(function, cutoff, (0.0, alpha**6 / 6), shift)
    excluded = ListedProducts(exceptions, np.ones(len(exceptions)), type_of, n, nearest, function)
    return ProductFeatures(
        np.roll(np.eye(n + 1), 1, axis=1),
        lambda: fixed,
        ProductSums(type_of, n, exceptions, within),
        [(excluded, lambda: fixed)],
        Beyond(ParticleMesh(alpha, tuple(shape), dispersion_waves), alpha**6 / 12),
        True,
        unit=UNIT**6,
    )
