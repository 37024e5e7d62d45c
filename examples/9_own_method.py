"""A method of one's own: any minimizer of SciPy on the reweighted misfit, in place of Gauss-Newton.

A method is one function, from a view of the fit to a step, and changes nothing; the loop samples,
bounds the step, takes back what went wrong, and keeps checkpoints.
"""

import numpy as np
import torch
from scipy.optimize import minimize

import openmm_diffsim as diffsim
from openmm_diffsim.fluid import Dynamics, fluid, start_disordered


class Minimizer:
    """Minimizes over the frames at hand, within ``reach`` of the parameters, relative."""

    def __init__(self, reach=0.1):
        self.reach = reach

    def propose(self, view):
        start = view.parameters.numpy()

        def misfit(x):
            theta = torch.tensor(x, requires_grad=True)
            try:
                loss = diffsim.reweighted_loss(view.at(theta))
            except diffsim.errors.OverlapError:  # the frames do not reach there
                return 1e9, np.zeros_like(x)
            return loss.item(), torch.autograd.grad(loss, theta)[0].numpy()

        away = self.reach * np.abs(start)
        bounds = list(zip(start - away, start + away, strict=True))
        found = minimize(misfit, start, jac=True, bounds=bounds, method="L-BFGS-B")
        return diffsim.Step(found.x - start)


truth = diffsim.LennardJones(sigma=0.34, epsilon=1.0, cutoff=0.8, r_min=0.28)
pair = diffsim.LennardJones(sigma=0.33, epsilon=0.8, cutoff=0.8, r_min=0.28)


def state_point(potential):
    topology, system = fluid(200, 12.0, 39.948)
    potential.attach(system)
    simulation = Dynamics(180.0, timestep=0.01, threads=1).simulation(topology, system, seed=1)
    start_disordered(simulation, 180.0, seed=1)
    return diffsim.StatePoint(simulation, potential)


rdf = diffsim.RDF(r_max=1.0, bins=100)
g = state_point(truth).sample(20_000, 50, [rdf], equilibration=3000).estimate(rdf)
target = diffsim.Target(state_point(pair), rdf, rdf.r, g.value, uncertainty=0.005)
fit = diffsim.Refinement(pair, [target], Minimizer()).run(7, 10_000, 50, progress=False)
print(fit.summary(), pair.sigma.item(), pair.epsilon.item())
assert abs(pair.sigma.item() / 0.34 - 1) < 0.01 and abs(pair.epsilon.item() - 1) < 0.1
