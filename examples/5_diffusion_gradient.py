"""How a diffusion coefficient depends on the force: its gradient, and a check by brute force.

The derivative with respect to sigma has two terms, how segments move and how their starting points
are distributed; both come from one simulation.
"""

import numpy as np

import openmm_diffsim as diffsim
from openmm_diffsim.fluid import Dynamics, fluid, start_disordered

TEMPERATURE, SIGMA, EPSILON = 180.0, 0.34, 1.0  # K, nm, kJ/mol
STEPS = 40  # of a segment, 0.8 ps: by then the velocities have forgotten their start


def liquid_of(sigma, seed):
    pair = diffsim.LennardJones(sigma, EPSILON, cutoff=0.85, r_min=0.27)
    topology, system = fluid(100, number_density=15.0, mass=39.948)
    pair.attach(system)
    simulation = Dynamics(TEMPERATURE, timestep=0.02, threads=1).simulation(topology, system, seed)
    start_disordered(simulation, TEMPERATURE, seed)
    return diffsim.StatePoint(simulation, pair)


liquid = liquid_of(SIGMA, seed=1)
# Most of the noise is in the starting points: one adjoint for ten segments is enough.
diffusion = diffsim.Diffusion(STEPS, gradient_every=10)
samples = liquid.sample(1500 * 50, 50, [diffusion], equilibration=5000)
average = liquid.dynamic_average(diffusion, samples)

names = [name for name, _ in liquid.potential.named_parameters()]
k = names.index("sigma")
print(f"D = {average.value[0]:.5f} +- {average.standard_error[0]:.5f} nm^2/ps")
for name, part in (("path", average.path), ("ensemble", average.ensemble), ("sum", average.total)):
    print(f"dD/dsigma, {name}: {part.value[0, k]:.4f} +- {part.standard_error[0, k]:.4f} nm/ps")
print(f"the adjoint grows by a factor e in {1 / average.growth:.2f} ps")

# By brute force: D at a larger and a smaller sigma, in other simulations.
change = 0.02 * SIGMA
values, errors = [], []
for sign in (1, -1):
    other = liquid_of(SIGMA + sign * change, seed=3 + sign)
    only_value = diffsim.Diffusion(STEPS, estimator="pathwise", gradient_every=10**6)
    found = other.sample(1000 * 50, 50, [only_value], equilibration=5000).estimate(only_value)
    values.append(found.value[0])
    errors.append(found.standard_error[0])
difference = (values[0] - values[1]) / (2 * change)
error = np.hypot(*errors) / (2 * change)
print(f"dD/dsigma by brute force: {difference:.4f} +- {error:.4f} nm/ps")

combined = np.hypot(error, average.total.standard_error[0, k])
assert combined < 0.25 * abs(difference)
assert abs(average.total.value[0, k] - difference) < 3 * combined
