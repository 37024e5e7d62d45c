"""Copies of Forces, by themselves, to be asked for energies at other parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import unit

from ..context import platform_properties

Array = NDArray[np.float64]


class Scratch:
    """A Context with nothing but some Forces, on the platform of another Context.

    Parameters
    ----------
    forces : sequence of openmm.Force
        They become those of the scratch Context.
    original : openmm.Context
        Of which box at the start, platform and global parameters are taken over.
    """

    def __init__(self, forces: Sequence[openmm.Force], original: openmm.Context) -> None:
        whole = original.getSystem()
        system = openmm.System()
        system.setDefaultPeriodicBoxVectors(*whole.getDefaultPeriodicBoxVectors())
        for _ in range(whole.getNumParticles()):
            system.addParticle(1.0)
        for force in forces:
            system.addForce(force)
        self._original = original
        self.context = _beside(system, original)
        own, theirs = self.context.getParameters(), original.getParameters()
        self._shared = [name for name in own if name in theirs]

    def place(self, positions: Array, box: Array | None) -> None:
        """Go to a frame, positions [particles, 3] and box [3, 3] in nm.

        Global parameters that both Contexts have are then those of the original.
        """
        if box is not None:
            self.context.setPeriodicBoxVectors(*box)
        self.context.setPositions(positions)
        for name in self._shared:
            self.context.setParameter(name, self._original.getParameter(name))

    def energy(self, parameters: Mapping[str, float]) -> float:
        """kJ/mol, at these global parameters."""
        for name, value in parameters.items():
            self.context.setParameter(name, value)
        energy = self.context.getState(energy=True).getPotentialEnergy()
        return float(energy.value_in_unit(unit.kilojoule_per_mole))


def _beside(system: openmm.System, original: openmm.Context) -> openmm.Context:
    platform: Any = original.getPlatform()
    properties = platform_properties(original, "Threads", "Precision", "DeviceIndex")
    if properties.get("Precision") == "single":
        properties["Precision"] = "mixed"
    return openmm.Context(system, openmm.VerletIntegrator(0.001), platform, properties)
