"""The known potential behind examples/data/lennard_jones_rdf.csv, and how that file was made.

    python examples/lennard_jones_truth.py        # about five minutes; rewrites the file

A Lennard-Jones liquid near its triple point, in argon's units: rho* = 0.845, T* = 1.0, 500
particles, 1000 frames every 50 steps.
"""

from pathlib import Path

import openmm_diffsim as diffsim
from openmm_diffsim.fluid import Dynamics, fluid, start_disordered
from openmm_diffsim.io import write_csv

SIGMA, EPSILON, MASS = 0.34, 0.996, 39.948  # nm, kJ/mol, amu
CUTOFF, DENSITY, TEMPERATURE = 0.85, 0.845 / SIGMA**3, 119.79  # nm, 1/nm^3, K
DATA = Path(__file__).parent / "data" / "lennard_jones_rdf.csv"


def truth() -> diffsim.LennardJones:
    return diffsim.LennardJones(SIGMA, EPSILON, CUTOFF)


def make_target(frames: int = 1000, every: int = 50, seed: int = 7) -> None:
    potential = truth()
    topology, system = fluid(500, DENSITY, MASS)
    potential.attach(system)
    simulation = Dynamics(TEMPERATURE, timestep=0.01, threads=1).simulation(topology, system, seed)
    start_disordered(simulation, TEMPERATURE, seed)
    liquid = diffsim.StatePoint(simulation, potential)
    rdf, pressure = diffsim.RDF(CUTOFF, bins=100), diffsim.Pressure()
    samples = liquid.sample(frames * every, every, [rdf, pressure], equilibration=10_000)
    g, p = samples.estimate(rdf), samples.estimate(pressure)
    # Bins that no pair was ever found in: as uncertain as if half a pair had been.
    smallest = g.standard_error[g.standard_error > 0].min()
    error = g.standard_error.clip(smallest)
    write_csv(DATA, "r_nm,g,standard_error", rdf.r, g.value.round(6), error.round(6))
    print(f"pressure {p.value[0]:.1f} +- {p.standard_error[0]:.1f} bar")


if __name__ == "__main__":
    make_target()
