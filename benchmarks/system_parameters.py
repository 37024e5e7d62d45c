"""What recording parameters of a force field costs beside the MD: every 50 steps, one thread, CPU.

    python benchmarks/system_parameters.py

Rigid three-site water (Lennard-Jones of the oxygen, one independent charge) of 900 and of 3000
atoms, and a fluid of molecules of ten sites (all sigma and epsilon of ten types, three independent
charges) of 1000, all with PME. Stretches of MD with and without the recorder take turns; the ratio
of their medians is printed, in processor time, and what a frame takes in MD steps.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

import openmm_diffsim as diffsim

EVERY, STRETCH, REPEATS = 50, 250, 7


def water(n: int) -> tuple[app.Simulation, diffsim.SystemParameters]:
    """TIP3P at 298 K and about 1 g/cm3."""
    field = app.ForceField("tip3p.xml")
    model = app.Modeller(app.Topology(), [] * unit.nanometer)
    model.addSolvent(field, model="tip3p", numAdded=n)
    system = field.createSystem(
        model.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.9 * unit.nanometer
    )
    atoms = np.arange(3 * n).reshape(-1, 3)
    potential = diffsim.SystemParameters(system)
    potential.lennard_jones(atoms[:, 0])
    potential.charges({"O": atoms[:, 0], "H": atoms[:, 1:]})
    return started(model.topology, system, model.positions), potential


def ten_types(n: int) -> tuple[app.Simulation, diffsim.SystemParameters]:
    """Molecules of ten sites, with sigma, epsilon and charge of each; four charges are named."""
    rng = np.random.default_rng(1)
    system, force, bonds = openmm.System(), openmm.NonbondedForce(), openmm.HarmonicBondForce()
    side = (10 * n / 40.0) ** (1 / 3)
    system.setDefaultPeriodicBoxVectors(*np.eye(3) * side)
    force.setNonbondedMethod(force.PME)
    force.setCutoffDistance(0.9)
    charges = [0.2, -0.2, 0.3, -0.3, 0.1, -0.1, 0.0, 0.0, 0.0, 0.0]
    for m in range(n):
        for k in range(10):
            system.addParticle(14.0)
            force.addParticle(charges[k], 0.25 + 0.01 * k, 0.2 + 0.03 * k)
        for k in range(9):
            bonds.addBond(10 * m + k, 10 * m + k + 1, 0.2, 1e5)
    pairs = [bonds.getBondParameters(k)[:2] for k in range(bonds.getNumBonds())]
    force.createExceptionsFromBonds(pairs, 0.8333, 0.5)
    system.addForce(force)
    system.addForce(bonds)
    atoms = np.arange(10 * n).reshape(-1, 10)
    potential = diffsim.SystemParameters(system)
    potential.lennard_jones({f"T{k}": atoms[:, k] for k in range(10)})
    potential.charges({f"T{k}": atoms[:, k] for k in range(4)})
    grid = np.stack(np.meshgrid(*[np.arange(np.ceil(n ** (1 / 3)))] * 3), axis=-1).reshape(-1, 3)
    centres = grid[:n] / np.ceil(n ** (1 / 3)) * side
    chains = np.array([[0.2 * (k // 2), 0.2 * ((k + 1) // 2), 0.0] for k in range(10)])
    x = (centres[:, None] + chains * 0.5 + 0.01 * rng.normal(size=(n, 10, 3))).reshape(-1, 3)
    topology = app.Topology()
    chain = topology.addChain()
    for _ in range(n):
        residue = topology.addResidue("TEN", chain)
        for k in range(10):
            topology.addAtom(f"C{k}", app.element.carbon, residue)
    return started(topology, system, x, 0.001), potential


def started(topology: Any, system: Any, positions: Any, step: float = 0.002) -> app.Simulation:
    """Warm, on one thread."""
    integrator = openmm.LangevinMiddleIntegrator(298.0, 1.0, step)
    integrator.setRandomNumberSeed(1)
    platform = openmm.Platform.getPlatform("CPU")
    simulation = app.Simulation(topology, system, integrator, platform, {"Threads": "1"})
    simulation.context.setPositions(positions)
    simulation.minimizeEnergy(maxIterations=300)
    simulation.context.setVelocitiesToTemperature(298.0, 1)
    simulation.step(200)
    return simulation


def timed(simulation: app.Simulation, reporters: list[Any]) -> float:
    """Seconds of processor time of a stretch."""
    simulation.reporters[:] = reporters
    start = time.process_time()
    simulation.step(STRETCH)
    seconds = time.process_time() - start
    simulation.reporters.clear()
    return seconds


def measure(name: str, simulation: app.Simulation, potential: Any, allowed: int) -> None:
    """Print a line for the energies alone, and one with what a pressure takes."""
    diffsim.StatePoint(simulation, potential)
    for what, record in (("energies", []), ("and virials", [diffsim.Pressure()])):
        reporter = diffsim.SampleReporter(EVERY, potential, record, temperature=298.0)
        timed(simulation, [reporter])
        pairs = [(timed(simulation, []), timed(simulation, [reporter])) for _ in range(REPEATS)]
        plain, recorded = (median(column) for column in zip(*pairs, strict=True))
        steps = (recorded / plain - 1) * EVERY
        print(
            f"{name:24s} {what:12s} {100 * (recorded / plain - 1):5.1f} % (allowed: {allowed}), "
            f"a frame takes {steps:.1f} MD steps of {1e3 * plain / STRETCH:.2f} ms",
            flush=True,
        )


def main() -> None:
    for n in (300, 1000):
        measure(f"water, {3 * n} atoms", *water(n), allowed=15)
    measure("ten types, 1000 atoms", *ten_types(100), allowed=30)


if __name__ == "__main__":
    main()
