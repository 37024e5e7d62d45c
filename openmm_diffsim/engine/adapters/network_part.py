"""The forces of a network along segments, by torch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ...potentials import NetworkPotential, call_at
from .base import IntArray
from .part import Array, FieldPart

_BATCH_PARTICLES = 4000  # evaluated at once: bounds the memory of second derivatives


class NetworkPart(FieldPart):
    """Forces of a network for several frames at once, each a function of its parameters.

    Derivatives come from differentiating it twice; as nothing but positions is kept, each of them
    evaluates it again.

    Parameters
    ----------
    potential : NetworkPotential
    types : int [particles]
        -1 for those that the network does not see.
    periodic : bool
    """

    computes_forces = True
    has_products = True

    def __init__(self, potential: NetworkPotential, types: IntArray, periodic: bool) -> None:
        super().__init__(potential.name, periodic)
        self.potential = potential
        self._atoms = np.flatnonzero(types >= 0)
        self._types = torch.from_numpy(types[self._atoms])

    def forces(self, c: Array, positions: Array, box: Array | None) -> Array:
        found = np.zeros_like(positions)
        theta = torch.from_numpy(c)
        for some, x in self._batches(positions):
            found[some, self._atoms] = self._forces(theta, x, box, create_graph=False).numpy()
        return found

    def products(
        self, c: Array, positions: Array, w: Array, box: Array | None
    ) -> tuple[Array, Array]:
        slope = np.zeros_like(positions)
        theta = torch.from_numpy(c).requires_grad_(True)
        by_theta = torch.zeros_like(theta)
        for some, x in self._batches(positions):
            by_x, more = self._slopes([x, theta], theta, x, w[some][:, self._atoms], box)
            slope[some, self._atoms] = by_x.numpy()
            by_theta = by_theta + more
        return slope, by_theta.detach().numpy()

    def parameter_product(self, c: Array, positions: Array, w: Array, box: Array | None) -> Array:
        theta = torch.from_numpy(c).requires_grad_(True)
        by_theta = torch.zeros_like(theta)
        for some, x in self._batches(positions):
            (more,) = self._slopes([theta], theta, x, w[some][:, self._atoms], box)
            by_theta = by_theta + more
        return by_theta.detach().numpy()

    def _slopes(
        self, leaves: list[Tensor], theta: Tensor, x: Tensor, w: Array, box: Array | None
    ) -> list[Tensor]:
        """Of sum w . F with respect to each of the leaves; zeros where nothing depends on it."""
        with torch.enable_grad():
            product = torch.sum(torch.from_numpy(w) * self._forces(theta, x, box, True))
        if not product.requires_grad:
            return [torch.zeros_like(leaf) for leaf in leaves]
        found = torch.autograd.grad(product, leaves, allow_unused=True)
        return [
            torch.zeros_like(leaf) if slope is None else slope
            for leaf, slope in zip(leaves, found, strict=True)
        ]

    def _forces(self, theta: Tensor, x: Tensor, box: Array | None, create_graph: bool) -> Tensor:
        boxes = None if box is None else torch.from_numpy(box).expand(len(x), 3, 3)
        with torch.enable_grad():
            energies = call_at(self.potential, theta, "energies", x, boxes, self._types)
            (slope,) = torch.autograd.grad(energies.sum(), x, create_graph=create_graph)
        return -slope

    def _batches(self, positions: Array) -> Iterator[tuple[slice, Tensor]]:
        """Some frames at a time, with the positions of what the network sees as a leaf."""
        size = max(1, _BATCH_PARTICLES // max(1, len(self._atoms)))
        for first in range(0, len(positions), size):
            some = slice(first, first + size)
            yield some, torch.from_numpy(positions[some][:, self._atoms]).requires_grad_(True)
