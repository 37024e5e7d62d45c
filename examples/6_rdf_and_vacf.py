"""One potential from two measurements: g(r), and the velocity autocorrelation function.

The data are those of a Lennard-Jones fluid, rho* = 0.3, T* = 1.2, that come with the papers'
code, in reduced units: python 6_rdf_and_vacf.py FOLDER, ../shared/data/diffsim by default.
"""

import sys
from pathlib import Path

import numpy as np

import openmm_diffsim as diffsim
from openmm_diffsim import segments
from openmm_diffsim.fluid import Dynamics, fluid, start_disordered
from openmm_diffsim.units import MOLAR_GAS_CONSTANT

SIGMA, EPSILON, MASS = 0.34, 0.996, 39.948  # nm, kJ/mol, amu: what to call a reduced unit
TAU = SIGMA * (MASS / EPSILON) ** 0.5  # ps
TEMPERATURE = 1.2 * EPSILON / MOLAR_GAS_CONSTANT  # K

default = Path(__file__).resolve().parents[1] / "../shared/data/diffsim"
folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default
r, g = np.genfromtxt(folder / "lj_rdf_rho0.3_T1.2.csv", delimiter=",")
per_axis = np.genfromtxt(folder / "lj_vacf_rho0.3_T1.2.csv")  # m <v_x v_x> / epsilon
r, t = r * SIGMA, 0.01 * TAU * np.arange(len(per_axis))
vacf_measured = 3 * per_axis * (SIGMA / TAU) ** 2  # nm^2/ps^2, all three axes

pair = diffsim.LennardJones(0.37, 0.6, cutoff=2.5 * SIGMA, r_min=0.26)  # a bad first guess
topology, system = fluid(256, 0.3 / SIGMA**3, MASS)
pair.attach(system)
dynamics = Dynamics(TEMPERATURE, timestep=0.005 * TAU, friction=1 / TAU, threads=1)
simulation = dynamics.simulation(topology, system, seed=1)
start_disordered(simulation, TEMPERATURE, seed=1)
liquid = diffsim.StatePoint(simulation, pair)

rdf = diffsim.RDF(r_max=2.5 * SIGMA, bins=80)
newton = segments.velocity_verlet(0.01 * TAU)  # the data are from dynamics without friction
vacf = diffsim.VACF(np.arange(0, 60, 4), integrator=newton, gradient_every=4)
# Smeared and normalised as their authors did, the data are off by as much as this.
targets = [
    diffsim.Target(liquid, rdf, r, g, uncertainty=0.03, noise="independent"),
    diffsim.Target(liquid, vacf, t, vacf_measured, uncertainty=0.02 * vacf_measured[0]),
]
fit = diffsim.Refinement(pair, targets).run(rounds=12, steps=5000, every=50, progress=False)

print(f"misfit {fit.history[0].misfit:.1f} at first, {fit.summary()['misfit']:.2f} at last")
print(f"sigma {pair.sigma.item():.4f} nm, epsilon {pair.epsilon.item():.3f} kJ/mol")
assert fit.converged
assert abs(pair.sigma.item() / SIGMA - 1) < 0.015
assert abs(pair.epsilon.item() / EPSILON - 1) < 0.15
