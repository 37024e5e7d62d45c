"""Peptides from OpenMM's own files, as real force fields make Systems of them."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit

Array = NDArray[np.float64]

_ATOMS = {
    "ACE": "H1 CH3 H2 H3 C O",
    "ALA": "N H CA HA CB HB1 HB2 HB3 C O",
    "NME": "N H C H1 H2 H3",
}
_VILLIN = Path(app.__file__).parent / "data" / "test.pdb"


@cache
def villin() -> tuple[app.Topology, Array]:
    """A protein of 35 residues, without its water."""
    lines = _VILLIN.read_text().splitlines()
    atoms = [line for line in lines if line.startswith("ATOM") and " HOH " not in line]
    protein = [line for line in atoms if line[17:20].isupper()]  # no ions
    pdb = app.PDBFile(io.StringIO("\n".join(protein)))
    return pdb.topology, np.array(pdb.positions.value_in_unit(unit.nanometer))


def alanine_dipeptide() -> app.Topology:
    """Ace-Ala-Nme, 22 atoms."""
    topology = app.Topology()
    chain = topology.addChain()
    for name, atoms in _ATOMS.items():
        residue = topology.addResidue(name, chain)
        for atom in atoms.split():
            topology.addAtom(atom, app.Element.getBySymbol(atom[0]), residue)
    topology.createStandardBonds()
    return topology


def folded(system: openmm.System, seed: int = 0) -> Array:
    """Positions of a small molecule in vacuum, from random ones."""
    rng = np.random.default_rng(seed)
    integrator = openmm.LangevinIntegrator(300, 50, 0.0002)
    integrator.setRandomNumberSeed(1)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, integrator, platform)
    context.setPositions(rng.normal(size=(system.getNumParticles(), 3)) * 0.3)
    openmm.LocalEnergyMinimizer.minimize(context, 1.0)
    context.setVelocitiesToTemperature(300, 1)
    integrator.step(200)
    found: Any = context.getState(getPositions=True).getPositions(asNumpy=True)
    return np.array(found.value_in_unit(unit.nanometer))
