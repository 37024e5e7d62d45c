"""Small networks and their fluids, for tests."""

import math
from typing import Any

import numpy as np
import openmm
import torch
from systems import TEMPERATURE, argon, empty_system, langevin, lattice, simulate
from torch import Tensor, nn

from openmm_diffsim import NetworkPotential, StatePoint
from openmm_diffsim.potentials import NeighborPairs

CUTOFF = 0.6
LENGTH = 1.3


class Embedded(nn.Module):
    """U = sum_i v . tanh(W f_i), f_i smooth counts of neighbours: many-body, and small."""

    mu: Tensor

    def __init__(self, scale: float = 0.3, seed: int = 0, size: int = 5) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.cutoff = CUTOFF
        self.pairs = NeighborPairs(CUTOFF)
        self.w = nn.Parameter(
            scale * torch.randn(size, size, generator=generator, dtype=torch.float64)
        )
        self.v = nn.Parameter(scale * torch.randn(size, generator=generator, dtype=torch.float64))
        self.register_buffer("mu", torch.linspace(0.3, CUTOFF, size, dtype=torch.float64))
        self.evaluated = 0

    def forward(self, positions: Tensor, box: Tensor | None) -> Tensor:
        return self.energies(positions[None], None if box is None else box[None])[0]

    @torch.jit.export
    def energies(self, positions: Tensor, boxes: Tensor | None) -> Tensor:
        self.evaluated += len(positions)
        i, _, vectors = self.pairs.batch(positions, boxes)
        r = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        near = torch.exp(-(((r - self.mu) / 0.06) ** 2))
        counts = near * 0.5 * (1 + torch.cos(math.pi * r / self.cutoff))
        shape = (positions.shape[0] * positions.shape[1], len(self.mu))
        features = torch.zeros(shape, dtype=positions.dtype).index_add(0, i, counts)
        return (torch.tanh(features @ self.w) @ self.v).reshape(len(positions), -1).sum(dim=1)


def embedded(scale: float = 0.3, seed: int = 0) -> NetworkPotential:
    """An ``Embedded`` on a fixed Lennard-Jones prior."""
    return NetworkPotential(Embedded(scale, seed), prior=argon(CUTOFF).requires_grad_(False))


def fluid(
    potential: Any,
    n_atoms: int = 27,
    length: float = LENGTH,
    seed: int = 1,
    pressure: float | None = None,
    temperature: float = TEMPERATURE,
    forces: tuple[openmm.Force, ...] = (),
    platform: str = "Reference",
    **attached: Any,
) -> StatePoint:
    """A warm fluid in a cubic box, run by a potential."""
    box = np.eye(3) * length
    system = empty_system(n_atoms, box)
    for force in forces:
        system.addForce(force)
    potential.attach(system, **attached)
    if pressure is not None:
        barostat = openmm.MonteCarloBarostat(pressure, temperature, 5)
        barostat.setRandomNumberSeed(seed)
        system.addForce(barostat)
    positions = lattice(n_atoms, box, 0.02, seed)
    simulation = simulate(system, positions, langevin(temperature, seed), platform)
    return StatePoint(simulation, potential)
