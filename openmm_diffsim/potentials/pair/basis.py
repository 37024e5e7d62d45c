"""The uniform cubic B-spline basis that every pair potential is expressed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ...errors import PotentialError, UnitError
from ...limits import checked_number, checked_whole
from ...units import number_in_md_units

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SplineBasis:
    """Cubic B-splines on a uniform grid, linear below ``r_min`` and smoothly zero at ``cutoff``.

    A pair potential is u(r) = sum_k c_k B_k(r), with B_k the cubic B-spline centred at knot k.
    Two conditions fix the ends:

    - the three functions that straddle the cutoff are dropped, so u, u' and u'' vanish there;
    - u''(r_min) = 0, and below ``r_min`` the potential goes on as the straight line
      c_0 + (c_1 - c_0) (r - r_min) / spacing. Both c_0 = u(r_min) and the slope
      (c_1 - c_0) / spacing = u'(r_min) are linear in the coefficients.

    u is therefore the *natural* cubic spline through its own knot values, which OpenMM's
    ``Continuous1DFunction`` reproduces to rounding.

    Parameters
    ----------
    r_min : float or Quantity
        First knot, nm. Below it the potential is a straight line.
    cutoff : float or Quantity
        Last knot, nm. The potential is zero beyond.
    knots : int
        Number of knots, both ends included; there are ``knots - 2`` coefficients.

    Raises
    ------
    PotentialError
        If not 0 < r_min < cutoff, or one of them is beyond ``limits.LIMITS``.
    """

    r_min: float
    cutoff: float
    knots: int

    def __post_init__(self) -> None:
        for name in ("r_min", "cutoff"):  # frozen, and a Quantity becomes a number
            object.__setattr__(self, name, length_in_nm(name, getattr(self, name)))
        if not 0 < self.r_min < self.cutoff:
            raise PotentialError(
                f"expected 0 < r_min < cutoff, got r_min = {self.r_min} nm and "
                f"cutoff = {self.cutoff} nm",
                r_min=self.r_min,
                cutoff=self.cutoff,
            )
        checked_number("r_min", self.r_min, PotentialError)
        checked_number("cutoff", self.cutoff, PotentialError)
        checked_whole("knots", self.knots, PotentialError)

    @property
    def n_coefficients(self) -> int:
        """Number of coefficients of one pair of types."""
        return self.knots - 2

    @property
    def spacing(self) -> float:
        """Distance between knots, nm."""
        return (self.cutoff - self.r_min) / (self.knots - 1)

    @property
    def centers(self) -> Array:
        """Where each basis function is centred, nm, shape [coefficients]."""
        return np.asarray(self.r_min + self.spacing * np.arange(self.n_coefficients))

    def values(self, r: ArrayLike) -> Array:
        """B_k(r), shape [len(r), coefficients]; u(r) = values(r) @ c."""
        return self._evaluate(r, cubic_weights, lambda x: (1 - x, x))

    def derivatives(self, r: ArrayLike) -> Array:
        """dB_k/dr in 1/nm, shape [len(r), coefficients]; u'(r) = derivatives(r) @ c."""
        one = np.ones_like
        slopes = self._evaluate(r, cubic_slopes, lambda x: (-one(x), one(x)))
        return np.asarray(slopes / self.spacing)

    def _evaluate(
        self,
        r: ArrayLike,
        weights: Callable[[Array], tuple[Array, ...]],
        line: Callable[[Array], tuple[Array, Array]],
    ) -> Array:
        r = np.atleast_1d(np.asarray(r, dtype=np.float64))
        x = (r - self.r_min) / self.spacing
        cell = np.clip(np.floor(x).astype(np.int64), 0, self.knots - 2)
        padded = np.zeros((len(r), self.knots + 2))  # column m: the function centred at knot m - 1
        rows = np.arange(len(r))
        for offset, weight in enumerate(weights(x - cell)):
            padded[rows, cell + offset] = weight
        padded[r >= self.cutoff] = 0.0
        out = padded[:, 1 : 1 + self.n_coefficients].copy()
        out[:, 0] += 2 * padded[:, 0]  # u''(r_min) = 0: c_{-1} = 2 c_0 - c_1
        out[:, 1] -= padded[:, 0]
        below = x < 0
        out[below] = 0.0
        out[below, 0], out[below, 1] = line(x[below])
        return out

    @cached_property
    def interpolation(self) -> torch.Tensor:
        """From values at the ``centers`` to coefficients, [coefficients, coefficients]."""
        return torch.from_numpy(np.linalg.inv(self.values(self.centers)))

    def interpolate(self, u: torch.Tensor) -> torch.Tensor:
        """Coefficients of the spline through ``u`` at the ``centers``.

        Parameters
        ----------
        u : Tensor [..., coefficients]
            Values at ``centers``, kJ/mol. The two knots at and before the cutoff follow from the
            conditions there, so ``u`` should go smoothly to zero.

        Returns
        -------
        Tensor [..., coefficients], kJ/mol, differentiable with respect to ``u``.
        """
        return u @ self.interpolation.T


def length_in_nm(name: str, value: Any) -> Any:
    """A number in nm of a Quantity; what is none is left to be refused by its limits."""
    if not hasattr(value, "value_in_unit"):
        return value
    try:
        return number_in_md_units(value, "length")
    except UnitError as error:
        raise PotentialError(f"{name}: {error}", got=value) from error


def cubic_weights(t: Array) -> tuple[Array, Array, Array, Array]:
    """Of the four functions that are not zero at t spacings behind a knot, 0 <= t <= 1."""
    return (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )


def cubic_slopes(t: Array) -> tuple[Array, Array, Array, Array]:
    """Derivatives of the ``cubic_weights``."""
    return (
        -((1 - t) ** 2) / 2,
        (3 * t**2 - 4 * t) / 2,
        (-3 * t**2 + 2 * t + 1) / 2,
        t**2 / 2,
    )


def n_pairs_of_types(n_types: int) -> int:
    """Number of unordered pairs of types."""
    return n_types * (n_types + 1) // 2


def pair_index(n_types: int) -> NDArray[np.int64]:
    """Row of each pair of types in every [pairs, ...] array: the upper triangle, row by row.

    Returns
    -------
    int array [n_types, n_types], symmetric: for two types [[0, 1], [1, 2]].
    """
    index = np.zeros((n_types, n_types), dtype=np.int64)
    rows, columns = np.triu_indices(n_types)
    index[rows, columns] = np.arange(len(rows))
    index[columns, rows] = index[rows, columns]
    return index
