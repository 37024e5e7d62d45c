"""Charges of particles, as far as a System says them."""

from __future__ import annotations

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import unit

Array = NDArray[np.float64]


def charges_of(context: openmm.Context) -> Array | None:
    """Charges, e, [particles], of the one NonbondedForce that has some; None if there is no such.

    With what parameter offsets add to them now. None too beside induced dipoles.
    """
    forces = context.getSystem().getForces()
    if any(isinstance(force, openmm.AmoebaMultipoleForce) for force in forces):
        return None
    nonbonded = [f for f in forces if isinstance(f, openmm.NonbondedForce)]
    found = [q for q in (_charges(force, context) for force in nonbonded) if q.any()]
    return found[0] if len(found) == 1 else None


def _charges(force: openmm.NonbondedForce, context: openmm.Context) -> Array:
    charge = unit.elementary_charge
    n = force.getNumParticles()
    q = [force.getParticleParameters(i)[0].value_in_unit(charge) for i in range(n)]
    total = np.array(q, dtype=np.float64)
    for k in range(force.getNumParticleParameterOffsets()):
        name, index, scale, *_ = force.getParticleParameterOffset(k)
        total[index] += context.getParameter(name) * scale
    return total
