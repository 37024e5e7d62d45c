"""An MD step of a neural pair potential, by its spline, over that of a plain spline.

    taskset -c 1 python benchmarks/neural_pair_step.py

Lennard-Jones density and cutoff, CPU platform, one thread; stretches of MD take turns, medians. The
neural potential has 288 knots, the plain one 60.
"""

from __future__ import annotations

import time
from statistics import median

import numpy as np
import openmm
import torch
from lennard_jones import CUTOFF, DT, MASS, SIGMA, TEMPERATURE

import openmm_diffsim as diffsim
from openmm_diffsim.potentials import PairPotential

DENSITY = 0.8 / SIGMA**3
ROUNDS = 31


def neural() -> diffsim.NeuralPair:
    """Weights of the size that training gives."""
    pair = diffsim.NeuralPair(0.8 * SIGMA, CUTOFF, SIGMA, 4.0, knots=288)
    with torch.no_grad():
        pair.network[-1].weight.mul_(100)
    return pair


def context_of(pair: PairPotential, n: int) -> openmm.Context:
    system = openmm.System()
    box = (n / DENSITY) ** (1 / 3)
    system.setDefaultPeriodicBoxVectors(*(box * np.eye(3)))
    for _ in range(n):
        system.addParticle(MASS)
    pair.attach(system, backend="native")
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 1.0, DT)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(
        system, integrator, openmm.Platform.getPlatform("CPU"), {"Threads": "1"}
    )
    side = int(np.ceil(n ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    context.setPositions((grid[:n] + 0.5) * box / side)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=20)
    context.setVelocitiesToTemperature(TEMPERATURE, 1)
    integrator.step(500)
    return context


def main() -> None:
    pair = neural()
    plain = diffsim.SplinePair(0.8 * SIGMA, CUTOFF, 60)
    table = pair.energy(plain.basis.centers)[0].detach()
    with torch.no_grad():  # the same fluid
        plain.values.copy_(plain.basis.interpolate(table)[None])
    print(f"{pair.basis.knots} knots; {pair.table_error(TEMPERATURE)}")
    for n in (864, 4000):
        contexts = [context_of(potential, n) for potential in (pair, plain)]
        times: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            for context, taken in zip(contexts, times, strict=True):
                start = time.perf_counter()
                context.getIntegrator().step(100 if n < 2000 else 30)
                context.getState()
                taken.append(time.perf_counter() - start)
        ratio = median(a / b for a, b in zip(*times, strict=True))
        print(f"N = {n}: step of NeuralPair {ratio:.3f} x step of a plain spline", flush=True)


if __name__ == "__main__":
    main()
