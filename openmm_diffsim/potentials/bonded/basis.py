"""Uniform cubic B-splines of a bond length, an angle or a dihedral angle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ..pair.basis import cubic_slopes, cubic_weights

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class BondedBasis:
    """Cubic B-splines on a uniform grid from ``low`` to ``high``, one for each of the knots.

    u(q) = sum_k c_k B_k(q). What happens at the ends is said by ``ends``:

    - "straight": u'' = 0 there, and beyond u goes on as a straight line, of a bond length;
    - "even": u is its own mirror image about both ends, so u' = 0 there and the force of an angle
      at 0 and pi is finite and does not jump;
    - "periodic": ``high`` is ``low`` again, of a dihedral angle.

    u is the interpolating spline through its own knot values with these ends, which OpenMM's
    ``Continuous1DFunction`` reproduces to rounding.
    """

    low: float
    high: float
    knots: int
    ends: str

    @property
    def cells(self) -> int:
        """Number of intervals between knots."""
        return self.knots - (self.ends != "periodic")

    @property
    def spacing(self) -> float:
        """Distance between knots."""
        return (self.high - self.low) / self.cells

    @property
    def centers(self) -> Array:
        """The knots, [knots]."""
        return np.asarray(self.low + self.spacing * np.arange(self.knots))

    @cached_property
    def fold(self) -> Array:
        """From functions centred at -1 .. cells + 1 to those of the knots, [cells + 3, knots]."""
        return _FOLD[self.ends](self.knots)

    def values(self, q: ArrayLike) -> Array:
        """B_k(q), [len(q), knots]; u(q) = values(q) @ c."""
        x, beyond = self._inside(q)
        return (self._spread(x, cubic_weights) + beyond * self._spread(x, cubic_slopes)) @ self.fold

    def derivatives(self, q: ArrayLike) -> Array:
        """dB_k/dq, [len(q), knots], for ``low`` <= q <= ``high``, and of "straight" ends beyond."""
        x, _ = self._inside(q)
        return np.asarray(self._spread(x, cubic_slopes) @ self.fold / self.spacing)

    def sums(self, q: Array, types: IntArray, n_types: int) -> Array:
        """sum of B_k(q) over all q of each type, [n_types, knots], for q and types [n]."""
        x, beyond = self._inside(q)
        cell, t = self._cell(x)
        width = self.cells + 3
        counts = np.zeros(n_types * width)
        pairs = zip(cubic_weights(t), cubic_slopes(t), strict=True)
        for offset, (weight, slope) in enumerate(pairs):
            place = types * width + cell + offset
            counts += np.bincount(place, weight + beyond[:, 0] * slope, len(counts))
        return np.asarray(counts.reshape(n_types, width) @ self.fold)

    @cached_property
    def curvatures(self) -> Array:
        """Second differences of the coefficients at the knots, [cells + 1 or cells, knots]."""
        rows = self.cells + (self.ends != "periodic")
        wide = np.eye(rows, self.cells + 3)
        second = wide - 2 * np.roll(wide, 1, axis=1) + np.roll(wide, 2, axis=1)
        return np.asarray(second @ self.fold)

    @cached_property
    def interpolation(self) -> torch.Tensor:
        """From values at the knots to coefficients, [knots, knots]."""
        return torch.from_numpy(np.linalg.inv(self.values(self.centers)))

    def _inside(self, q: ArrayLike) -> tuple[Array, Array]:
        """Places in units of the spacing from ``low``, [n], and how far beyond the ends, [n, 1]."""
        x = (np.atleast_1d(np.asarray(q, dtype=np.float64)) - self.low) / self.spacing
        if self.ends == "straight":
            inside = np.clip(x, 0, self.cells)
            return inside, (x - inside)[:, None]
        if self.ends == "even":
            x = self.cells - np.abs(self.cells - np.mod(x, 2 * self.cells))
        return np.mod(x, self.cells) if self.ends == "periodic" else x, np.zeros((len(x), 1))

    def _cell(self, x: Array) -> tuple[IntArray, Array]:
        cell = np.minimum(np.floor(x).astype(np.int64), self.cells - 1)
        return cell, x - cell

    def _spread(self, x: Array, weights: Callable[[Array], tuple[Array, ...]]) -> Array:
        cell, t = self._cell(x)
        wide = np.zeros((len(x), self.cells + 3))
        rows = np.arange(len(x))
        for offset, weight in enumerate(weights(t)):
            wide[rows, cell + offset] = weight
        return wide


def _straight(knots: int) -> Array:
    fold = np.eye(knots + 2, knots, -1)
    fold[0, :2] = fold[-1, :-3:-1] = 2, -1
    return fold


def _even(knots: int) -> Array:
    fold = np.eye(knots + 2, knots, -1)
    fold[0, 1] = fold[-1, -2] = 1
    return fold


def _periodic(knots: int) -> Array:
    return np.asarray(np.eye(knots)[np.arange(-1, knots + 2) % knots])


_FOLD = {"straight": _straight, "even": _even, "periodic": _periodic}
