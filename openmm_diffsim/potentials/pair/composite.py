"""Sums of pair potentials, and pair potentials that depend on temperature."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...errors import PotentialError
from .base import PairPotential


class PairSum(PairPotential):
    """The sum of pair potentials on the same knots, as one Force; see ``Sum`` for several."""

    def __init__(self, terms: Sequence[PairPotential], name: str | None = None) -> None:
        _check_same_basis(terms)
        super().__init__(terms[0].basis, terms[0].n_types, name)
        self.terms = nn.ModuleList(terms)
        _share_linearity(self, terms)

    def spline_coefficients(self, temperature: float | None = None) -> Tensor:
        """Spline coefficients, kJ/mol, shape [pairs of types, coefficients], differentiable."""
        parts = []
        for term in self.terms:
            parts.append(term.spline_coefficients(temperature))  # type: ignore[operator]
        return torch.stack(parts).sum(dim=0)


class TemperatureDependent(PairPotential):
    """u(r, T) = E(r) - T S(r), each a pair potential on the same knots.

    E in kJ/mol, S in kJ/mol/K. For coarse-grained particles, whose effective potential is a free
    energy.
    """

    def __init__(
        self, energetic: PairPotential, entropic: PairPotential, name: str | None = None
    ) -> None:
        _check_same_basis([energetic, entropic])
        super().__init__(energetic.basis, energetic.n_types, name)
        self.energetic = energetic
        self.entropic = entropic
        _share_linearity(self, [energetic, entropic])

    def spline_coefficients(self, temperature: float | None = None) -> Tensor:
        """Spline coefficients at ``temperature`` (K), kJ/mol, shape [pairs, coefficients].

        Raises
        ------
        PotentialError
            If no temperature is given.
        """
        if temperature is None:
            raise PotentialError(
                f"{self.name} depends on temperature: pass temperature= in K to attach(), "
                "energy() and spline_coefficients()"
            )
        entropy = self.entropic.spline_coefficients(temperature)
        return self.energetic.spline_coefficients(temperature) - temperature * entropy


def _share_linearity(whole: PairPotential, terms: Sequence[PairPotential]) -> None:
    whole.is_linear = all(term.is_linear for term in terms)
    whole.is_free_form = whole.is_linear and all(term.is_free_form for term in terms)


def _check_same_basis(terms: Sequence[PairPotential]) -> None:
    if not terms:
        raise PotentialError("a sum needs at least one potential, got none")
    first = terms[0]
    for term in terms[1:]:
        if term.basis != first.basis or term.n_types != first.n_types:
            raise PotentialError(
                "potentials add up only on the same knots and types: got "
                f"{first.basis} with {first.n_types} type(s) and {term.basis} with {term.n_types}"
            )
