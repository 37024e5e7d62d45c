"""A neural pair potential on a repulsive prior."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ...errors import PotentialError
from ...limits import checked_whole
from .analytic import AnalyticPair
from .base import checked

_KNOTS_PER_CENTER = 24  # a force keeps those it began with, while training makes a network steep


class NeuralPair(AnalyticPair):
    """u(r) = epsilon (sigma/r)^12 + MLP(phi(r)), phi_m(r) = exp(-(r - mu_m)^2 / (2 w^2)).

    The prior (fixed sigma and epsilon) keeps the core repulsive where no pair was ever seen; the
    network starts near zero. Interpolated on the spline basis like every other form, so that the
    MD costs the same, and a gradient is one small matrix product. ``table_error`` says how far the
    spline is from the network.

    Parameters
    ----------
    r_min, cutoff, n_types, switch_distance
        See ``SplineBasis``, ``PairPotential`` and ``AnalyticPair``.
    knots : int or "auto"
        "auto": 24 for each of ``centers``, which is enough for weights that training makes, or more
        until the spline is within ``tolerance``, see ``refine_knots``. That the network has become
        too rough for its knots all the same is warned of once, see ``check_table``.
    tolerance : float
        Of the spline's energy, kJ/mol, and of its force, relative to it, for "auto".
    prior_sigma, prior_epsilon : float or [pairs of types]
        nm and kJ/mol.
    centers : int
        Number of radial basis functions between ``r_min`` and ``cutoff``; w is their spacing.
    hidden : sequence of int
        Widths of the hidden layers (tanh).
    seed : int
        Of the initial weights.
    """

    is_free_form = True
    depends_on_temperature = False
    mu: Tensor
    prior_sigma: Tensor
    prior_epsilon: Tensor

    def __init__(
        self,
        r_min: float,
        cutoff: float,
        prior_sigma: ArrayLike,
        prior_epsilon: ArrayLike = 1.0,
        knots: int | str = "auto",
        n_types: int = 1,
        centers: int = 24,
        hidden: Sequence[int] = (32, 32),
        seed: int = 0,
        switch_distance: float | None = None,
        tolerance: float = 1e-3,
        name: str | None = None,
    ) -> None:
        checked_whole("centers", centers, PotentialError)
        for width in hidden:
            checked_whole("hidden", width, PotentialError)
        tolerance = float(checked("tolerance", tolerance))
        if isinstance(knots, str) and knots != "auto":
            raise PotentialError(f"knots: expected a number or 'auto', got {knots!r}")
        first = _KNOTS_PER_CENTER * centers if isinstance(knots, str) else knots
        super().__init__(r_min, cutoff, first, n_types, switch_distance, name)
        mu = torch.linspace(self.basis.r_min, self.basis.cutoff, centers, dtype=torch.float64)
        self.register_buffer("mu", mu)
        sigma = self.per_pair("prior_sigma", prior_sigma)
        epsilon = self.per_pair("prior_epsilon", prior_epsilon)
        self.register_buffer("prior_sigma", sigma.detach())
        self.register_buffer("prior_epsilon", epsilon.detach())
        self.network = _mlp([centers, *hidden, self.n_pairs], seed)
        if isinstance(knots, str):
            self.tolerance = tolerance
            self.refine_knots()

    def closed_form(self, r: Tensor) -> Tensor:
        """u(r) in kJ/mol before switching, for r of shape [n] in nm; shape [pairs, n]."""
        width = self.mu[1] - self.mu[0]
        features = torch.exp(-0.5 * ((r[:, None] - self.mu) / width) ** 2)
        prior = self.prior_epsilon[:, None] * (self.prior_sigma[:, None] / r) ** 12
        return prior + self.network(features).T


def _mlp(widths: Sequence[int], seed: int) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        linear = nn.Linear(n_in, n_out, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.normal_(0.0, n_in**-0.5, generator=generator)
            linear.bias.zero_()
        layers += [linear, nn.Tanh()]
    last = layers[-2]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.mul_(0.01)
    return nn.Sequential(*layers[:-1])
