"""Distances, angles and dihedrals are those of OpenMM."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from openmm import unit
from systems import BOXES

from openmm_diffsim.statistics.internal import angles, dihedrals, distances

KINDS = {
    "distance": (openmm.CustomBondForce("r"), distances, 2),
    "angle": (openmm.CustomAngleForce("theta"), angles, 3),
    "dihedral": (openmm.CustomTorsionForce("theta"), dihedrals, 4),
}


def of_openmm(kind, positions, atoms, box):
    """The same number, one Context for each list of particles."""
    found = []
    for row in atoms:
        force = openmm.XmlSerializer.clone(KINDS[kind][0])
        force.setUsesPeriodicBoundaryConditions(box is not None)
        getattr(force, {2: "addBond", 3: "addAngle", 4: "addTorsion"}[len(row)])(*map(int, row), [])
        system = openmm.System()
        if box is not None:
            system.setDefaultPeriodicBoxVectors(*box)
        for _ in positions:
            system.addParticle(1.0)
        system.addForce(force)
        platform = openmm.Platform.getPlatformByName("Reference")
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
        context.setPositions(positions)
        energy = context.getState(getEnergy=True).getPotentialEnergy()
        found.append(energy.value_in_unit(unit.kilojoule_per_mole))
    return np.array(found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("box", [None, "orthorhombic", "skewed"])
def test_as_in_openmm(kind, box):
    rng = np.random.default_rng(3)
    _, function, size = KINDS[kind]
    box = None if box is None else BOXES[box]
    positions = rng.uniform(0, 3, size=(12, 3))
    atoms = np.array([rng.permutation(12)[:size] for _ in range(8)])
    ours = function(positions, atoms, box)
    np.testing.assert_allclose(ours, of_openmm(kind, positions, atoms, box), rtol=1e-9)
    np.testing.assert_array_equal(function(positions[None], atoms, box)[0], ours)


def test_a_straight_angle_is_exact():
    x = np.array([[0, 0, 0], [1, 0, 0], [2, 1e-9, 0.0]])
    assert np.pi - angles(x, np.array([[0, 1, 2]]))[0] == pytest.approx(1e-9, rel=1e-6)
