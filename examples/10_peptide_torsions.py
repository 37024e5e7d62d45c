"""Torsions of a peptide from the distribution of a dihedral angle: parameters of a force that is
there already.

The System is alanine dipeptide by Amber's files. Its psi terms are spoilt, and come back from the
distribution of psi that the force field itself gives.
"""

import numpy as np
import openmm
from openmm import app

import openmm_diffsim as diffsim

ATOMS = {
    "ACE": "H1 CH3 H2 H3 C O",
    "ALA": "N H CA HA CB HB1 HB2 HB3 C O",
    "NME": "N H C H1 H2 H3",
}
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


def simulation(system, seed):
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 5, 0.002)
    integrator.setRandomNumberSeed(seed)
    platform = openmm.Platform.getPlatform("Reference")
    made = app.Simulation(topology, system, integrator, platform)
    made.context.setPositions(np.random.default_rng(seed).normal(size=(22, 3)) * 0.3)
    made.minimizeEnergy()
    made.context.setVelocitiesToTemperature(TEMPERATURE, seed)
    return made


def psi_terms(system):
    """Entries of the torsion force, and their periodicity, phase and k."""
    force = next(f for f in system.getForces() if isinstance(f, openmm.PeriodicTorsionForce))
    for k in range(force.getNumTorsions()):
        *atoms, n, phase, height = force.getTorsionParameters(k)
        kinds = tuple(types[i] for i in atoms)
        if PSI in (kinds, kinds[::-1]):
            yield force, k, atoms, n, phase, height


# The "experiment": the force field as it is.
system = forcefield.createSystem(topology, constraints=app.HBonds)
known = np.array([height._value for *_, height in psi_terms(system)])  # kJ/mol
quadruple = next(atoms for _, _, atoms, *_ in psi_terms(system))
distribution = diffsim.DihedralDistribution(24, quadruples=[quadruple])
as_it_is = diffsim.SystemParameters(system)
as_it_is.torsions()
experiment = diffsim.StatePoint(simulation(system, 1), as_it_is)
measured = experiment.sample(400_000, 50, [distribution]).estimate(distribution)

# Another System, of which they are not known.
system = forcefield.createSystem(topology, constraints=app.HBonds)
for force, k, atoms, n, phase, height in psi_terms(system):
    force.setTorsionParameters(k, *atoms, n, phase, height * 0.2)
parameters = diffsim.SystemParameters(system)
term = parameters.torsions({f"psi {n}": [k] for _, k, _, n, _, _ in psi_terms(system)})
vacuum = diffsim.StatePoint(simulation(system, 2), parameters)
seen = measured.value > 0.05  # 1/rad
target = diffsim.Target(
    vacuum,
    distribution,
    distribution.phi[seen],
    measured.value[seen],
    uncertainty=measured.standard_error[seen],
)
fit = diffsim.Refinement(parameters, [target])
fit.run(rounds=5, steps=200_000, every=50)

found = term.k.numbers()
for name, at_first, now, true in zip(term.group_names, 0.2 * known, found, known, strict=True):
    print(f"{name}: {at_first:6.2f} -> {now:6.2f} kJ/mol, known {true:6.2f}")
assert np.all(np.abs(found - known) < np.abs(0.2 * known - known))
assert np.abs(found - known).mean() < 0.4 * np.abs(0.2 * known - known).mean()
