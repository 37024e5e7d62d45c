"""An existing OpenMM script, with the interaction of its particles refined in between.

Stock OpenMM supplies the g(r) of a Lennard-Jones liquid; another Simulation learns from it alone.
"""

import numpy as np
import openmm
from openmm import app, unit

import openmm_diffsim as diffsim
from openmm_diffsim.fluid import fluid, start_disordered

SIGMA, EPSILON, TEMPERATURE = 0.34, 0.996, 119.8  # nm, kJ/mol, K
N, CUTOFF, PLATFORM = 200, 0.8, openmm.Platform.getPlatform("CPU")


def script(force=None, pair=None, seed=1):
    """What a user has: a System, a Simulation, and positions."""
    topology, system = fluid(N, number_density=0.7 / SIGMA**3, mass=39.948)
    if force is not None:
        system.addForce(force)
    pair.attach(system)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 1 / unit.picosecond, 0.01)
    integrator.setRandomNumberSeed(seed)
    simulation = app.Simulation(topology, system, integrator, PLATFORM, {"Threads": "1"})
    start_disordered(simulation, TEMPERATURE, seed)
    return simulation


# The "experiment": stock OpenMM, recorded beside a potential that is zero.
truth = openmm.NonbondedForce()
truth.setNonbondedMethod(truth.CutoffPeriodic)
truth.setCutoffDistance(CUTOFF)
truth.setUseDispersionCorrection(False)
for _ in range(N):
    truth.addParticle(0.0, SIGMA, EPSILON)
zero = diffsim.SplinePair(r_min=0.28, cutoff=CUTOFF)
experiment = diffsim.StatePoint(script(truth, zero), zero)
rdf = diffsim.RDF(r_max=CUTOFF, bins=100)
measured = experiment.sample(20_000, 50, [rdf], equilibration=4000).estimate(rdf)

# The refinement.
pair = diffsim.SplinePair(r_min=0.28, cutoff=CUTOFF, knots=50)
diffsim.boltzmann_inversion(pair, rdf.r, measured.value, TEMPERATURE)
simulation = script(pair=pair, seed=2)
liquid = diffsim.StatePoint(simulation, pair)
target = diffsim.Target(liquid, rdf, rdf.r, measured.value, uncertainty=measured.standard_error)
fit = diffsim.Refinement(pair, [target])
fit.run(rounds=6, steps=4000, every=50)
simulation.step(1000)  # the script goes on, with the refined force

r = np.linspace(0.34, CUTOFF, 100)
u, error = fit.potential_table(r)
known = 4 * EPSILON * ((SIGMA / r) ** 12 - (SIGMA / r) ** 6 + 0.00586)  # zero at the cutoff
deviation = np.abs(u[0] - known)
rms = fit.summary()["rdf_rms"]
print(f"rms of g(r): {rms:.4f}; potential off by {deviation.mean():.3f} kJ/mol on average")
assert rms < 0.02
assert np.mean(deviation < 2 * error[0]) > 0.9
