"""Sums of pair potentials, and pair potentials that depend on temperature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...errors import PotentialError
from ..base import Potential, check_list
from ..parameters import learned_parameters
from .base import PairPotential, are_names

Composite = TypeVar("Composite", bound="_Composite")


class _Composite(PairPotential):
    """Made of pair potentials on the same knots: what a fit asks is answered by what is learned."""

    __jit_unused_properties__ = (
        *PairPotential.__jit_unused_properties__,
        "is_linear",
        "is_free_form",
    )

    def __init__(self, terms: Sequence[PairPotential], name: str | None) -> None:
        _check_same_basis(terms)
        super().__init__(terms[0].basis, terms[0].n_types, name)

    @property
    def is_linear(self) -> bool:  # type: ignore[override]
        """Is every term that is learned linear?"""
        return all(term.is_linear for term in self._learned())

    @property
    def is_free_form(self) -> bool:  # type: ignore[override]
        """Is any term that is learned of free form?"""
        return any(term.is_free_form for term in self._learned())

    def check(self, temperature: float) -> None:
        """Those of all parts."""
        for part in self._parts():
            part.check(temperature)

    def learn_only(self: Composite, pairs: Any) -> Composite:
        """That of all parts: what stays depends on temperature as it did."""
        if pairs is None or are_names(pairs):
            Potential.learn_only(self, pairs)
        if are_names(pairs):
            return self
        self._learned_mask(pairs)
        for part in self._parts():
            part.learn_only(pairs)
        return self

    def with_given(self, coefficients: Tensor) -> Tensor:
        """As they are: the parts keep what is given."""
        return coefficients

    def learned_rows(self) -> NDArray[np.bool_]:
        """Which pairs of types any part learns, [pairs of types]."""
        rows = [part.learned_rows() for part in self._learned()]
        return np.any(rows, axis=0) if rows else np.zeros(self.n_pairs, dtype=bool)

    def _parts(self) -> list[PairPotential]:
        raise NotImplementedError

    def _learned(self) -> list[PairPotential]:
        return [part for part in self._parts() if learned_parameters(part)]


class PairSum(_Composite):
    """The sum of pair potentials on the same knots, as one Force; see ``Sum`` for several.

    Its form is as free as that of its freest term. A core that a term insists on (``SplinePair``)
    is one of the sum.
    """

    def __init__(self, terms: Sequence[PairPotential], name: str | None = None) -> None:
        super().__init__(terms, name)
        self.terms = nn.ModuleList(terms)
        self.n_functions = max(term.n_functions for term in terms)
        self.depends_on_temperature = any(term.depends_on_temperature for term in terms)

    def _parts(self) -> list[PairPotential]:
        return list(self.terms)  # type: ignore[arg-type]

    def unbound_coefficients(self, temperature: float | None = None) -> Tensor:
        """The sum of those of the terms."""
        parts = []
        for term in self.terms:
            own = term.unbound_coefficients(temperature)  # type: ignore[operator]
            parts.append(term.with_given(own))  # type: ignore[operator]
        return torch.stack(parts).sum(dim=0)

    def with_core(self, coefficients: Tensor) -> Tensor:
        """Spline coefficients with the cores of all terms."""
        for term in self.terms:
            coefficients = term.with_core(coefficients)  # type: ignore[operator]
        return coefficients


class TemperatureDependent(_Composite):
    """u(r, T) = E(r) - T S(r), each a pair potential on the same knots.

    E in kJ/mol, S in kJ/mol/K. For coarse-grained particles, whose effective potential is a free
    energy. A core that either insists on (``SplinePair``) is one of u at every temperature: S alone
    is free.
    """

    def __init__(
        self, energetic: PairPotential, entropic: PairPotential, name: str | None = None
    ) -> None:
        super().__init__([energetic, entropic], name)
        self.energetic = energetic
        self.entropic = entropic
        self.n_functions = energetic.n_functions + entropic.n_functions

    def _parts(self) -> list[PairPotential]:
        return [self.energetic, self.entropic]

    def unbound_coefficients(self, temperature: float | None = None) -> Tensor:
        """E - T S without a core, [pairs of types, coefficients].

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
        energy = self.energetic.unbound_coefficients(temperature)
        entropy = self.entropic.unbound_coefficients(temperature)
        return self.energetic.with_given(energy) - temperature * self.entropic.with_given(entropy)

    def with_core(self, coefficients: Tensor) -> Tensor:
        """Spline coefficients with the cores of both."""
        return self.entropic.with_core(self.energetic.with_core(coefficients))


def _check_same_basis(terms: Sequence[PairPotential]) -> None:
    check_list(terms)
    if not terms:
        raise PotentialError("a sum needs at least one potential, got none")
    first = terms[0]
    for term in terms[1:]:
        if term.basis != first.basis or term.n_types != first.n_types:
            raise PotentialError(
                "potentials add up only on the same knots and types: got "
                f"{first.basis} with {first.n_types} type(s) and {term.basis} with {term.n_types}"
            )
