"""A small network of one's own: moments of the neighbours of each particle, and their products."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openmm_diffsim.potentials.network.neighbors import NeighborPairs


class NeighborMoments(nn.Module):
    """U = sum over particles of an MLP of

        F_c F'_c,  V_c . V'_c,  M_c : M'_c  and  F_c,

    where F_c = sum_j phi_c(r_j), V_c = sum_j phi_c(r_j) n_j, M_c = sum_j phi_c(r_j) (n_j n_j - 1/3)
    are moments of the neighbours, n_j their directions, and the primes are other mixtures of the
    channels c. The products hold every energy of triplets f(r_j) f'(r_k) P(cos theta_jik) with P of
    second degree, as moment tensor potentials do (Shapeev, Multiscale Model. Simul. 14, 1153
    (2016)). A network whose messages are vectors only, such as the equivariant transformer, lacks
    the square of the cosine.

    Parameters
    ----------
    cutoff : float, nm
    channels : int
    radial : int
        Gaussians of the distance, from half the cutoff up; phi are their mixtures.
    seed : int
    scale : float
        kJ/mol, of the energy of a particle: parameters of order one should matter.
    """

    def __init__(
        self,
        cutoff: float,
        channels: int = 8,
        radial: int = 16,
        seed: int = 0,
        scale: float = 50.0,
    ) -> None:
        super().__init__()
        self.cutoff, self.channels, self.scale = cutoff, channels, scale
        self.neighbors = NeighborPairs(cutoff, full=False)
        self.register_buffer("centers", torch.linspace(0.45, 1.0, radial))
        self.sharpness = 0.8 * radial
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.phi = nn.Linear(radial, 3 * channels)
            self.mix = nn.Parameter(torch.randn(6, channels, channels) / channels**0.5)
            self.linear = nn.Linear(4 * channels, 1)
            self.mlp = nn.Sequential(
                nn.Linear(4 * channels, 2 * channels), nn.SiLU(), nn.Linear(2 * channels, 1)
            )
        with torch.no_grad():
            for layer in (self.linear, self.mlp[2]):
                layer.weight.mul_(0.01)
                layer.bias.zero_()
        self.to(torch.float64)

    def forward(self, positions: Tensor, box: Tensor | None) -> Tensor:
        """Energy, kJ/mol, of positions [particles, 3] and box [3, 3] in nm."""
        return self.energies(positions[None], None if box is None else box[None])[0]

    @torch.jit.export
    def energies(self, positions: Tensor, boxes: Tensor | None) -> Tensor:
        """Energy of each frame, kJ/mol, [frames]."""
        frames, n = positions.shape[0], positions.shape[1]
        i, j, vectors = self.neighbors.batch(positions, boxes)
        r = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        q = r / self.cutoff
        switch = (1 - q).square() * (1 + 2 * q)
        gaussians = torch.exp(-(self.sharpness * (q - self.centers)).square())
        phi = (self.phi(gaussians) * switch).reshape(-1, 3, self.channels)
        unit = vectors / r
        third = torch.eye(3, dtype=r.dtype, device=r.device) / 3
        dyads = (unit[:, :, None] * unit[:, None, :] - third).flatten(1)
        even = torch.cat([phi[:, :1], dyads[:, :, None] * phi[:, 2:]], dim=1)
        odd = unit[:, :, None] * phi[:, 1:2]
        of_i, of_j = torch.cat([even, odd], dim=1), torch.cat([even, -odd], dim=1)
        moments = torch.zeros(
            frames * n, of_i.shape[1], self.channels, dtype=r.dtype, device=r.device
        )
        moments = moments.index_add(0, i, of_i).index_add(0, j, of_j)
        products = [moments[:, 0]]
        for part, first, last in ((0, 0, 1), (1, 1, 10), (2, 10, 13)):
            m = moments[:, first:last]
            products.append(((m @ self.mix[2 * part]) * (m @ self.mix[2 * part + 1])).sum(1))
        features = torch.cat(products, dim=1)
        energy = self.scale * (self.linear(features) + self.mlp(features))
        return energy.reshape(frames, n).sum(1)
