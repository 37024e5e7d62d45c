"""Pair energies that are products of what particles carry: charges, or roots of their C_6.

They are quadratic forms of that, whose matrix a pass over the pairs finds, by types of particles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import erfc, gammainc

from .kernels import exclusion_lists, is_excluded, pair_blocks
from .molecules import minimum_image
from .scaling import crossing, lever, margin, reach

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
Radial = Callable[[Array], tuple[Array, Array]]
"""f(r) and r f'(r) of distances, nm."""

_NODES = 8192  # of a table, whose cubic interpolation is then right to 1e-13


def bare(r: Array) -> tuple[Array, Array]:
    """1 / r."""
    return 1 / r, -1 / r


def screened(alpha: float) -> Radial:
    """erfc(alpha r) / r: what a mesh of Ewald's leaves of a Coulomb energy."""

    def found(r: Array) -> tuple[Array, Array]:
        value = erfc(alpha * r) / r
        return value, -value - 2 / np.sqrt(np.pi) * alpha * np.exp(-((alpha * r) ** 2))

    return found


def smeared(alpha: float) -> Radial:
    """-erf(alpha r) / r: what takes that of a mesh back."""

    def found(r: Array) -> tuple[Array, Array]:
        values = zip(screened(alpha)(r), bare(r), strict=True)
        value, slope = (short - whole for short, whole in values)
        return value, slope

    return found


def dispersion(alpha: float) -> Radial:
    """[1 - exp(-x^2) (1 + x^2 + x^4 / 2)] / r^6, x = alpha r: what takes a mesh of 1 / r^6 back."""

    def found(r: Array) -> tuple[Array, Array]:
        y = (alpha * r) ** 2
        value = gammainc(3, y) / r**6
        return value, y**3 * np.exp(-y) / r**6 - 6 * value

    return found


@dataclass(frozen=True, eq=False)
class PairFunction:
    """f(r) of two particles that carry 1 each: table(r) / r + k r^2 - c within the cutoff, nm.

    The table has r f(r) and its derivative times the spacing, [nodes, 2]; one node: it is constant.
    """

    cutoff: float
    table: Array
    k: float = 0.0
    c: float = 0.0

    @classmethod
    def coulomb(cls) -> PairFunction:
        """1 / r of any distance."""
        return cls(np.inf, np.array([[1.0, 0.0]]))

    @classmethod
    def reaction_field(cls, cutoff: float, dielectric: float) -> PairFunction:
        """1 / r with a dielectric beyond the cutoff, as OpenMM has it."""
        below = 2 * dielectric + 1
        k = (dielectric - 1) / below / cutoff**3
        return cls(cutoff, np.array([[1.0, 0.0]]), k, 3 * dielectric / below / cutoff)

    @classmethod
    def tabulated(
        cls, function: Radial, cutoff: float, at_zero: tuple[float, float], c: float = 0.0
    ) -> PairFunction:
        """Any, of which r f(r) and the derivative of that are ``at_zero`` at r = 0."""
        r = np.linspace(0.0, 1.01 * cutoff, _NODES)
        value, slope = function(r[1:])
        table = np.vstack([at_zero, np.column_stack([r[1:] * value, value + slope])])
        return cls(cutoff, table * [1.0, r[1]], c=c)

    @property
    def per_node(self) -> float:
        """Nodes of the table in a nm; zero, if it is constant."""
        return (len(self.table) - 1) / (1.01 * self.cutoff) if len(self.table) > 1 else 0.0


@dataclass(frozen=True, eq=False)
class ProductSums:
    """Which pairs count: all within the cutoff, but for those that are excluded.

    Particle i carries q_i = f_i + y_t(i) with y that of its type, if it has one. The sum over pairs
    of f(r) q_i q_j is, but for what no type has to do with, y M y with y_T = 1 behind the T types,
    and an M [T + 1, T + 1] that need not be symmetric.
    """

    type_of: IntArray  # [particles], -1 for one without
    n_types: int
    exclusions: IntArray  # [exclusions, 2]
    function: PairFunction

    def __call__(
        self, positions: Array, box: Array | None, fixed: Array, offsets: Array | None = None
    ) -> tuple[Array, Array]:
        """M and that of -d/d ln L, [types + 1, types + 1] each, without units of what they carry.

        Parameters
        ----------
        positions : array [particles, 3], nm
        box : array [3, 3], nm, or None
        fixed : array [particles]
            f_i.
        offsets : array [particles, 3], nm, optional
            From the centre of each particle's molecule; without them the second is zeros.
        """
        sums, virials = np.zeros((2, self.n_types + 1, self.n_types + 1))
        f = self.function
        there = np.flatnonzero((self.type_of >= 0) | (fixed != 0))
        own = None if offsets is None else offsets[there]
        beyond = margin(f.cutoff, own)
        lists = self._lists(there)
        for block in pair_blocks(positions[there], box, reach(f.cutoff, beyond, box)):
            _add_pairs(
                *block,
                self.type_of[there],
                fixed[there],
                *lists,
                np.zeros((0, 3)) if own is None else own,
                f.cutoff - beyond,
                f.table,
                f.per_node,
                (f.k, f.c, f.cutoff),
                sums,
                virials,
            )
        return sums, virials

    def _lists(self, there: IntArray) -> tuple[IntArray, IntArray]:
        place = np.full(len(self.type_of), -1, dtype=np.int64)
        place[there] = np.arange(len(there))
        own = place[self.exclusions.reshape(-1, 2)]
        return exclusion_lists(own[np.all(own >= 0, axis=1)], len(there))


@njit(cache=True)  # type: ignore[untyped-decorator]
def _function(r, table, per_node, numbers):
    """f(r), and r f'(r)."""
    k, c, _ = numbers
    if per_node == 0.0:
        tabulated, slope = table[0]
    else:
        x = r * per_node
        node = min(int(x), len(table) - 2)
        t = x - node
        low, low_slope = table[node]
        high, high_slope = table[node + 1]
        c2 = 3.0 * (high - low) - 2.0 * low_slope - high_slope
        c3 = 2.0 * (low - high) + low_slope + high_slope
        tabulated = low + t * (low_slope + t * (c2 + t * c3))
        slope = (low_slope + t * (2.0 * c2 + t * 3.0 * c3)) * x
    return tabulated / r + k * r * r - c, (slope - tabulated) / r + 2.0 * k * r * r


@njit(cache=True)  # type: ignore[untyped-decorator]
def _add(value, s, t, q, p, last, sums):
    """Add a pair's f q_i q_j to M: types s and t, fixed charges q and p."""
    if s >= 0 and t >= 0:
        sums[s, t] += value
    if s >= 0 and p != 0.0:
        sums[s, last] += value * p
    if t >= 0 and q != 0.0:
        sums[t, last] += value * q


@njit(cache=True)  # type: ignore[untyped-decorator]
def _add_pairs(
    i, j, displacement, distance, types, fixed, heads, partners, offsets, inner,
    table, per_node, numbers, sums, virials,
):  # fmt: skip
    """Add a block of pairs. Below ``inner`` none crosses the cutoff, which is the last number."""
    last, cutoff = len(sums) - 1, numbers[2]
    for m in range(len(i)):
        a, b = i[m], j[m]
        s, t = types[a], types[b]
        if (s < 0 and t < 0) or is_excluded(heads, partners, a, b):
            continue
        r, d = distance[m], displacement[m]
        if r < cutoff:
            value, slope = _function(r, table, per_node, numbers)
            _add(value, s, t, fixed[a], fixed[b], last, sums)
        if len(offsets) == 0:
            continue
        if r > inner:
            factor, within = crossing(d, a, b, offsets, cutoff)
            if factor != 0.0:
                value, slope = _function(within, table, per_node, numbers)
                _add(factor * value, s, t, fixed[a], fixed[b], last, virials)
                continue
        if r < cutoff:
            change = -slope * lever(d, a, b, offsets) / (r * r)
            _add(change, s, t, fixed[a], fixed[b], last, virials)


@dataclass(frozen=True, eq=False)
class ListedProducts:
    """Pairs that are listed, whatever their distance: exceptions. They add factor f(r) q_i q_j."""

    pairs: IntArray  # [pairs, 2]
    factor: Array  # [pairs]
    type_of: IntArray  # [particles]
    n_types: int
    nearest: bool  # between nearest images?
    function: Radial

    def __call__(
        self, positions: Array, box: Array | None, fixed: Array, offsets: Array | None = None
    ) -> tuple[Array, Array]:
        """As of ``ProductSums``."""
        sums, virials = np.zeros((2, self.n_types + 1, self.n_types + 1))
        i, j = self.pairs.T
        d = positions[i] - positions[j]
        if self.nearest and box is not None:
            d = minimum_image(d, box)
        r2 = np.sum(d**2, axis=1)
        value, slope = self.function(np.sqrt(r2))
        _add_listed(self.pairs, self.factor * value, self.type_of, fixed, sums)
        if offsets is not None:
            change = -self.factor * slope * np.sum(d * (d - offsets[i] + offsets[j]), axis=1) / r2
            _add_listed(self.pairs, change, self.type_of, fixed, virials)
        return sums, virials


@njit(cache=True)  # type: ignore[untyped-decorator]
def _add_listed(pairs, values, types, fixed, sums):
    """Add pairs of these values."""
    for m in range(len(pairs)):
        a, b = pairs[m]
        _add(values[m], types[a], types[b], fixed[a], fixed[b], len(sums) - 1, sums)
