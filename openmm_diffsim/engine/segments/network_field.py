"""The forces of a System that has a network: the network in torch, all other forces in OpenMM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...potentials import NetworkPotential, learned_parameters
from .fields import DifferenceContext, SystemField

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

_BATCH_PARTICLES = 4000  # evaluated at once: bounds the memory of second derivatives


class NetworkField(SystemField):
    """Forces of a network, by torch, and of all other forces, in double precision.

    Positions may be those of several segments, [segments, particles, 3], which the network is
    given at once. Its derivatives come from differentiating it twice; as nothing but positions is
    kept, each of them evaluates it again.

    Parameters
    ----------
    potential : NetworkPotential
    types : int [particles]
        -1 for those that the network does not see.
    context, coefficients, differences, box, protocol
        See ``SystemField``; the Context's forces are not asked for.
    """

    def __init__(
        self,
        potential: NetworkPotential,
        types: IntArray,
        context: openmm.Context,
        coefficients: Tensor,
        differences: DifferenceContext,
        box: Array | None,
        protocol: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(context, coefficients, differences, box, protocol)
        self.potential = potential
        self._atoms = np.flatnonzero(types >= 0)
        self._types = torch.from_numpy(types[self._atoms])

    def forces(self, positions: Array, values: Sequence[float]) -> Array:
        """Forces, of the shape of the positions."""
        frames = positions.reshape(-1, *positions.shape[-2:])
        found = np.zeros_like(frames)
        if self.differences.contribute:
            self.set_conditions(values)
            found += [self.differences.forces(x) for x in frames]
        with self._own_parameters():
            for some in self._batches(len(frames)):
                x = self._leaf(frames[some])
                found[some, self._atoms] += self._network_forces(x, create_graph=False).numpy()
        return found.reshape(positions.shape)

    def learned_products(self, positions: Array, w: Array) -> tuple[Array, Array]:
        """Derivatives of w . F with respect to positions and parameters."""
        shape = (-1, *positions.shape[-2:])
        frames, rows = positions.reshape(shape), w.reshape(shape)
        slope = np.zeros_like(frames)
        by_parameter = torch.zeros_like(self.coefficients)
        with self._own_parameters():
            for some in self._batches(len(frames)):
                x = self._leaf(frames[some])
                by_x, by_theta = self._product_slopes(x, rows[some][:, self._atoms], True)
                assert by_x is not None
                slope[some, self._atoms] = by_x.numpy()
                by_parameter = by_parameter + by_theta
        return slope.reshape(positions.shape), by_parameter.detach().numpy()

    def parameter_product(self, positions: Array, w: Array) -> Array:
        """sum_ti w_ti . dF_ti/dtheta, [1, parameters]."""
        by_parameter = torch.zeros_like(self.coefficients)
        with self._own_parameters():
            for some in self._batches(len(positions)):
                x = self._leaf(positions[some])
                by_parameter = by_parameter + self._product_slopes(x, w[some][:, self._atoms])[1]
        return by_parameter.detach().numpy()

    def _product_slopes(
        self, x: Tensor, w: Array, by_positions: bool = False
    ) -> tuple[Tensor | None, Tensor]:
        """Of w . F with respect to the positions of a batch, if asked for, and to parameters."""
        parameters: list[Tensor] = [*learned_parameters(self.potential)]
        leaves = [x, *parameters] if by_positions else parameters
        found: Sequence[Tensor | None] = [None] * len(leaves)
        with torch.enable_grad():
            product = torch.sum(torch.from_numpy(w) * self._network_forces(x, create_graph=True))
        if product.requires_grad and leaves:
            found = torch.autograd.grad(product, leaves, allow_unused=True)
        slopes = [
            torch.zeros_like(leaf) if slope is None else slope
            for leaf, slope in zip(leaves, found, strict=True)
        ]
        by_x = slopes.pop(0) if by_positions else None
        flat = [slope.reshape(-1).double() for slope in slopes]
        theta = torch.cat(flat) if flat else torch.zeros_like(self.coefficients)
        return by_x, theta

    def _network_forces(self, x: Tensor, create_graph: bool) -> Tensor:
        with torch.enable_grad():
            boxes = None
            if self.box is not None:
                boxes = torch.from_numpy(self.box).expand(len(x), 3, 3)
            energy = self.potential.energies(x, boxes, self._types).sum()
            (slope,) = torch.autograd.grad(energy, x, create_graph=create_graph)
        return -slope

    def _leaf(self, frames: Array) -> Tensor:
        return torch.from_numpy(frames[:, self._atoms]).requires_grad_(True)

    def _own_parameters(self) -> AbstractContextManager[None]:
        raise NotImplementedError

    def _batches(self, frames: int) -> Iterator[slice]:
        size = max(1, _BATCH_PARTICLES // max(1, len(self._atoms)))
        return (slice(first, first + size) for first in range(0, frames, size))
