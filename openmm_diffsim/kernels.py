"""Sums over pairs of particles, compiled with Numba: the one fallback for the native plugin.

Everything here is double precision and knows only NumPy arrays. A box is the 3x3 matrix of
OpenMM's reduced form (lower triangular rows a, b, c), or None.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

Cells = tuple[IntArray, IntArray, IntArray, IntArray]

_BUFFER = 1 << 15  # pairs held at once: bounds the memory whatever the number of particles
_FEWEST_CELLS = 64  # with fewer, a cell list saves nothing
_NO_CELLS: Cells = tuple(np.zeros(1, dtype=np.int64) for _ in range(4))  # type: ignore[assignment]


@dataclass(frozen=True)
class PairHistogram:
    """A histogram of pair distances to count: ordered pairs (first, second).

    A pair whose particles are in both selections counts twice.
    """

    edges: Array  # [bins + 1], nm, rising
    first: NDArray[np.bool_]  # [particles], the two selections; they may overlap
    second: NDArray[np.bool_]  # [particles]
    groups: IntArray | None = None  # [particles]; pairs of the same group >= 0 are left out

    @cached_property
    def selections(self) -> NDArray[np.int32]:
        """Both in one number per particle: 1 for the first, 2 for the second, 3 for both."""
        return self.first.astype(np.int32) + 2 * self.second.astype(np.int32)


@dataclass(frozen=True)
class PairSums:
    """Sums over the pairs of each frame."""

    basis: Array  # S = dU/dc, [frames, pairs of types, coefficients]
    virial: Array  # dW/dc, W = -3 V dU/dV moving whole molecules, the same shape
    counts: list[IntArray]  # [frames, bins] of each histogram


class PairBlock(NamedTuple):
    """Some pairs of particles: indices i < j, minimum-image r_i - r_j and its length."""

    i: IntArray  # [pairs]
    j: IntArray  # [pairs]
    displacement: Array  # [pairs, 3], nm
    distance: Array  # [pairs], nm


def largest_range(box: Array) -> float:
    """Longest distance, nm, to which the minimum image is unique: half the reduced box's width."""
    return 0.5 * float(min(box[0, 0], box[1, 1], box[2, 2]))


def pair_blocks(positions: Array, box: Array | None, r_max: float) -> Iterator[PairBlock]:
    """All pairs closer than ``r_max``, in blocks of bounded size.

    Parameters
    ----------
    positions : array [particles, 3], nm
    box : array [3, 3], nm, or None
    r_max : float, nm; with a box at most ``largest_range(box)``.
    """
    n = len(positions)
    matrix = np.zeros((3, 3)) if box is None else np.ascontiguousarray(box, dtype=np.float64)
    x, y, z = np.ascontiguousarray(np.asarray(positions, dtype=np.float64).T)
    cells = _cells(positions, box, r_max)
    capacity = max(_BUFFER, n)
    block = PairBlock(
        np.empty(capacity, dtype=np.int64),
        np.empty(capacity, dtype=np.int64),
        np.empty((capacity, 3)),
        np.empty(capacity),
    )
    start = 0
    while start < n:
        count, start = _fill(
            x, y, z, matrix, r_max, cells or _NO_CELLS, cells is not None, start, tuple(block)
        )
        i, j, displacement, distance = block
        yield PairBlock(i[:count], j[:count], displacement[:count], distance[:count])


def _cells(positions: Array, box: Array | None, r_max: float) -> Cells | None:
    """A cell list, or None where trying every pair is as good.

    members[heads[c]:heads[c + 1]] are the particles in cell c of n_cells (three numbers);
    cell_of[a] is the cell of particle a.
    """
    if box is None:
        widths = np.maximum(np.ptp(positions, axis=0), 1e-6)
        fractional = (positions - positions.min(axis=0)) / widths
    else:
        inverse = np.linalg.inv(box)
        widths = 1.0 / np.linalg.norm(inverse, axis=0)  # between opposite faces
        fractional = positions @ inverse
        fractional -= np.floor(fractional)
    most = np.ceil(2 * len(positions) ** (1 / 3))
    n_cells = np.maximum(np.minimum(np.floor(widths / r_max), most), 1).astype(np.int64)
    if np.prod(n_cells) < _FEWEST_CELLS or (box is not None and n_cells.min() < 3):
        return None
    cell = np.minimum((fractional * n_cells).astype(np.int64), n_cells - 1)
    cell_of = (cell[:, 0] * n_cells[1] + cell[:, 1]) * n_cells[2] + cell[:, 2]
    members = np.argsort(cell_of, kind="stable")
    heads = np.searchsorted(cell_of[members], np.arange(np.prod(n_cells) + 1))
    return heads, members, cell_of, n_cells


@njit(cache=True)  # type: ignore[untyped-decorator]
def _append_row(a, candidates, x, y, z, box, r_max, row, count, block):
    """Append the pairs of particle a with those of ``candidates`` (all above a) in range.

    Two loops, so that the first one vectorizes.
    """
    i, j, displacement, distance = block
    dx, dy, dz, r2 = row
    n = len(candidates)
    xa, ya, za = x[a], y[a], z[a]
    for m in range(n):
        b = candidates[m]
        dx[m] = xa - x[b]
        dy[m] = ya - y[b]
        dz[m] = za - z[b]
    if box[0, 0] > 0.0:
        ax, by, cz = 1.0 / box[0, 0], 1.0 / box[1, 1], 1.0 / box[2, 2]
        for m in range(n):
            shift = np.floor(dz[m] * cz + 0.5)
            dz[m] -= shift * box[2, 2]
            dy[m] -= shift * box[2, 1]
            dx[m] -= shift * box[2, 0]
            shift = np.floor(dy[m] * by + 0.5)
            dy[m] -= shift * box[1, 1]
            dx[m] -= shift * box[1, 0]
            dx[m] -= np.floor(dx[m] * ax + 0.5) * box[0, 0]
    for m in range(n):
        r2[m] = dx[m] * dx[m] + dy[m] * dy[m] + dz[m] * dz[m]
    r_max2 = r_max * r_max
    for m in range(n):
        if r2[m] < r_max2:
            i[count] = a
            j[count] = candidates[m]
            displacement[count, 0] = dx[m]
            displacement[count, 1] = dy[m]
            displacement[count, 2] = dz[m]
            distance[count] = np.sqrt(r2[m])
            count += 1
    return count


@njit(cache=True)  # type: ignore[untyped-decorator]
def _cell_candidates(a, cells, periodic, candidates):
    """Particles above a in its own and the neighbouring cells; returns how many."""
    heads, members, cell_of, n_cells = cells
    cell = cell_of[a]
    cz = cell % n_cells[2]
    cy = (cell // n_cells[2]) % n_cells[1]
    cx = cell // (n_cells[2] * n_cells[1])
    count = 0
    for offset in range(27):
        x, y, z = cx + offset // 9 - 1, cy + offset // 3 % 3 - 1, cz + offset % 3 - 1
        if periodic:
            x, y, z = x % n_cells[0], y % n_cells[1], z % n_cells[2]
        elif not (0 <= x < n_cells[0] and 0 <= y < n_cells[1] and 0 <= z < n_cells[2]):
            continue
        other = (x * n_cells[1] + y) * n_cells[2] + z
        for m in range(heads[other], heads[other + 1]):
            if members[m] > a:
                candidates[count] = members[m]
                count += 1
    return count


@njit(cache=True)  # type: ignore[untyped-decorator]
def _fill(x, y, z, box, r_max, cells, use_cells, start, block):
    """Fill ``block`` with the pairs of particles start, ... while a whole row surely fits."""
    n = len(x)
    everyone = np.arange(n)
    candidates = np.empty(n, dtype=np.int64)
    row = (np.empty(n), np.empty(n), np.empty(n), np.empty(n))
    count = 0
    a = start
    while a < n and count + (n - a - 1) <= len(block[0]):
        if use_cells:
            found = _cell_candidates(a, cells, box[0, 0] > 0.0, candidates)
            count = _append_row(a, candidates[:found], x, y, z, box, r_max, row, count, block)
        else:
            count = _append_row(a, everyone[a + 1 :], x, y, z, box, r_max, row, count, block)
        a += 1
    return count, a


@njit(cache=True)  # type: ignore[untyped-decorator]
def _excluded(heads, partners, a, b):
    for m in range(heads[a], heads[a + 1]):
        if partners[m] == b:
            return True
    return False


def exclusion_lists(n_particles: int, pairs: IntArray) -> tuple[IntArray, IntArray]:
    """Compressed lists: particle a excludes partners[heads[a]:heads[a + 1]] (those above a).

    ``pairs`` is an int array [exclusions, 2].
    """
    pairs = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    low, high = pairs.min(axis=1, initial=n_particles), pairs.max(axis=1, initial=-1)
    order = np.argsort(low, kind="stable")
    heads = np.searchsorted(low[order], np.arange(n_particles + 1))
    return heads.astype(np.int64), high[order]


@njit(cache=True)  # type: ignore[untyped-decorator]
def add_basis_sums(
    i, j, displacement, distance, types, pair_of_types, heads, partners, offsets,
    r_min, spacing, cutoff, sums, virials,
):  # fmt: skip
    """Add a block of pairs to S_k = sum B_k(r) and to its virial W_k = -sum B_k'(r) (r.D)/r.

    D is the vector between the centres of the two molecules, r_i - r_j - (o_i - o_j), with the
    ``offsets`` o of each particle from its molecule's centre: scaling a box moves molecules, not
    the particles in them. Then U = c.S, and the potential's part of the pressure is c.W / (3 V).

    Parameters
    ----------
    i, j, displacement, distance : the arrays of a ``PairBlock``
    types : int array [particles], -1 for a particle that does not interact
    pair_of_types : int array [types, types]
    heads, partners : from ``exclusion_lists``
    offsets : array [particles, 3], nm
    r_min, spacing, cutoff : of the ``SplineBasis``, nm
    sums, virials : arrays [pairs of types, coefficients], added to
    """
    n = sums.shape[1]
    w = np.empty(4)
    s = np.empty(4)
    for m in range(len(i)):
        r = distance[m]
        if r >= cutoff:
            continue
        a, b = i[m], j[m]
        if types[a] < 0 or types[b] < 0 or _excluded(heads, partners, a, b):
            continue
        pair = pair_of_types[types[a], types[b]]
        dot = 0.0
        for axis in range(3):
            d = displacement[m, axis]
            dot += d * (d - offsets[a, axis] + offsets[b, axis])
        lever = -dot / (r * spacing) if r > 0.0 else 0.0
        x = (r - r_min) / spacing
        if x < 0.0:
            sums[pair, 0] += 1.0 - x
            sums[pair, 1] += x
            virials[pair, 0] -= lever
            virials[pair, 1] += lever
            continue
        cell = int(x)
        t = x - cell
        w[0] = (1 - t) ** 3 / 6
        w[1] = (3 * t**3 - 6 * t**2 + 4) / 6
        w[2] = (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6
        w[3] = t**3 / 6
        s[0] = -((1 - t) ** 2) / 2
        s[1] = (3 * t**2 - 4 * t) / 2
        s[2] = (-3 * t**2 + 2 * t + 1) / 2
        s[3] = t**2 / 2
        for o in range(4):
            k = cell + o - 1
            if k < 0:  # c_{-1} = 2 c_0 - c_1
                sums[pair, 0] += 2 * w[o]
                sums[pair, 1] -= w[o]
                virials[pair, 0] += 2 * s[o] * lever
                virials[pair, 1] -= s[o] * lever
            elif k < n:
                sums[pair, k] += w[o]
                virials[pair, k] += s[o] * lever


@njit(cache=True)  # type: ignore[untyped-decorator]
def add_histogram(i, j, distance, first, second, group, r_min, inverse_width, counts):
    """Add a block of pairs to the counts of ordered pairs (first, second) per bin of distance.

    Parameters
    ----------
    i, j, distance : arrays of a ``PairBlock``
    first, second : bool arrays [particles], the two selections; they may overlap
    group : int array [particles]; pairs of the same group >= 0 are left out
    r_min, inverse_width : lower edge (nm) and 1/width (1/nm) of the first of the equal bins
    counts : int array [bins], added to
    """
    for m in range(len(i)):
        x = (distance[m] - r_min) * inverse_width
        if x < 0.0 or x >= len(counts):
            continue
        a, b = i[m], j[m]
        if group[a] >= 0 and group[a] == group[b]:
            continue
        counts[int(x)] += int(first[a] and second[b]) + int(first[b] and second[a])
