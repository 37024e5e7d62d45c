"""Small systems, boxes and numerical derivatives that several tests share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import app, unit
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from openmm_diffsim import LennardJones, PairPotential
from openmm_diffsim.potentials import SplineBasis, pair_index
from openmm_diffsim.statistics.kernels import pair_blocks

Array = NDArray[np.float64]

SIGMA, EPSILON, MASS = 0.34, 0.996, 39.948  # argon: nm, kJ/mol, amu
TEMPERATURE = 120.0  # K; kT = 1.002 epsilon

BOXES: dict[str, Array] = {
    "cubic": np.diag([2.0, 2.0, 2.0]),
    "orthorhombic": np.diag([1.7, 2.1, 2.6]),
    "skewed": np.array([[1.9, 0.0, 0.0], [0.9, 2.0, 0.0], [-0.8, 0.7, 2.2]]),
    "dodecahedron": 2.2 * np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0.5**0.5]]),
    "octahedron": 2.2
    * np.array([[1, 0, 0], [1 / 3, 8**0.5 / 3, 0], [-1 / 3, 2**0.5 / 3, 6**0.5 / 3]]),
}


class FreePair(PairPotential):
    """Every coefficient is a parameter, with nothing to keep it in bounds."""

    def __init__(self, basis: SplineBasis, n_types: int = 1, seed: int | None = None) -> None:
        super().__init__(basis, n_types)
        c = np.zeros((self.n_pairs, basis.n_coefficients))
        if seed is not None:
            c += np.random.default_rng(seed).normal(size=c.shape)
        self.c = nn.Parameter(torch.from_numpy(c))

    def unbound_coefficients(self, temperature: float | None = None) -> Tensor:
        return self.c * 1.0


def argon(cutoff: float = 0.6, knots: int = 30, **arguments: Any) -> LennardJones:
    """A Lennard-Jones potential whose force costs little."""
    return LennardJones(SIGMA, EPSILON, cutoff=cutoff, knots=knots, **arguments)


def topology(n_atoms: int, names: Sequence[str] = ("Ar",)) -> app.Topology:
    """Molecules of the named atoms, one after the other, without bonds."""
    top = app.Topology()
    chain = top.addChain()
    for index in range(n_atoms):
        if index % len(names) == 0:
            residue = top.addResidue("MOL", chain)
        top.addAtom(names[index % len(names)], app.Element.getBySymbol("Ar"), residue)
    return top


def empty_system(n_atoms: int, box: Array, mass: float = MASS) -> openmm.System:
    """Particles in a box, with no force."""
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*box)
    for _ in range(n_atoms):
        system.addParticle(mass)
    return system


def lattice(n_atoms: int, box: Array, jitter: float = 0.0, seed: int = 0) -> Array:
    """A simple cubic lattice (in the box's own coordinates), each point moved a little, nm."""
    side = int(np.ceil(n_atoms ** (1 / 3) - 1e-9))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    rng = np.random.default_rng(seed)
    return (grid[:n_atoms] + 0.5) / side @ box + jitter * rng.uniform(-1, 1, (n_atoms, 3))


def langevin(temperature: float = TEMPERATURE, seed: int = 1) -> openmm.Integrator:
    """A seeded Langevin integrator that equilibrates argon within a few hundred steps."""
    integrator = openmm.LangevinMiddleIntegrator(temperature, 5.0, 0.004)
    integrator.setRandomNumberSeed(seed)
    return integrator


def simulate(
    system: openmm.System,
    positions: Array,
    integrator: openmm.Integrator | None = None,
    platform: str = "Reference",
    top: app.Topology | None = None,
) -> app.Simulation:
    """A Simulation on a named platform, with positions and seeded velocities set."""
    properties = {"Threads": "1"} if platform == "CPU" else {}
    simulation = app.Simulation(
        top or topology(len(positions)),
        system,
        integrator or langevin(),
        openmm.Platform.getPlatform(platform),
        properties,
    )
    simulation.context.setPositions(positions)
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, 1)
    return simulation


def argon_simulation(
    potential: PairPotential,
    n_atoms: int = 27,
    length: float = 1.3,
    integrator: openmm.Integrator | None = None,
    platform: str = "Reference",
    forces: Sequence[openmm.Force] = (),
) -> app.Simulation:
    """A warm fluid of argon in a cubic box, with the potential attached."""
    box = np.eye(3) * length
    system = empty_system(n_atoms, box)
    for force in forces:
        system.addForce(force)
    potential.attach(system)
    return simulate(system, lattice(n_atoms, box, 0.02), integrator, platform)


def context_of(system: openmm.System, positions: Array, platform: str) -> openmm.Context:
    """A Context on a named platform with positions set."""
    properties = {"Threads": "1"} if platform == "CPU" else {}
    context = openmm.Context(
        system,
        openmm.VerletIntegrator(0.001),
        openmm.Platform.getPlatform(platform),
        properties,
    )
    context.setPositions(positions)
    return context


def energy_and_forces(context: openmm.Context) -> tuple[float, Array]:
    """Potential energy, kJ/mol, and forces [particles, 3], kJ/mol/nm."""
    state = context.getState(getEnergy=True, getForces=True)
    return (
        float(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)),
        np.array(
            state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
        ),
    )


def brute_force_pairs(positions: Array, box: Array | None, r_max: float) -> dict[Any, Array]:
    """The displacement r_i - r_j of every pair i < j closer than r_max, by trying all images."""
    shifts = np.zeros((1, 3))
    if box is not None:
        inverse = np.linalg.inv(box)
        positions = positions - np.floor(positions @ inverse) @ box
        around = np.arange(-2, 3)
        shifts = np.stack(np.meshgrid(around, around, around), axis=-1).reshape(-1, 3) @ box
    found = {}
    for i in range(len(positions)):
        for j in range(i + 1, len(positions)):
            images = positions[i] - positions[j] + shifts
            nearest = images[np.argmin(np.sum(images**2, axis=1))]
            if np.linalg.norm(nearest) < r_max:
                found[i, j] = nearest
    return found


def direct_sums(
    basis: SplineBasis,
    positions: Array,
    box: Array | None,
    n_types: int = 1,
    types: Sequence[int] | None = None,
    exclusions: Sequence[tuple[int, int]] = (),
) -> tuple[Array, Array]:
    """S_k [pairs of types, coefficients], and dS_k/dx [pairs, coefficients, particles, 3]."""
    kinds = np.zeros(len(positions), dtype=int) if types is None else np.asarray(types)
    excluded = {frozenset(pair) for pair in exclusions}
    index = pair_index(n_types)
    sums = np.zeros((index.max() + 1, basis.n_coefficients))
    slopes = np.zeros((*sums.shape, len(positions), 3))
    for block in pair_blocks(positions, box, basis.cutoff):
        values, derivatives = basis.values(block.distance), basis.derivatives(block.distance)
        for m, (i, j) in enumerate(zip(block.i, block.j, strict=True)):
            if min(kinds[i], kinds[j]) < 0 or frozenset((i, j)) in excluded:
                continue
            pair = index[kinds[i], kinds[j]]
            along = derivatives[m][:, None] * block.displacement[m] / block.distance[m]
            sums[pair] += values[m]
            slopes[pair, :, i] += along
            slopes[pair, :, j] -= along
    return sums, slopes


def numerical_derivative(function: Callable[[Array], Any], x: Array, step: float = 1e-4) -> Array:
    """df/dx by a five-point difference, shape [*f, len(x)]; steps are relative to |x| + 0.01."""
    columns = []
    for k in range(len(x)):
        h = step * (abs(x[k]) + 0.01)
        unit_vector = np.eye(len(x))[k] * h
        near = np.subtract(function(x + unit_vector), function(x - unit_vector))
        far = np.subtract(function(x + 2 * unit_vector), function(x - 2 * unit_vector))
        columns.append((8 * near - far) / (12 * h))
    return np.stack(columns, axis=-1)


def assert_parameter_gradient(
    module: nn.Module, function: Callable[[], Tensor], rtol: float = 1e-6, step: float = 1e-4
) -> None:
    """The gradient that autograd gives equals differences of the same scalar function.

    An entry that is small against the largest one is compared at 1e-3 rtol of the largest.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    start = parameters_to_vector(parameters).detach().numpy().copy()
    parts = torch.autograd.grad(function(), parameters)
    gradient = np.concatenate([part.numpy().ravel() for part in parts])

    def value(x: Array) -> float:
        with torch.no_grad():
            vector_to_parameters(torch.from_numpy(x), parameters)
            return float(function())

    expected = numerical_derivative(value, start, step)
    vector_to_parameters(torch.from_numpy(start), parameters)
    assert np.abs(expected).max() > 0, "the function does not depend on the parameters"
    atol = 1e-3 * rtol * float(np.abs(expected).max())
    np.testing.assert_allclose(gradient, expected, rtol=rtol, atol=atol)
