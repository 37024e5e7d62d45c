"""The loop by hand: reweighted averages with gradients, and torch's own optimizer.

Sigma and epsilon of a Lennard-Jones gas are recovered from its g(r).
"""

import torch

import openmm_diffsim as diffsim
from openmm_diffsim.fluid import Dynamics, fluid, start_disordered

TEMPERATURE, CUTOFF = 150.0, 0.9  # K, nm


def liquid_of(pair, seed):
    topology, system = fluid(200, number_density=8.0, mass=39.948)
    pair.attach(system)
    simulation = Dynamics(TEMPERATURE, timestep=0.01, threads=1).simulation(topology, system, seed)
    start_disordered(simulation, TEMPERATURE, seed)
    return diffsim.StatePoint(simulation, pair)


rdf = diffsim.RDF(r_max=CUTOFF, bins=90)
truth = diffsim.LennardJones(sigma=0.34, epsilon=1.0, cutoff=CUTOFF)
g_measured = liquid_of(truth, 1).sample(20_000, 50, [rdf], equilibration=2000).estimate(rdf).value
g_measured = torch.from_numpy(g_measured)

pair = diffsim.LennardJones(sigma=0.36, epsilon=0.7, cutoff=CUTOFF, r_min=0.27)
liquid = liquid_of(pair, 2)
optimizer = torch.optim.Adam(
    [{"params": [pair.sigma], "lr": 0.002}, {"params": [pair.epsilon], "lr": 0.03}]
)
samples = None
for _ in range(60):
    if samples is None or samples.n_effective() < 0.7 * len(samples):  # overlap is running out
        samples = liquid.sample(5_000, 50, [rdf], equilibration=500)
    optimizer.zero_grad()
    loss = ((samples.average(rdf) - g_measured) ** 2).mean()  # differentiable by reweighting
    loss.backward()
    optimizer.step()

gradient, error = samples.gradient(lambda s: ((s.average(rdf) - g_measured) ** 2).mean())
print(f"sigma {pair.sigma.item():.4f} nm, epsilon {pair.epsilon.item():.3f} kJ/mol")
print(f"gradient of the loss: {gradient} +- {error}")
assert abs(pair.sigma.item() - 0.34) < 0.003
assert abs(pair.epsilon.item() - 1.0) < 0.1
