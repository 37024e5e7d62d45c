"""Features of energies that are products of what particles carry: pairs, exceptions and a mesh."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...statistics.polynomials import products_of
from ...statistics.products import ListedProducts, ProductSums
from ...statistics.reciprocal import ParticleMesh
from .term import FrameFeatures

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

MOST_DIRECTIONS = 60
"""So many numbers are learned in one quadratic form at most: 1890 features of a frame."""


@dataclass(frozen=True, eq=False)
class Beyond:
    """What a mesh has, and what comes with it."""

    mesh: ParticleMesh
    of_itself: float
    """Energy of a particle that carries 1 in its own cloud."""
    background: float = 0.0
    """That of a box that carries 1 in all, times its volume."""

    def matrix(self, type_of: IntArray, n: int, fixed: Array, volume: float) -> Array:
        """M of both and of its virial, [2, n + 1, n + 1], as ``ProductSums`` have it."""
        has_type = type_of >= 0
        kinds = type_of[has_type]
        counts = np.bincount(kinds, minlength=n)
        itself = np.zeros((n + 1, n + 1))
        itself[:n, :n] = np.diag(counts)
        itself[:n, n] = 2 * np.bincount(kinds, fixed[has_type], minlength=n)
        total = np.append(counts, fixed.sum())
        background = self.background / volume * np.outer(total, total)
        return np.array([self.of_itself * itself + background, 3 * background])


@dataclass(frozen=True, eq=False)
class ProductFeatures(FrameFeatures):
    """L and Q of U = E_0 + sum_d z_d L_d + sum_d<=e z_d z_e Q_de, and their virials.

    With y = Y (1, z) of the types, and 1 behind them for all that is fixed, U is
    unit (1, z) Y^T M Y (1, z), M from a pass over the pairs, with the same of a mesh.
    """

    of_types: Array
    """Y, [types + 1, D + 1]."""
    fixed: Callable[[], Array]
    """What no type has to do with of what particles carry, [particles]."""
    pairs: ProductSums
    listed: Sequence[tuple[ListedProducts, Callable[[], Array]]]
    """Further pairs, with what is fixed there."""
    beyond: Beyond | None
    is_periodic: bool
    is_quadratic: bool = False
    """Is nothing fixed? Then there is no L."""
    unit: float = 1.0

    def energies(self, positions: Array, box: Array | None) -> Array:
        """S."""
        return self._at(positions, box, None)[0]

    def both(self, positions: Array, box: Array, centres: Array) -> tuple[Array, Array]:
        """S, and its virials from the same pass."""
        return self._at(positions, box, positions - centres)

    def _at(
        self, positions: Array, box: Array | None, offsets: Array | None
    ) -> tuple[Array, Array]:
        own_box = box if self.is_periodic else None
        fixed = self.fixed()
        found = np.array(self.pairs(positions, own_box, fixed, offsets))
        for pairs, theirs in self.listed:
            found += pairs(positions, own_box, theirs(), offsets)
        if self.beyond is not None and own_box is not None:
            volume = float(np.prod(np.diag(own_box)))
            found += self.beyond.matrix(self.pairs.type_of, self.pairs.n_types, fixed, volume)
        forms = self.of_types.T @ found @ self.of_types
        if self.beyond is not None and own_box is not None:
            first = 1 if self.is_quadratic else 0
            carried = self._carried(fixed)[first:]
            forms[:, first:, first:] += self.beyond.mesh(positions, own_box, carried, offsets)
        energies, virials = (self.unit * self._coefficients(form) for form in forms)
        return energies, virials

    def _carried(self, fixed: Array) -> Array:
        """What particles carry at z = 0, and along each z, [D + 1, particles]."""
        type_of = self.pairs.type_of
        carried = np.where(type_of >= 0, self.of_types[type_of].T, 0.0)
        carried[0] += fixed
        return carried

    def _coefficients(self, form: Array) -> Array:
        """Of the ``monomials_of`` z."""
        both = form + form.T
        d, e = products_of(len(form) - 1).T
        quadratic = both[1:, 1:][d, e] / (1.0 + np.equal(d, e))
        return quadratic if self.is_quadratic else np.concatenate([both[0, 1:], quadratic])
