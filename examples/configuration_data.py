"""The data of mixture.toml, two_temperatures.toml, melt.toml and water_model.toml, and their truth.

    python examples/configuration_data.py mixture     # or: temperatures, melt, water

Each rewrites its files in examples/data, within some minutes.
"""

import sys
from pathlib import Path

import numpy as np
import openmm
from openmm import app

import openmm_diffsim as diffsim
from openmm_diffsim.fluid import Dynamics, fluid, start_disordered
from openmm_diffsim.io import write_csv

DATA = Path(__file__).parent / "data"
CUTOFF, R_MIN = 0.8, 0.25  # nm
SIGMA, EPSILON = [0.34, 0.32, 0.30], [1.0, 1.1, 0.8]  # of the mixture: A-A, A-B, B-B
CHAINS, LENGTH, BOND, STIFF, ANGLE, BENDING = 20, 5, 0.38, 8000.0, 2.0, 20.0  # of the melt


def mixture_truth():
    return diffsim.LennardJones(SIGMA, EPSILON, CUTOFF, r_min=R_MIN, n_types=2)


def fluid_truth():
    """Its epsilon falls with temperature, 1.4 - 0.002 T, as that of coarse-grained particles."""
    energy, entropy = (
        diffsim.LennardJones(0.34, epsilon, CUTOFF, r_min=R_MIN) for epsilon in (1.4, 0.002)
    )
    return diffsim.TemperatureDependent(energy, entropy)


def written(name, samples, observable):
    """A curve with errors; bins without counts are as uncertain as half a count makes them."""
    found = samples.estimate(observable)
    error = found.standard_error
    error = error.clip(error[error > 0].min())
    x = observable.axis(0.01).values
    write_csv(DATA / name, "x,y,standard_error", x, found.value.round(6), error.round(6))


def sampled(potential, counts, density, kelvin, observables, steps):
    """Frames of a fluid of these particles, every 50 steps."""
    topology, system = fluid(counts, density, 39.948)
    types = np.repeat(np.arange(len(counts)), counts)
    potential.attach(system, types=types, temperature=kelvin)
    simulation = Dynamics(kelvin, timestep=0.01, threads=1).simulation(topology, system, 7)
    start_disordered(simulation, kelvin, 7)
    point = diffsim.StatePoint(simulation, potential)
    return point.sample(steps, 50, observables, equilibration=steps // 5)


def mixture(steps=60_000):
    for name, counts in (("x25", [60, 180]), ("x50", [120, 120]), ("x75", [180, 60])):
        a, b = np.split(np.arange(240), counts[:1])
        pairs = {"AA": (a, a), "AB": (a, b), "BB": (b, b)}
        rdfs = {k: diffsim.RDF(CUTOFF, 80, atoms=i, atoms2=j) for k, (i, j) in pairs.items()}
        samples = sampled(mixture_truth(), counts, 18.0, 150.0, list(rdfs.values()), steps)
        for pair, rdf in rdfs.items():
            written(f"mixture_{name}_{pair}.csv", samples, rdf)


def temperatures(steps=40_000):
    for kelvin in (120.0, 200.0):
        rdf = diffsim.RDF(CUTOFF, 80)
        samples = sampled(fluid_truth(), [200], 17.0, kelvin, [rdf], steps)
        written(f"fluid_{kelvin:.0f}K_rdf.csv", samples, rdf)


def melt(steps=100_000):
    """Lennard-Jones beads beyond 1-3 pairs, harmonic bonds and angles."""
    n = CHAINS * LENGTH
    beads = np.arange(n).reshape(CHAINS, LENGTH)
    topology, system = fluid(n, 0.7 / 0.4**3, 40.0, ["M"])
    bonds = np.concatenate([beads[:, k : k + 2] for k in range(LENGTH - 1)])
    triples = np.concatenate([beads[:, k : k + 3] for k in range(LENGTH - 2)])
    bare = openmm.XmlSerializer.serialize(system)
    springs, bends = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    for i, j in bonds.tolist():
        springs.addBond(i, j, BOND, STIFF)
    for i, j, k in triples.tolist():
        bends.addAngle(i, j, k, ANGLE, BENDING)
    for force in (springs, bends):
        force.setUsesPeriodicBoundaryConditions(True)
        system.addForce(force)
    pair = diffsim.LennardJones(0.4, 2.0, 0.9, r_min=0.3)
    pair.attach(system, exclude_bonds=2)
    simulation = Dynamics(300.0, timestep=0.01, threads=1).simulation(topology, system, 7)
    rng, side = np.random.default_rng(7), topology.getPeriodicBoxVectors()[0][0]._value
    walk = np.cumsum(rng.normal(size=(CHAINS, LENGTH, 3)) * 0.1 + [0.35, 0, 0], axis=1)
    start = (rng.random((CHAINS, 1, 3)) * side + walk).reshape(-1, 3)
    simulation.context.setPositions(start)
    openmm.LocalEnergyMinimizer.minimize(simulation.context, 50.0, 500)
    simulation.context.setVelocitiesToTemperature(300.0, 7)
    observables = {
        "rdf": diffsim.RDF(0.9, 90),
        "bonds": diffsim.BondDistribution(0.30, 0.46, 64),
        "angles": diffsim.AngleDistribution(triples=triples, bins=60),
    }
    point = diffsim.StatePoint(simulation, pair)
    samples = point.sample(steps, 50, list(observables.values()), equilibration=20_000)
    for name, observable in observables.items():
        written(f"melt_{name}.csv", samples, observable)
    atoms = list(topology.atoms())
    for i, j in bonds.tolist():
        topology.addBond(atoms[i], atoms[j])
    write(simulation, topology, bare, "melt")


def water(molecules=216):
    """A box of TIP3P water, relaxed at constant volume."""
    field = app.ForceField("tip3p.xml")
    box = app.Modeller(app.Topology(), [])
    box.addSolvent(field, model="tip3p", numAdded=molecules)
    system = field.createSystem(box.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.85)
    bare = openmm.XmlSerializer.serialize(system)
    simulation = Dynamics(298.0, timestep=0.004, threads=1).simulation(box.topology, system, 7)
    simulation.context.setPositions(box.positions)
    simulation.minimizeEnergy(maxIterations=200)
    simulation.context.setVelocitiesToTemperature(298.0, 7)
    simulation.step(2000)
    write(simulation, box.topology, bare, "water")


def write(simulation, topology, system, name):
    """What a configuration names: the topology with positions, and the System."""
    state = simulation.context.getState(positions=True, enforcePeriodicBox=True)
    with open(DATA / f"{name}.pdb", "w") as file:
        app.PDBFile.writeFile(topology, state.getPositions(), file)
    (DATA / f"{name}_system.xml").write_text(system)


if __name__ == "__main__":
    for asked in sys.argv[1:]:
        {"mixture": mixture, "temperatures": temperatures, "melt": melt, "water": water}[asked]()
