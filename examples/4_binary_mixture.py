"""A binary mixture: three potentials from three partial g(r) at once."""

import numpy as np

import openmm_diffsim as diffsim
from openmm_diffsim.fluid import Dynamics, fluid, start_disordered

N, CUTOFF, TEMPERATURE = 240, 0.8, 150.0  # particles, nm, K
TYPES = np.arange(N) % 2
SIGMA, EPSILON = [0.34, 0.32, 0.30], [1.0, 1.1, 0.8]  # pairs (0, 0), (0, 1), (1, 1); nm, kJ/mol


def liquid_of(pair, seed):
    topology, system = fluid(N, number_density=18.0, mass=39.948)
    pair.attach(system, types=TYPES)
    simulation = Dynamics(TEMPERATURE, timestep=0.01, threads=1).simulation(topology, system, seed)
    start_disordered(simulation, TEMPERATURE, seed)
    return diffsim.StatePoint(simulation, pair)


members = [np.flatnonzero(t == TYPES) for t in (0, 1)]
rdfs = [
    diffsim.RDF(CUTOFF, 100, atoms=members[a], atoms2=members[b])
    for a, b in ((0, 0), (0, 1), (1, 1))
]
truth = diffsim.LennardJones(SIGMA, EPSILON, CUTOFF, r_min=0.24, n_types=2)
samples = liquid_of(truth, 1).sample(20_000, 50, rdfs, equilibration=2000)
measured = [samples.estimate(rdf) for rdf in rdfs]

pair = diffsim.SplinePair(r_min=0.25, cutoff=CUTOFF, knots=40, n_types=2)
for index, (rdf, m) in enumerate(zip(rdfs, measured, strict=True)):
    diffsim.boltzmann_inversion(pair, rdf.r, m.value, TEMPERATURE, pair=index)
liquid = liquid_of(pair, 2)
targets = [
    diffsim.Target(liquid, rdf, rdf.r, m.value, uncertainty=m.standard_error)
    for rdf, m in zip(rdfs, measured, strict=True)
]
fit = diffsim.Refinement(pair, targets)
fit.run(rounds=8, steps=4000, every=50)

r = np.linspace(0.34, 0.75, 50)
u, error = fit.potential_table(r)
deviation = u - truth.energy(r).detach().numpy()
print(f"rms of g(r) {fit.summary()['rdf_rms']:.4f}, of u(r) {np.std(deviation):.3f} kJ/mol")
assert fit.summary()["rdf_rms"] < 0.03
assert np.mean(np.abs(deviation) < 3 * error) > 0.9
