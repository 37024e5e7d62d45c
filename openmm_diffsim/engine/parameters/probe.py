"""A Force alone in a Context of its own, at any parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import unit

from ..adapters.system import copy_with
from ..context import platform_properties

Array = NDArray[np.float64]

# Of a parameter's scale, for a central difference: in double precision, and in single.
_STEP, _STEP_SINGLE = 1e-4, 1e-2
_SPACINGS = (0.12, 0.25)  # nm, between the particles of trial configurations
_SHAKES = 3  # of each lattice
_SHAKEN = 0.05  # nm


class Probe:
    """Energies of some Forces of a System at any of a term's parameters.

    Parameters
    ----------
    term : ProbedTerm
        It ``put``s its parameters into a Force, and ``bring``s them to a Context.
    layout : Any
        Its layout in the System.
    xml : str
        From ``scratch_xml``.
    like : openmm.Context, optional
        Whose platform is taken; in mixed precision, if that is single. Default: Reference.
    """

    def __init__(
        self, term: Any, layout: Any, xml: str, like: openmm.Context | None = None
    ) -> None:
        self._term, self._layout = term, layout
        system = openmm.XmlSerializer.deserialize(xml)
        self._forces = list(system.getForces())
        self._derivatives = [_differentiate(f, term.global_names) for f in self._forces]
        self._context = openmm.Context(system, openmm.VerletIntegrator(0.001), *_platform(like))
        theirs = {} if like is None else like.getParameters()
        self._fixed = [n for n in self._context.getParameters() if n in theirs]
        self._like: Any = like

    @property
    def is_single(self) -> bool:
        """Are forces in single precision?"""
        return bool(self._context.getPlatform().getName() != "Reference")

    @property
    def knows_derivatives(self) -> bool:
        """Does OpenMM give dU/dp itself?"""
        return bool(self._term.global_names) and all(self._derivatives)

    def place(self, positions: Array, box: Array | None) -> None:
        """Look at this configuration from now on, with the Context's parameters that are fixed."""
        for name in self._fixed:
            self._context.setParameter(name, self._like.getParameter(name))
        if box is not None:
            self._context.setPeriodicBoxVectors(*box)
        self._context.setPositions(positions)

    def freeze(self) -> None:
        """Let the fixed parameters stay as they are in the other Context by now."""
        for name in self._fixed:
            self._context.setParameter(name, self._like.getParameter(name))
        self._fixed, self._like = [], None

    def energy(self, numbers: Array) -> float:
        """U, kJ/mol, at these parameters [parameters]."""
        self._bring(numbers)
        energy = self._context.getState(getEnergy=True).getPotentialEnergy()
        return float(energy.value_in_unit(unit.kilojoule_per_mole))

    def energies(self, numbers: Array) -> Array:
        """U at each row of parameters [rows, parameters]."""
        return np.array([self.energy(row) for row in numbers])

    def slopes(self, numbers: Array, scale: Array, differences: bool = False) -> Array:
        """dU/dp, [parameters]: OpenMM's, or by central ``differences``."""
        if self.knows_derivatives and not differences:
            self._bring(numbers)
            found = self._context.getState(getParameterDerivatives=True)
            slopes = found.getEnergyParameterDerivatives()
            return np.array([slopes[name] for name in self._term.global_names])
        steps = np.diag((_STEP_SINGLE if self.is_single else _STEP) * scale)
        both = [(self.energy(numbers + h), self.energy(numbers - h)) for h in steps]
        return np.array([a - b for a, b in both]) / (2 * np.diag(steps))

    def _bring(self, numbers: Array) -> None:
        for force in self._forces:
            self._term.put(force, self._layout, numbers)
        for force in self._forces:
            self._term.bring(force, self._context)


def scratch_xml(system: openmm.System, forces: Sequence[openmm.Force]) -> str:
    """A System that has these of its Forces alone, and no constraints or virtual sites."""
    kept = copy_with(system, lambda force: any(force.this == own.this for own in forces))
    scratch = openmm.System()
    scratch.setDefaultPeriodicBoxVectors(*system.getDefaultPeriodicBoxVectors())
    for _ in range(system.getNumParticles()):
        scratch.addParticle(1.0)
    for force in kept.getForces():
        copy = openmm.XmlSerializer.clone(force)
        copy.setForceGroup(0)
        scratch.addForce(copy)
    return str(openmm.XmlSerializer.serialize(scratch))


def trial_configurations(system: openmm.System) -> list[tuple[Array, Array]]:
    """Positions and boxes to ask a Force in what its energy depends on: lattices, shaken."""
    n = system.getNumParticles()
    vectors = system.getDefaultPeriodicBoxVectors()
    box = np.array([list(v.value_in_unit(unit.nanometer)) for v in vectors])
    side = int(np.ceil(n ** (1 / 3)))
    grid = np.stack(np.meshgrid(*3 * [np.arange(side)], indexing="ij"), axis=-1).reshape(-1, 3)[:n]
    rng = np.random.default_rng(0)
    places = [grid * spacing for spacing in _SPACINGS for _ in range(_SHAKES)] + [grid / side @ box]
    return [(x + _SHAKEN * rng.uniform(-1, 1, size=x.shape), box) for x in places]


def _differentiate(force: Any, names: Sequence[str]) -> bool:
    """Ask for derivatives with respect to these; False if that cannot be."""
    if not hasattr(force, "addEnergyParameterDerivative"):
        return False
    declared = {
        force.getEnergyParameterDerivativeName(k)
        for k in range(force.getNumEnergyParameterDerivatives())
    }
    for name in names:
        if name not in declared:
            force.addEnergyParameterDerivative(name)
    return True


def _platform(like: openmm.Context | None) -> tuple[Any, ...]:
    if like is None:
        return (openmm.Platform.getPlatformByName("Reference"),)
    properties = platform_properties(like, "Threads", "Precision", "DeviceIndex")
    if properties.get("Precision") == "single":
        properties["Precision"] = "mixed"
    return like.getPlatform(), properties
