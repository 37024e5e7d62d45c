"""One potential from two measurements: g(r), and the velocity autocorrelation function.

The data are those of a Lennard-Jones fluid, rho* = 0.7, T* = 1.2, that come with the papers'
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
r, g = np.genfromtxt(folder / "lj_rdf_rho0.7_T1.2.csv", delimiter=",")
per_axis = np.genfromtxt(folder / "lj_vacf_rho0.7_T1.2.csv")  # m <v_x v_x> / epsilon
r, t = r * SIGMA, 0.01 * TAU * np.arange(len(per_axis))
vacf_measured = 3 * per_axis * (SIGMA / TAU) ** 2  # nm^2/ps^2, all three axes

pair = diffsim.SplinePair(r_min=0.26, cutoff=2.5 * SIGMA, knots=50)
diffsim.boltzmann_inversion(pair, r, g, TEMPERATURE)
topology, system = fluid(256, 0.7 / SIGMA**3, MASS)
pair.attach(system)
dynamics = Dynamics(TEMPERATURE, timestep=0.005 * TAU, friction=1 / TAU, threads=1)
simulation = dynamics.simulation(topology, system, seed=1)
start_disordered(simulation, TEMPERATURE, seed=1)
liquid = diffsim.StatePoint(simulation, pair)

rdf = diffsim.RDF(r_max=2.5 * SIGMA, bins=80)
newton = segments.velocity_verlet(0.01 * TAU)  # the data are from dynamics without friction
vacf = diffsim.VACF(np.arange(0, 60, 4), integrator=newton, gradient_every=4)
targets = [
    diffsim.Target(liquid, rdf, r, g, uncertainty=0.01, noise="independent"),
    diffsim.Target(liquid, vacf, t, vacf_measured, uncertainty=0.005 * vacf_measured[0]),
]
fit = diffsim.Refinement(pair, targets).run(rounds=10, steps=5000, every=50, progress=False)

x = np.linspace(0.95, 2.0, 100) * SIGMA
truth = 4 * EPSILON * ((SIGMA / x) ** 12 - (SIGMA / x) ** 6)
u, error = (table[0] for table in fit.potential_table(x))
print(f"misfit {fit.history[0].misfit:.2f} at first, {fit.summary()['misfit']:.2f} at last")
print(
    f"u(r): rms deviation {np.sqrt(np.mean((u - truth) ** 2)) / EPSILON:.3f} epsilon, its own "
    f"error {np.sqrt(np.mean(error**2)) / EPSILON:.3f}"
)
assert np.sqrt(np.mean((u - truth) ** 2)) < 0.15 * EPSILON and fit.summary()["misfit"] < 1.2
