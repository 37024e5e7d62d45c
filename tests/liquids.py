"""Small Lennard-Jones fluids for the tests of the refinement, in argon's units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app

import openmm_diffsim as diffsim
from openmm_diffsim.units import MOLAR_GAS_CONSTANT

Array = NDArray[np.float64]

SIGMA, EPSILON, MASS = 0.34, 0.996, 39.948  # nm, kJ/mol, amu
TAU = SIGMA * (MASS / EPSILON) ** 0.5  # ps
CUTOFF = 2.0 * SIGMA


def kelvin(reduced: float) -> float:
    """A reduced temperature kT/epsilon in K."""
    return reduced * EPSILON / MOLAR_GAS_CONSTANT


def lennard_jones(sigma: float = SIGMA, epsilon: float = EPSILON, **options: Any) -> Any:
    """The truth of most tests: cut off, and switched, at 2 sigma."""
    return diffsim.LennardJones(
        sigma,
        epsilon,
        options.pop("cutoff", CUTOFF),
        0.8 * SIGMA,
        options.pop("knots", 40),
        **options,
    )


def box_length(n: int, density: float) -> float:
    """Edge, nm, of a cubic box of n particles at a reduced density."""
    return SIGMA * float((n / density) ** (1 / 3))


def lattice(n: int, length: float, seed: int) -> Array:
    """n points near those of a cubic lattice, in random order, [n, 3]."""
    rng = np.random.default_rng(seed)
    m = int(np.ceil(n ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(m)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    chosen = rng.permutation(len(grid))[:n]
    return (grid[chosen] + 0.5 + rng.uniform(-0.05, 0.05, (n, 3))) * (length / m)


def simulation(
    potential: diffsim.PairPotential,
    n: int = 100,
    density: float = 0.6,
    temperature: float = 1.5,
    seed: int = 1,
    platform: str = "CPU",
    types: Any = None,
    prepare: Callable[[openmm.System], None] | None = None,
    step: float = 0.01,
    friction: float = 1.0,
) -> app.Simulation:
    """A disordered fluid with the potential attached; all but the platform in reduced units.

    ``prepare`` may change the System before the potential is attached.
    """
    length = box_length(n, density)
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*(np.eye(3) * length))
    for _ in range(n):
        system.addParticle(MASS)
    if prepare is not None:
        prepare(system)
    t = kelvin(temperature)
    potential.attach(system, types=types, temperature=t)
    integrator = openmm.LangevinMiddleIntegrator(t, friction / TAU, step * TAU)
    integrator.setRandomNumberSeed(seed)
    topology = app.Topology()
    chain = topology.addChain()
    for _ in range(n):
        topology.addAtom("Ar", None, topology.addResidue("Ar", chain))
    properties = {"Threads": "1"} if platform == "CPU" else {}
    sim = app.Simulation(
        topology, system, integrator, openmm.Platform.getPlatform(platform), properties
    )
    sim.context.setPositions(lattice(n, length, seed))
    sim.context.setVelocitiesToTemperature(t, seed)
    return sim
