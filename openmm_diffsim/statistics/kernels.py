"""Sums over pairs of particles, compiled with Numba: the one fallback for the native plugin.

Everything here is double precision and knows only NumPy arrays. A box is the 3x3 matrix of
OpenMM's reduced form (lower triangular rows a, b, c), or None.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .molecules import molecule_centres

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


@dataclass(frozen=True)
class SplineInteraction:
    """Which pairs a spline potential acts on, and the basis that it is expressed in."""

    r_min: float  # nm, as are all lengths
    spacing: float
    cutoff: float
    n_coefficients: int
    types: IntArray  # [particles], -1 for one that does not interact
    pair_of_types: IntArray  # [types, types]
    exclusions: IntArray  # [exclusions, 2]
    molecule_of: IntArray  # [particles]

    @cached_property
    def exclusion_lists(self) -> tuple[IntArray, IntArray]:
        """heads, partners: a excludes partners[heads[a]:heads[a + 1]], which are above a."""
        return exclusion_lists(self.exclusions, len(self.types))

    def offsets(self, positions: Array) -> Array:
        """Each particle's position relative to the centre of its molecule, nm, [particles, 3].

        The centre is the mean position, as for OpenMM's barostats; molecules must be whole.
        """
        return np.asarray(
            positions - molecule_centres(positions, self.molecule_of)[self.molecule_of]
        )


def exclusion_lists(exclusions: IntArray, n: int) -> tuple[IntArray, IntArray]:
    """heads [n + 1], partners: a excludes partners[heads[a]:heads[a + 1]], which are above a."""
    low, high = np.sort(exclusions, axis=1).T
    order = np.argsort(low, kind="stable")
    heads = np.searchsorted(low[order], np.arange(n + 1))
    return heads.astype(np.int64), np.ascontiguousarray(high[order])


class PairBlock(NamedTuple):
    """Some pairs of particles: indices i < j, minimum-image r_i - r_j and its length."""

    i: IntArray  # [pairs]
    j: IntArray  # [pairs]
    displacement: Array  # [pairs, 3], nm
    distance: Array  # [pairs], nm


def largest_range(box: Array) -> float:
    """Longest distance, nm, to which the minimum image is unique: half the reduced box's width."""
    return 0.5 * float(min(box[0, 0], box[1, 1], box[2, 2]))


def pair_sums(
    positions: Array,
    boxes: Array | None = None,
    histograms: Sequence[PairHistogram] = (),
    interaction: SplineInteraction | None = None,
) -> PairSums:
    """Sums over the pairs of stored frames, as ``SplinePairForce.computeSums`` takes them natively.

    Parameters
    ----------
    positions : array [frames, particles, 3], nm
    boxes : array [frames, 3, 3], nm, or None
    histograms : sequence of PairHistogram
        With a box their edges must not exceed ``largest_range(box)``.
    interaction : SplineInteraction, optional
        What the basis and virial sums are of; without it there are none.
    """
    frames = len(positions)
    reach = max((h.edges[-1] for h in histograms), default=0.0)
    shape = (0, 0, 0)
    if interaction is not None:
        reach = max(reach, interaction.cutoff)
        shape = (frames, int(interaction.pair_of_types.max()) + 1, interaction.n_coefficients)
    counts = [np.zeros((frames, len(h.edges) - 1), dtype=np.int64) for h in histograms]
    sums = PairSums(np.zeros(shape), np.zeros(shape), counts)
    groups = [_groups(h) for h in histograms]
    for f in range(frames if reach > 0 else 0):
        offsets = None if interaction is None else interaction.offsets(positions[f])
        for block in pair_blocks(positions[f], None if boxes is None else boxes[f], reach):
            if interaction is not None:
                _add_basis_sums(
                    *block,
                    interaction.types,
                    interaction.pair_of_types,
                    *interaction.exclusion_lists,
                    offsets,
                    interaction.r_min,
                    interaction.spacing,
                    interaction.cutoff,
                    sums.basis[f],
                    sums.virial[f],
                )
            for h, group, count in zip(histograms, groups, counts, strict=True):
                _add_histogram(
                    block.i, block.j, block.distance, h.edges, h.first, h.second, group, count[f]
                )
    return sums


def _groups(histogram: PairHistogram) -> IntArray:
    if histogram.groups is None:
        return np.full(len(histogram.first), -1, dtype=np.int64)
    return histogram.groups


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
def is_excluded(heads, partners, a, b):
    for m in range(heads[a], heads[a + 1]):
        if partners[m] == b:
            return True
    return False


@njit(cache=True)  # type: ignore[untyped-decorator]
def _add_basis_sums(
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
    heads, partners : of ``SplineInteraction.exclusion_lists``
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
        if types[a] < 0 or types[b] < 0 or is_excluded(heads, partners, a, b):
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
def _add_histogram(i, j, distance, edges, first, second, group, counts):
    """Add a block of pairs to the counts of a ``PairHistogram``, int [bins].

    ``group`` is an int array [particles], -1 for a particle of none.
    """
    n = len(counts)
    per_bin = n / (edges[n] - edges[0])
    for m in range(len(i)):
        r = distance[m]
        if r < edges[0] or r >= edges[n]:
            continue
        a, b = i[m], j[m]
        if group[a] >= 0 and group[a] == group[b]:
            continue
        k = min(int((r - edges[0]) * per_bin), n - 1)  # right for equal bins, up to rounding
        while r < edges[k]:
            k -= 1
        while r >= edges[k + 1]:
            k += 1
        counts[k] += int(first[a] and second[b]) + int(first[b] and second[a])


# Angles -------------------------------------------------------------------------------------------


@njit(cache=True)  # type: ignore[untyped-decorator]
def count_angles(heads, vectors, bins):
    """Angles between all pairs of vectors of the same particle, int [bins] from 0 to pi.

    Parameters
    ----------
    heads : int array [particles + 1]; vectors[heads[i]:heads[i + 1]] are those of particle i
    vectors : array [vectors, 3]
    bins : int
    """
    counts = np.zeros(bins, dtype=np.int64)
    unit = np.empty_like(vectors)
    for m in range(len(vectors)):
        x, y, z = vectors[m]
        length = np.sqrt(x * x + y * y + z * z)
        unit[m, 0], unit[m, 1], unit[m, 2] = x / length, y / length, z / length
    per_bin = bins / np.pi
    for i in range(len(heads) - 1):
        for m in range(heads[i], heads[i + 1]):
            for o in range(m + 1, heads[i + 1]):
                cosine = unit[m, 0] * unit[o, 0] + unit[m, 1] * unit[o, 1] + unit[m, 2] * unit[o, 2]
                theta = np.arccos(min(max(cosine, -1.0), 1.0))
                counts[min(int(theta * per_bin), bins - 1)] += 1
    return counts
