"""Knot values of a bonded potential, from a table or from a distribution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from ...errors import PotentialError
from .basis import BondedBasis

Array = NDArray[np.float64]

_COVERED = 2 / 3  # of the range: what a table has to say something of
_FEWEST = 4  # points


def from_table(basis: BondedBasis, q: Array, u: Array) -> Array:
    """u at the knots, [knots], of a table [points] that is checked."""
    if q.ndim != 1 or q.shape != u.shape or len(q) < _FEWEST or np.any(np.diff(q) <= 0):
        raise PotentialError(
            f"expected a table of at least {_FEWEST} points that rise, got shapes {q.shape} and "
            f"{u.shape}",
            got=(q.shape, u.shape),
        )
    if not (np.all(np.isfinite(q)) and np.all(np.isfinite(u))):
        raise PotentialError("expected finite numbers in a table of u, got NaN or infinity")
    covered = (min(q[-1], basis.high) - max(q[0], basis.low)) / (basis.high - basis.low)
    if covered < _COVERED or (basis.ends != "straight" and q[-1] - q[0] > 4 * np.pi):
        raise PotentialError(
            f"got a table from {q[0]:.4g} to {q[-1]:.4g}, expected it to cover {basis.low:.4g} to "
            f"{basis.high:.4g} (nm or rad), or two thirds of that; is it in another unit, angstrom "
            "or degrees?",
            got=(float(q[0]), float(q[-1])),
            expected=(basis.low, basis.high),
        )
    if basis.ends == "periodic":
        q, u = _around(q, u)
    curve, slope = PchipInterpolator(q, u), np.diff(u)[[0, -1]] / np.diff(q)[[0, -1]]
    x = basis.centers
    inside = np.clip(x, q[0], q[-1])
    return np.asarray(curve(inside) + (x - inside) * np.where(x < q[0], *slope))


def from_distribution(
    basis: BondedBasis, q: Array, u: Array, weight: Array, curvature: float
) -> Array:
    """u at the knots, [knots], zero at its minimum, of a potential of mean force at some points.

    ``weight`` says how well each is known; ``curvature`` is the least of the parabola outside.
    """
    if len(q) < _FEWEST:
        raise PotentialError(
            f"got {len(q)} points of a distribution that are not nearly zero, expected at least "
            f"{_FEWEST}: take finer bins, or a smaller least",
            got=len(q),
        )
    order = np.argsort(q)
    q, u, weight = q[order], u[order] - u.min(), weight[order]
    if basis.ends == "periodic":
        return between(basis, q, u)
    centre = q.mean()
    second, first, _ = np.polyfit(q - centre, u, 2, w=np.sqrt(weight))
    second = max(2 * second, curvature)
    x = basis.centers
    inside = np.clip(x, q[0], q[-1])
    beyond = x - inside
    outward = np.maximum((first + second * (inside - centre)) * np.sign(beyond), 0)
    return np.asarray(np.interp(inside, q, u) + outward * np.abs(beyond) + second * beyond**2 / 2)


def between(basis: BondedBasis, q: Array, u: Array) -> Array:
    """u at the knots, [knots], in straight lines between places q and flat beyond them."""
    if basis.ends == "periodic":
        q, u = _around(q, u)
    return np.asarray(np.interp(basis.centers, q, u))


def _around(q: Array, u: Array) -> tuple[Array, Array]:
    """The same in three turns, each place once."""
    turned = np.mod(q + np.pi, 2 * np.pi) - np.pi
    once, place = np.unique(np.round(turned, 9), return_index=True)
    whole = np.concatenate([once - 2 * np.pi, once, once + 2 * np.pi])
    return whole, np.tile(u[place], 3)
