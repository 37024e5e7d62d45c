"""Features of the charges of a NonbondedForce."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray

from ...statistics.products import (
    ListedProducts,
    PairFunction,
    ProductSums,
    bare,
    screened,
    smeared,
)
from ...statistics.reciprocal import ParticleMesh, coulomb_waves
from ...units import COULOMB
from . import nonbonded
from .product_features import Beyond, ProductFeatures

Array = NDArray[np.float64]

_WITH_MESH = (openmm.NonbondedForce.PME, openmm.NonbondedForce.LJPME)


def charge_features(term: Any, context: openmm.Context, layout: Any) -> ProductFeatures:
    """Of a ``ChargesTerm``, with any method but Ewald's, whose waves OpenMM does not tell."""
    force = term.place.find(context.getSystem())
    exceptions = nonbonded.read(force).exceptions
    own = np.where(layout.type_of >= 0, 0.0, layout.fixed)
    fixed = _with_offsets(own, force, context)
    beyond = _beyond(force, context)
    nearest = bool(force.getExceptionsUsePeriodicBoundaryConditions())
    at_zero, along = term.directions.at_zero, term.directions.along
    n = len(at_zero)
    listed = [
        (ListedProducts(layout.pairs, layout.scale, layout.type_of, n, nearest, bare), lambda: own)
    ]
    if beyond is not None:
        ones, function = np.ones(len(exceptions)), smeared(beyond.mesh.alpha)
        excluded = ListedProducts(exceptions, ones, layout.type_of, n, nearest, function)
        listed.append((excluded, fixed))
    return ProductFeatures(
        np.vstack([np.column_stack([at_zero, along]), np.eye(1, along.shape[1] + 1)]),
        fixed,
        ProductSums(layout.type_of, n, exceptions, _function(force, beyond)),
        listed,
        beyond,
        bool(force.usesPeriodicBoundaryConditions()),
        term.is_quadratic,
        COULOMB,
    )


def _with_offsets(
    own: Array, force: openmm.NonbondedForce, context: openmm.Context
) -> Callable[[], Array]:
    """What offsets add to the charges of particles, at the present global parameters."""
    rows = [
        force.getParticleParameterOffset(k)[:3]
        for k in range(force.getNumParticleParameterOffsets())
    ]
    names = sorted({name for name, _, charge in rows if charge != 0})
    along = np.zeros((len(names), len(own)))
    for name, index, charge in rows:
        if charge != 0:
            along[names.index(name), index] += charge

    def fixed() -> Array:
        now = [context.getParameter(name) for name in names]
        return np.asarray(own + np.array(now, dtype=np.float64) @ along)

    return fixed


def _beyond(force: openmm.NonbondedForce, context: openmm.Context) -> Beyond | None:
    """The mesh of PME, with the energy of each charge and the background's of a charged box."""
    if force.getNonbondedMethod() not in _WITH_MESH:
        return None
    alpha, *shape = force.getPMEParametersInContext(context)
    mesh = ParticleMesh(alpha, tuple(shape), coulomb_waves)
    return Beyond(mesh, -alpha / np.sqrt(np.pi), -np.pi / (2 * alpha**2))


def _function(force: openmm.NonbondedForce, beyond: Beyond | None) -> PairFunction:
    if force.getNonbondedMethod() == force.NoCutoff:
        return PairFunction.coulomb()
    cutoff = force.getCutoffDistance()._value
    if beyond is None:
        return PairFunction.reaction_field(cutoff, force.getReactionFieldDielectric())
    alpha = beyond.mesh.alpha
    at_zero = (1.0, -2 * alpha / np.sqrt(np.pi))
    return PairFunction.tabulated(screened(alpha), cutoff, at_zero)
