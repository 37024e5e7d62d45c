"""Neighbour lists in torch, by the library vesin: linear in the number of particles."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import PotentialError


class NeighborPairs(nn.Module):
    """All pairs of particles closer than a cutoff, periodic images included.

    Boxes may be triclinic and of any size: a pair comes once for each of its images in range. It
    can be compiled by ``torch.jit.script``.

    Parameters
    ----------
    cutoff : float
        nm.
    full : bool
        Each pair twice, as (i, j) and (j, i)? Otherwise once.

    Raises
    ------
    PotentialError
        If the cutoff is not positive, vesin_torch is not there (conda-forge has none) or, when
        called, a box is not finite.
    """

    def __init__(self, cutoff: float, full: bool = True) -> None:
        super().__init__()
        if not 0 < cutoff < float("inf"):
            raise PotentialError(f"cutoff: expected a positive number of nm, got {cutoff}")
        self.cutoff = float(cutoff)
        try:
            from vesin_torch import NeighborList  # here: all else does without it
        except ImportError as error:
            raise PotentialError(
                f"NeighborPairs finds pairs by vesin_torch ({error}): pip install vesin-torch"
            ) from error
        self._list = NeighborList(self.cutoff, full)

    def extra_repr(self) -> str:
        """The cutoff, for ``repr``."""
        return f"cutoff={self.cutoff:g}"

    def forward(self, positions: Tensor, box: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Indices i and j, int64 [pairs], and x_j - x_i to the image in range, [pairs, 3].

        Parameters
        ----------
        positions : Tensor [particles, 3], nm
            Anywhere: they need not lie in the box.
        box : Tensor [3, 3], nm, or None
            Rows a, b, c.

        The vectors, nm, are differentiable with respect to positions and box.
        """
        i, j, shifts = self._find(positions, box)
        vectors = positions[j] - positions[i]
        if box is not None:
            vectors = vectors + shifts @ box
        return i, j, vectors

    @torch.jit.export
    def batch(self, positions: Tensor, boxes: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The pairs of several frames, as one graph of frames * particles.

        Parameters
        ----------
        positions : Tensor [frames, particles, 3], nm
        boxes : Tensor [frames, 3, 3], nm, or None

        Returns
        -------
        i, j, vectors as of ``forward``; particle p of frame f has the index f * particles + p.
        """
        n = positions.shape[1]
        firsts, seconds, vectors = [], [], []
        for frame in range(positions.shape[0]):
            box = None if boxes is None else boxes[frame]
            i, j, vector = self.forward(positions[frame], box)
            firsts.append(i + frame * n)
            seconds.append(j + frame * n)
            vectors.append(vector)
        return torch.cat(firsts), torch.cat(seconds), torch.cat(vectors)

    def _find(self, positions: Tensor, box: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        cell = torch.zeros(3, 3, dtype=positions.dtype, device=positions.device)
        if box is not None:
            cell = box.detach()
        if not bool(torch.isfinite(cell).all()):
            raise PotentialError("the box is not finite: the simulation exploded")
        found = self._list.compute(positions.detach(), cell, box is not None, "ijS")
        return found[0], found[1], found[2].to(positions.dtype)
