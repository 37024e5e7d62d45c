"""Histograms of distances that have a derivative: each distance falls into bins as a Gaussian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..curve import Axis, Curve
from ..errors import ObservableError
from ..limits import checked_whole
from ..statistics.kernels import largest_range
from ..statistics.smeared import smeared_counts, smeared_gradient
from ..units import number_in_md_units
from .arguments import at_least, check_atoms
from .base import Array, IntArray
from .plausible import check_rdf
from .segment import Segment, SegmentObservable, pick
from .site import Place
from .structure import RDF

_SPREAD = 6.0  # widths to either side that a Gaussian is spread over: all but 2e-9 of it
_TAIL = 4.0  # widths beyond r_max to which pairs are looked for: at most 3e-5 of each is left out


class SmoothRDF(SegmentObservable):
    """Radial distribution function along a segment, in bins smeared so that it has a derivative.

    The mean over steps 0, ``every``, 2 ``every`` ... of

        g_b = V / (N_pairs V_b) sum over pairs of w_b(r_ij),
        w_b(r) = Phi((e - r) / width) - Phi((-e - r) / width), e from r_b to r_{b+1},

    with Phi the normal distribution function, so that each pair counts as a Gaussian about its
    minimum-image distance, reflected at r = 0. The shells are smeared in the same way,

        V_b = integral 4 pi r^2 w_b(r) dr = 4 pi/3 [e^3 + 3 width^2 e], e from r_b to r_{b+1},

    and an ideal gas gives 1 in expectation (to 1e-4 in the last bins: pairs are looked for to
    4 widths beyond r_max). For width to 0 it is ``RDF(..., intramolecular=True)``: all pairs of the
    selection count, those within a molecule too.

    It is here to compare differentiation along trajectories (Wang, Axelrod and Gomez-Bombarelli,
    arXiv:2003.00868; Wang et al., arXiv:2209.07679) with reweighting; as a target, ``RDF`` is
    sharper, costs less and has no derivative that grows with the length of the segment. The code of
    those papers evaluates Gaussians at the centres of bins and divides by their own total, which
    makes the mean of g over the sphere 1; this one divides by the number of pairs in the box.

    Parameters
    ----------
    r_max : float or Quantity
        Upper edge, nm; r_max + 4 width must be at most half the box.
    bins : int
        Number of equal bins from r = 0.
    steps : int
        Length of the segment.
    every : int
        Steps from one measured configuration to the next.
    atoms : sequence of int, optional
        Default all particles.
    width : float or Quantity, optional
        Standard deviation, nm. Default: that of one bin.
    **options
        As ``SegmentObservable``.

    Attributes
    ----------
    bins : SmoothBins
    edges : array [bins + 1], nm
    r : array [bins], nm, bin centres

    Raises
    ------
    ObservableError
        If an argument is out of range.
    """

    symbol = "g(r)"
    rules = RDF.rules
    tends_to = 1.0
    shift = 1.0

    def __init__(
        self,
        r_max: Any,
        bins: int,
        steps: int,
        every: int = 1,
        atoms: ArrayLike | None = None,
        width: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(steps, **options)
        self.bins = SmoothBins.of(r_max, bins, width)
        self.n_values = len(self.r)
        self.every = at_least(1, "every", every)
        self.atoms = check_atoms(atoms)

    def check(self, curve: Curve, place: Place | None = None) -> None:
        """Raise TargetError where it is no g(r), or none of this density; see ``check_rdf``."""
        known = None if place is None else place.number_density(self.atoms)
        check_rdf(curve, known, self.edges[-1])

    def axis(self, timestep: float) -> Axis:
        """The bin centres."""
        return self.rules.axis(self.r)

    @property
    def edges(self) -> Array:
        """Edges of the bins, nm, shape [bins + 1]."""
        return self.bins.edges

    @property
    def r(self) -> Array:
        """Bin centres, nm, shape [bins]."""
        return self.bins.centres

    @property
    def shells(self) -> Array:
        """Volumes of the smeared shells, nm^3, shape [bins]."""
        return 4 * np.pi / 3 * np.diff(self.edges**3 + 3 * self.bins.width**2 * self.edges)

    def reach(self) -> IntArray:
        """The last measured step, for each value."""
        return np.full(self.n_values, self.steps - self.steps % self.every, dtype=np.int64)

    def measure(self, segment: Segment) -> Tensor:
        """g(r) of a segment, shape [..., bins].

        Raises
        ------
        ObservableError
            If the segment is too short, lacks a chosen atom, has no box, one that is too small, or
            no pair.
        """
        x = pick(segment.first(self.steps).positions, self.atoms)[..., :: self.every, :, :]
        box = self._check_box(segment.box)
        n = x.shape[-2]
        if n < 2:
            raise ObservableError("SmoothRDF: the selection holds no pair to count", n_pairs=0)
        counts = [self.bins.count_pairs(frame, box) for frame in x.reshape(-1, n, 3)]
        mean = torch.stack(counts).reshape(*x.shape[:-2], -1).mean(dim=-2)
        n_pairs = n * (n - 1) / 2
        return mean * torch.from_numpy(np.prod(np.diag(box)) / (n_pairs * self.shells))

    def _check_box(self, box: Array | None) -> Array:
        if box is None:
            raise ObservableError("SmoothRDF: needs a periodic box, the segment has none")
        limit = largest_range(box)
        if self.bins.reach > limit + 1e-9:
            raise ObservableError(
                f"SmoothRDF: r_max + {_TAIL:g} width = {self.bins.reach:.4f} nm, but half the box "
                f"is {limit:.4f} nm; take a larger box or a smaller r_max or width",
                r_max=float(self.edges[-1]),
                limit=limit,
            )
        return box


@dataclass(frozen=True)
class SmoothBins:
    """Equal bins from zero, into which a distance falls as a Gaussian reflected at zero."""

    edges: Array  # [bins + 1], nm
    width: float  # nm, standard deviation

    @staticmethod
    def of(r_max: Any, bins: int, width: Any) -> SmoothBins:
        high = number_in_md_units(r_max, "length")
        bins = checked_whole("bins", bins, ObservableError)
        sigma = high / bins if width is None else number_in_md_units(width, "length")
        if not (0 < high < np.inf and 0 < sigma < np.inf):
            raise ObservableError(
                f"expected r_max > 0 and width > 0, got r_max = {high} nm, width = {sigma} nm"
            )
        return SmoothBins(np.linspace(0.0, high, bins + 1), sigma)

    @property
    def centres(self) -> Array:
        return 0.5 * (self.edges[1:] + self.edges[:-1])

    @property
    def reach(self) -> float:
        """Longest distance that counts, nm."""
        return float(self.edges[-1] + _TAIL * self.width)

    def count(self, distances: Tensor) -> Tensor:
        """What falls into each bin, [..., bins], of distances [..., n].

        Only the bins that a Gaussian reaches are evaluated; one below zero, number -1 - b, is the
        mirror image of bin b.
        """
        n_bins, spacing = len(self.edges) - 1, float(self.edges[1])
        n_reached = int(np.ceil(2 * _SPREAD * self.width / spacing)) + 1
        lowest = torch.floor((distances.detach() - _SPREAD * self.width) / spacing)
        edge = lowest.long()[..., None] + torch.arange(n_reached + 1)
        below = torch.erf((edge * spacing - distances[..., None]) / (2**0.5 * self.width))
        parts = 0.5 * below.diff(dim=-1)
        bins = edge[..., :-1]
        bins = torch.where(bins < 0, -1 - bins, bins).clamp(max=n_bins)  # the last: beyond r_max
        counts = parts.new_zeros(*distances.shape[:-1], n_bins + 1)
        counts = counts.scatter_add(-1, bins.flatten(start_dim=-2), parts.flatten(start_dim=-2))
        return counts[..., :-1]

    def count_pairs(self, positions: Tensor, box: Array) -> Tensor:
        """What falls into each bin, [bins], of the pairs of positions [particles, 3] in a box."""
        return _PairCounts.apply(self, positions, box)  # type: ignore[no-untyped-call]


class _PairCounts(torch.autograd.Function):
    """Pairs are found again in the backward pass: kept are the positions alone."""

    @staticmethod
    def forward(ctx: Any, bins: SmoothBins, positions: Tensor, box: Array) -> Tensor:
        ctx.bins, ctx.box = bins, box
        ctx.save_for_backward(positions)
        spacing, n_bins = float(bins.edges[1]), len(bins.edges) - 1
        x = positions.numpy(force=True)
        counts = smeared_counts(x, box, bins.reach, spacing, bins.width, n_bins)
        return torch.from_numpy(counts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[None, Tensor, None]:
        (positions,) = ctx.saved_tensors
        bins, x = ctx.bins, positions.numpy(force=True)
        spacing = float(bins.edges[1])
        gradient = smeared_gradient(
            x, ctx.box, bins.reach, spacing, bins.width, slopes.contiguous().numpy()
        )
        return None, torch.from_numpy(gradient), None
