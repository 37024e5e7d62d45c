"""A liquid whose angles no pair potential explains: mW, a Stillinger-Weber model of water.

    U = sum_{i<j} A epsilon [B (sigma/r)^4 - 1] exp(sigma / (r - c))
        + sum_i sum_{j<k} lambda epsilon (cos theta_jik + 1/3)^2
          exp(gamma sigma / (r_ij - c) + gamma sigma / (r_ik - c)),    r < c = 1.8 sigma

Stillinger and Weber, Phys. Rev. B 31, 5262 (1985); parameters of Molinero and Moore, J. Phys. Chem.
B 113, 4008 (2009). It is here three times: as a torch module, as OpenMM's own custom forces, and
(``reference_energy``) as loops over pairs and triplets that show what the other two have to give.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import app
from torch import Tensor, nn

Array = NDArray[np.float64]

SIGMA, EPSILON = 0.23925, 6.189 * 4.184  # nm, kJ/mol
THREE_BODY, A, B, GAMMA, REACH = 23.15, 7.049556277, 0.6022245584, 1.2, 1.8
COSINE = -1 / 3  # of the tetrahedral angle
CUTOFF = REACH * SIGMA  # nm
MASS, TEMPERATURE, DENSITY = 18.015, 298.0, 0.997 * 602.214076 / 18.015  # amu, K, 1/nm^3
ENERGY = -4.184 * (10.65 - 0.592)  # kJ/mol of one molecule, from the heat of vaporisation at 298 K


class StillingerWeber(nn.Module):
    """The energy of a frame, kJ/mol, from positions [n, 3] and a reduced box [3, 3] or None, nm.

    The cutoff must not exceed half the box. Its three parameters are epsilon (kJ/mol), sigma (nm)
    and lambda; c stays where it is. TorchScript takes it.

    With the unit vectors n_j to the neighbours of a particle, b = -1/3 and
    f_j = exp(gamma sigma / (r_j - c)), the sum over its pairs of neighbours is one over neighbours:

        sum_{j<k} f_j f_k (n_j.n_k - b)^2
            = [M:M - 2 b V.V + b^2 F^2 - (1 - b)^2 sum_j f_j^2] / 2,

    M = sum_j f_j n_j n_j, V = sum_j f_j n_j, F = sum_j f_j.
    """

    def __init__(
        self, epsilon: float = EPSILON, sigma: float = SIGMA, three_body: float = THREE_BODY
    ) -> None:
        super().__init__()
        self.a, self.b, self.gamma, self.cosine = A, B, GAMMA, COSINE
        self.epsilon = nn.Parameter(torch.tensor(epsilon, dtype=torch.float64))
        self.sigma = nn.Parameter(torch.tensor(sigma, dtype=torch.float64))
        self.three_body = nn.Parameter(torch.tensor(three_body, dtype=torch.float64))
        self.cutoff = CUTOFF

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        n = positions.shape[0]
        i, j, vectors = _pairs(positions, box, self.cutoff)
        r = torch.linalg.vector_norm(vectors, dim=1)
        beyond = 1 / (r - self.cutoff)
        ratio = (self.sigma / r).pow(4)
        pairs = self.a * (self.b * ratio - 1) * torch.exp(self.sigma * beyond)
        f = torch.exp(self.gamma * self.sigma * beyond)
        unit = vectors / r[:, None]
        # To each neighbour the unit vector points the other way, which only V feels.
        centre = torch.cat([i, j])
        dyads = (f[:, None] * (unit[:, :, None] * unit[:, None, :]).flatten(1)).repeat(2, 1)
        arrows = torch.cat([f[:, None] * unit, -f[:, None] * unit])
        weights = torch.stack([f, f * f], dim=1).repeat(2, 1)
        parts = torch.cat([dyads, arrows, weights], dim=1)
        sums = torch.zeros(n, 14, dtype=parts.dtype, device=parts.device)
        sums = sums.index_add(0, centre, parts)
        m, v, total, squares = sums[:, :9], sums[:, 9:12], sums[:, 12], sums[:, 13]
        triplets = (
            m.square().sum(1)
            - 2 * self.cosine * v.square().sum(1)
            + self.cosine**2 * total.square()
            - (1 - self.cosine) ** 2 * squares
        )
        return self.epsilon * (pairs.sum() + self.three_body * triplets.sum() / 2)


def _pairs(positions: Tensor, box: Tensor | None, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs i < j closer than the cutoff, and x_j - x_i by the minimum image."""
    x = positions.detach()
    apart = [x[None, :, axis] - x[:, None, axis] for axis in range(3)]
    images = torch.zeros(3, x.shape[0], x.shape[0], dtype=x.dtype, device=x.device)
    if box is not None:
        edges = box.detach()
        for a in (2, 1, 0):
            images[a] = -torch.round(apart[a] / edges[a, a])
            for axis in range(a + 1):
                apart[axis] = apart[axis] + images[a] * edges[a, axis]
    near = apart[0].square() + apart[1].square() + apart[2].square() < cutoff**2
    i, j = torch.nonzero(near.triu(1)).unbind(1)
    vectors = positions[j] - positions[i]
    if box is not None:
        vectors = vectors + images[:, i, j].T @ box
    return i, j, vectors


def reference_energy(positions: Array, box: Array | None = None) -> float:
    """The same energy, kJ/mol, by loops over pairs and triplets."""
    images = np.zeros((1, 3))
    if box is not None:
        images = np.array(list(itertools.product(range(-3, 4), repeat=3))) @ box
    energy = 0.0
    for i, x in enumerate(positions):
        others = (np.delete(positions, i, axis=0)[:, None] + images - x).reshape(-1, 3)
        r = np.linalg.norm(others, axis=1)
        others, r = others[r < CUTOFF], r[r < CUTOFF]
        pair = A * (B * (SIGMA / r) ** 4 - 1) * np.exp(SIGMA / (r - CUTOFF))
        energy += 0.5 * EPSILON * pair.sum()  # each pair comes twice
        f = np.exp(GAMMA * SIGMA / (r - CUTOFF))
        for j, k in itertools.combinations(range(len(r)), 2):
            cosine = others[j] @ others[k] / (r[j] * r[k])
            energy += THREE_BODY * EPSILON * f[j] * f[k] * (cosine - COSINE) ** 2
    return float(energy)


def custom_forces(n: int) -> list[openmm.Force]:
    """mW as OpenMM's own forces; slow, some 20 steps a second for 216 particles."""
    values = f"; s={SIGMA!r}; c={CUTOFF!r}; epsilon={EPSILON!r}"
    pairs = openmm.CustomNonbondedForce(
        f"{A}*epsilon*({B}*(s/r)^4-1)*exp(s/min(r-c,-1e-6)){values}"
    )
    pairs.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    triplets = openmm.CustomManyParticleForce(
        3,
        f"{THREE_BODY}*epsilon*(cos(angle(p2,p1,p3))+1/3)^2"
        f"*exp({GAMMA}*s/(distance(p1,p2)-c)+{GAMMA}*s/(distance(p1,p3)-c)){values}",
    )
    triplets.setPermutationMode(openmm.CustomManyParticleForce.UniqueCentralParticle)
    triplets.setNonbondedMethod(openmm.CustomManyParticleForce.CutoffPeriodic)
    for force in (pairs, triplets):
        force.setCutoffDistance(CUTOFF)
    for _ in range(n):
        pairs.addParticle([])
        triplets.addParticle([], 0)
    return [pairs, triplets]


class Energy:
    """What a PythonForce calls: energy and forces of any ``module(positions, box)``."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, state: Any) -> tuple[float, Array]:
        x = torch.tensor(state.getPositions(asNumpy=True)._value, requires_grad=True)
        box = torch.tensor(state.getPeriodicBoxVectors(asNumpy=True)._value)
        energy = self.module(x, box)
        (slope,) = torch.autograd.grad(energy, x)
        return float(energy.detach()), -slope.numpy()


def python_force(module: nn.Module) -> openmm.PythonForce:
    """A module as a force that runs on any platform: mW at several hundred steps a second."""
    force = openmm.PythonForce(Energy(module))
    force.setUsesPeriodicBoundaryConditions(True)
    return force


def system(n: int) -> tuple[app.Topology, openmm.System, Array]:
    """Topology, System without forces, and positions near a lattice, nm, of n molecules."""
    length = (n / DENSITY) ** (1 / 3)
    made = openmm.System()
    made.setDefaultPeriodicBoxVectors(*np.eye(3) * length)
    topology = app.Topology()
    chain = topology.addChain()
    for _ in range(n):
        made.addParticle(MASS)
        topology.addAtom("O", app.Element.getBySymbol("O"), topology.addResidue("MW", chain))
    topology.setPeriodicBoxVectors(np.eye(3) * length)
    side = int(np.ceil(n ** (1 / 3) - 1e-9))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    jitter = np.random.default_rng(1).uniform(-0.1, 0.1, (n, 3))
    return topology, made, (grid[:n] + 0.5 + jitter) * length / side


def simulate(
    topology: app.Topology, made: openmm.System, positions: Array, seed: int = 1
) -> app.Simulation:
    """A Simulation of a System with its forces, at 298 K on the CPU platform."""
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 5.0, 0.005)
    integrator.setRandomNumberSeed(seed)
    platform = openmm.Platform.getPlatform("CPU")
    sim = app.Simulation(topology, made, integrator, platform, {"Threads": "1"})
    sim.context.setPositions(positions)
    sim.context.setVelocitiesToTemperature(TEMPERATURE, seed)
    return sim
