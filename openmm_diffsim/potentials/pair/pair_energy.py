"""A pair potential evaluated in torch, pair by pair."""

from typing import Any

import torch
from torch import Tensor, nn

from ..network.neighbors import NeighborPairs
from .basis import pair_index


class PairEnergy(nn.Module):
    """U(x) = sum over pairs of u(r), with a graph to positions, box and the potential's parameters.

    Where the potential has a closed form, u is this form, switched at the cutoff; else u is the
    spline. Below ``r_min`` it is the straight line of the spline, as what else runs the potential
    has it, and finite down to r = 0, where a pair exerts no force. Twice differentiable, and
    ``torch.jit.script`` compiles it if it compiles the potential's ``closed_form`` and
    ``spline_coefficients``.

    Parameters
    ----------
    pair : PairPotential
    temperature : float, optional
        K, for a temperature-dependent potential.

    Raises
    ------
    PotentialError
        If the potential depends on temperature and none is given.
    """

    __constants__ = ("has_closed_form",)
    pair_of_types: Tensor

    def __init__(self, pair: Any, temperature: float | None = None) -> None:
        super().__init__()
        pair.spline_coefficients(temperature)
        self.pair = pair
        self.temperature = temperature
        self.has_closed_form = pair.has_closed_form
        self.n_types = pair.n_types
        self.cutoff = pair.basis.cutoff
        self.r_min = pair.basis.r_min
        self.spacing = pair.basis.spacing
        self.neighbors = NeighborPairs(self.cutoff, full=False)
        index = torch.from_numpy(pair_index(pair.n_types))
        self.register_buffer("pair_of_types", index, persistent=False)

    def forward(self, positions: Tensor, box: Tensor | None, types: Tensor) -> Tensor:
        """Energy, kJ/mol, of positions [particles, 3] and box [3, 3] in nm, types [particles]."""
        i, j, vectors = self.neighbors(positions, box)
        return self._of_pairs(vectors, types[i], types[j]).sum()

    @torch.jit.export
    def energies(self, positions: Tensor, boxes: Tensor | None, types: Tensor) -> Tensor:
        """Energy of each frame, kJ/mol, [frames]; boxes [frames, 3, 3], the same types in all."""
        n = positions.shape[1]
        i, j, vectors = self.neighbors.batch(positions, boxes)
        energies = self._of_pairs(vectors, types[i % n], types[j % n])
        frames = torch.zeros(positions.shape[0], dtype=energies.dtype, device=energies.device)
        return frames.index_add(0, i // n, energies)

    def _of_pairs(self, vectors: Tensor, type_i: Tensor, type_j: Tensor) -> Tensor:
        squares = vectors.square().sum(dim=1)
        apart = squares > 0  # the slope of a length at zero is none, and its own slope no number
        r = torch.where(apart, torch.where(apart, squares, 1.0).sqrt(), 0.0)
        row = self.pair_of_types[type_i, type_j]
        c = self.pair.spline_coefficients(self.temperature)
        if not self.has_closed_form:
            return self._spline(c, r, row)
        form = self.pair.switched_form(r.clamp(min=self.r_min)).gather(0, row[None])[0]
        if not bool(self.pair.is_learned.all()):  # what is given is a spline
            form = torch.where(self.pair.is_learned[row], form, self._spline(c, r, row))
        return torch.where(r < self.r_min, self._line(c, r, row), form)

    def _line(self, c: Tensor, r: Tensor, row: Tensor) -> Tensor:
        """The spline's straight continuation below r_min."""
        first, second = c[row, 0], c[row, 1]
        return first + (second - first) * ((r - self.r_min) / self.spacing)

    def _spline(self, c: Tensor, r: Tensor, row: Tensor) -> Tensor:
        """u(r) as ``SplineBasis.values`` defines it, from the four coefficients around each r."""
        below = 2 * c[:, :1] - c[:, 1:2]
        padded = torch.cat([below, c, torch.zeros_like(c[:, :3])], dim=1)
        last = padded.shape[1] - 4
        x = (r - self.r_min) / self.spacing
        cell = x.detach().floor().clamp(0, last)
        t = x - cell
        first = row * padded.shape[1] + cell.long()
        flat = padded.reshape(-1)
        cubic = (
            flat[first] * (1 - t) ** 3
            + flat[first + 1] * (3 * t**3 - 6 * t**2 + 4)
            + flat[first + 2] * (-3 * t**3 + 3 * t**2 + 3 * t + 1)
            + flat[first + 3] * t**3
        ) / 6
        inside = torch.where(x < 0, self._line(c, r, row), cubic)
        return torch.where(r < self.cutoff, inside, 0.0)
