"""Functions that are polynomials of a few parameters, told from their values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement, product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

_ALONG = np.array([0.0, 1.0, -1.0, 0.5, -0.5])  # where along a parameter values are taken
_TRIALS = 4  # points that decide whether a polynomial holds
_MISSED = 1e-8  # of how much a function varies: what a polynomial may miss of it
_ROUNDING = 1e-13  # of the function itself
_FAR_OFF = (1e-5, 1e-9)  # both far from the nodes, where what these miss grows


@dataclass(frozen=True, eq=False)
class Polynomial:
    """f(p) = f_0 + sum_k S_k m_k(z), z = (p - centre) / scale, with monomials m_k of z.

    The monomials are a function of the parameters alone, the S_k = df/dm_k one of all else: what
    can be known of f from its values at the ``nodes``.

    Parameters
    ----------
    centre, scale : arrays [parameters]
    exponents : int array [monomials, parameters]
        With each monomial, those that divide it are there too; the constant, 1, is left out.
    """

    centre: Array
    scale: Array
    exponents: IntArray

    def __len__(self) -> int:
        return len(self.exponents)

    def monomials(self, p: Tensor) -> Tensor:
        """m_k, [monomials], with a graph to the parameters p [parameters]."""
        z = (p - torch.from_numpy(self.centre)) / torch.from_numpy(self.scale)
        return torch.prod(z ** torch.from_numpy(self.exponents), dim=-1)

    @property
    def nodes(self) -> Array:
        """Values of the parameters whose f is wanted, [monomials + 1, parameters]."""
        return self.centre + self.scale * self._z

    def features(self, values: Array) -> Array:
        """S_k, [monomials], from f at the nodes [monomials + 1]."""
        return np.asarray((self._inverse @ values)[1:])

    def at(self, values: Array, p: Array) -> float:
        """f at p [parameters], from f at the nodes."""
        z = (p - self.centre) / self.scale
        return float(self._rows(z[None])[0] @ (self._inverse @ values))

    def reaches(self, f: Callable[[Array], Array], points: Array) -> bool:
        """Is f, [functions] of parameters, this polynomial also far from the nodes?

        ``points`` are sets of parameters, [sets, parameters].
        """
        return _holds(self, f, points, np.array([f(p) for p in points]), _FAR_OFF)

    @property
    def _z(self) -> Array:
        # A lower set of exponents is unisolvent on the grid that it makes of values along each.
        return np.asarray(_ALONG[np.vstack([np.zeros_like(self.exponents[:1]), self.exponents])])

    @cached_property
    def _inverse(self) -> Array:
        return np.asarray(np.linalg.inv(self._rows(self._z)))

    def _rows(self, z: Array) -> Array:
        ones = np.ones((len(z), 1))
        return np.hstack([ones, np.prod(z[:, None, :] ** self.exponents, axis=-1)])


def products_of(n: int) -> IntArray:
    """Which two of n numbers, d <= e, make each product of two, [products, 2]."""
    return np.array(list(combinations_with_replacement(range(n), 2)), dtype=np.int64).reshape(-1, 2)


def of_second_degree(n: int) -> IntArray:
    """Exponents of n parameters and of their ``products_of`` two, [monomials, n]."""
    unit = np.eye(n, dtype=np.int64)
    return np.concatenate([unit, unit[products_of(n)].sum(axis=1)])


def monomials_of(z: Tensor, is_quadratic: bool = False) -> Tensor:
    """z_d, unless ``is_quadratic``, and the products z_d z_e of d <= e, of z [directions]; flat."""
    d, e = torch.from_numpy(products_of(len(z))).T
    found = z[d] * z[e]
    return found if is_quadratic else torch.cat([z, found])


def polynomial_of(
    f: Callable[[Array], Array],
    centre: Array,
    scale: Array,
    blocks: Sequence[Sequence[int]] = (),
    most: int = 128,
    seed: int = 0,
) -> Polynomial | None:
    """The simplest polynomial that f is of its parameters, or None if it is none with few terms.

    Tried are: linear; products of powers within each block, up to the fourth of each parameter;
    quadratic; products of powers of all.

    Parameters
    ----------
    f : callable
        From parameters [parameters] to values [functions]: all have to be such polynomials.
    centre, scale : arrays [parameters]
        Where, and how far from there, f is evaluated.
    blocks : sequence of sequences of int
        Parameters that may have to do with each other, such as those of one bond.
    most : int
        Monomials, at most.
    """
    rng = np.random.default_rng(seed)
    points = centre + scale * rng.uniform(-1, 1, size=(_TRIALS, len(centre)))
    found = np.array([f(p) for p in points])
    for exponents in _candidates(f, points[0], scale, blocks, most):
        polynomial = Polynomial(centre, scale, exponents)
        if _holds(polynomial, f, points, found):
            return polynomial
    return None


def _candidates(
    f: Callable[[Array], Array],
    point: Array,
    scale: Array,
    blocks: Sequence[Sequence[int]],
    most: int,
) -> Iterator[IntArray]:
    n = len(point)
    unit = np.eye(n, dtype=np.int64)
    yield unit
    degrees = [_degree(f, point, scale, i) for i in range(n)]
    if not all(degrees):
        return
    if blocks:
        yield np.concatenate([_products(degrees, block) for block in blocks])
    if n + n * (n + 1) // 2 <= most:
        yield of_second_degree(n)
    if np.prod([d + 1.0 for d in degrees]) <= most + 1:
        yield _products(degrees, range(n))


def _products(degrees: Sequence[int], block: Sequence[int]) -> IntArray:
    """Exponents of all products of powers of the parameters of a block, but for 1."""
    powers = list(product(*(range(degrees[i] + 1) for i in block)))[1:]
    exponents = np.zeros((len(powers), len(degrees)), dtype=np.int64)
    exponents[:, list(block)] = powers
    return exponents


def _degree(f: Callable[[Array], Array], point: Array, scale: Array, i: int) -> int:
    """Of f as a polynomial of one parameter, 1 at least; 0 where it is none."""

    def along(p: Array) -> Array:
        other = point.copy()
        other[i] = p[0]
        return f(other)

    where = slice(i, i + 1)
    for degree in range(1, len(_ALONG)):
        exponents = np.arange(1, degree + 1)[:, None]
        points = point[where] + scale[where] * np.linspace(-0.9, 0.9, _TRIALS)[:, None]
        found = np.array([along(p) for p in points])
        if _holds(Polynomial(point[where], scale[where], exponents), along, points, found):
            return degree
    return 0


def _holds(
    polynomial: Polynomial,
    f: Callable[[Array], Array],
    points: Array,
    found: Array,
    missed: tuple[float, float] = (_MISSED, _ROUNDING),
) -> bool:
    values = np.array([f(p) for p in polynomial.nodes])  # [nodes, functions]
    if not (np.all(np.isfinite(values)) and np.all(np.isfinite(found))):
        return False
    said = np.array([[polynomial.at(column, p) for column in values.T] for p in points])
    every = np.concatenate([values, found])
    within = missed[0] * np.ptp(every, axis=0) + missed[1] * np.abs(every).max(axis=0)
    return bool(np.all(np.abs(said - found) <= within))
