"""What is read from Systems and Contexts, as plain numbers."""

from __future__ import annotations

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import unit

Array = NDArray[np.float64]


def masses_of(system: openmm.System) -> Array:
    """Masses, amu, [particles]."""
    masses = [system.getParticleMass(i) for i in range(system.getNumParticles())]
    return np.array([mass.value_in_unit(unit.dalton) for mass in masses], dtype=np.float64)


def platform_properties(context: openmm.Context, *names: str) -> dict[str, str]:
    """Those of these properties that the Context's platform has, with their values."""
    platform = context.getPlatform()
    known = set(names) & set(platform.getPropertyNames())
    return {name: platform.getPropertyValue(context, name) for name in names if name in known}


def box_of(context: openmm.Context) -> Array:
    """Box vectors of a Context, nm, [3, 3]."""
    box = context.getState().getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
    return np.asarray(box, dtype=np.float64)
