"""Torsions of a peptide from the distribution of a dihedral angle: a force that is there already.

Alanine dipeptide by Amber's files: its psi terms are spoilt, and come back from what they gave.
"""

import numpy as np
import openmm
from openmm import app

import openmm_diffsim as diffsim

ATOMS = {"ACE": "H1 CH3 H2 H3 C O", "ALA": "N H CA HA CB HB1 HB2 HB3 C O", "NME": "N H C H1 H2 H3"}
PSI = ("N", "CX", "C", "N")  # classes of its atoms in Amber's files
TEMPERATURE = 600  # K: hot enough to turn often in a short run
topology = app.Topology()
chain = topology.addChain()
for name, atoms in ATOMS.items():
    residue = topology.addResidue(name, chain)
    for atom in atoms.split():
        topology.addAtom(atom, app.Element.getBySymbol(atom[0]), residue)
topology.createStandardBonds()
forcefield = app.ForceField("amber14-all.xml")
types = diffsim.atom_types(forcefield, topology, classes=True)


def sampled(spoilt, seed):
    """A state point with the psi terms times ``spoilt``; its term, and k of each, kJ/mol."""
    system = forcefield.createSystem(topology, constraints=app.HBonds)
    force = next(f for f in system.getForces() if isinstance(f, openmm.PeriodicTorsionForce))
    psi = {k: force.getTorsionParameters(k) for k in range(force.getNumTorsions())}
    for k, (*atoms, _, _, _) in list(psi.items()):
        kinds = tuple(types[i] for i in atoms)
        if PSI not in (kinds, kinds[::-1]):
            del psi[k]
    for k, (*which, height) in psi.items():
        force.setTorsionParameters(k, *which, spoilt * height)
    parameters = diffsim.SystemParameters(system)
    term = parameters.torsions({f"psi {e[4]}": [k] for k, e in psi.items()})
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 5, 0.002)
    integrator.setRandomNumberSeed(seed)
    on = openmm.Platform.getPlatform("Reference")
    simulation = app.Simulation(topology, system, integrator, on)
    simulation.context.setPositions(np.random.default_rng(seed).normal(size=(22, 3)) * 0.3)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, seed)
    psi_angle = diffsim.DihedralDistribution(24, quadruples=[next(iter(psi.values()))[:4]])
    return diffsim.StatePoint(simulation, parameters), term, psi_angle


experiment, term, psi = sampled(1.0, seed=1)
known = term.k.numbers()
measured = experiment.sample(400_000, 50, [psi]).estimate(psi)
seen = measured.value > 0.05  # 1/rad
vacuum, term, psi = sampled(0.2, seed=2)
points, error = (psi.phi[seen], measured.value[seen]), measured.standard_error[seen]
target = diffsim.Target(vacuum, psi, *points, uncertainty=error)
fit = diffsim.Refinement(vacuum.potential, [target])
fit.run(rounds=5, steps=200_000, every=50)
found, error = term.k.numbers(), fit.parameter_table().standard_error
for name, now, sigma, true in zip(term.group_names, found, error, known, strict=True):
    print(f"{name}: {0.2 * true:6.2f} -> {now:6.2f} +- {sigma:.2f} kJ/mol, known {true:6.2f}")
assert np.all(np.abs(found - known) < 3.5 * error)
