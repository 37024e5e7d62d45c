"""Counts of pairs whose distances are smeared by a Gaussian, and their gradient; by Numba."""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import ndtr

from .kernels import pair_blocks

Array = NDArray[np.float64]

_SPREAD = 6.0  # widths to either side that a Gaussian is spread over: all but 2e-9 of it
_NODES_PER_WIDTH = 100


def smeared_counts(
    positions: Array, box: Array, r_max: float, spacing: float, width: float, n_bins: int
) -> Array:
    """What falls into each of ``n_bins`` bins from zero, of pairs closer than ``r_max``, [bins].

    Each pair is a Gaussian about its minimum-image distance, reflected at zero.

    Parameters
    ----------
    positions : array [particles, 3], nm
    box : array [3, 3], nm
    r_max, spacing, width : float
        nm; ``width`` is the standard deviation.
    """
    counts = np.zeros(n_bins)
    for block in pair_blocks(positions, box, r_max):
        _smear(block.distance, spacing, width, *_normal_table(), counts)
    return counts


def smeared_gradient(
    positions: Array, box: Array, r_max: float, spacing: float, width: float, slopes: Array
) -> Array:
    """sum_b slopes_b d(``smeared_counts``)_b/dx, [particles, 3], for slopes [bins]."""
    gradient = np.zeros(positions.shape)
    for block in pair_blocks(positions, box, r_max):
        _smear_gradient(tuple(block), spacing, width, *_normal_table(), slopes, gradient)
    return gradient


@cache
def _normal_table() -> tuple[Array, Array]:
    """The normal distribution function and its density at nodes from -_SPREAD to _SPREAD."""
    nodes = np.arange(-_SPREAD * _NODES_PER_WIDTH, _SPREAD * _NODES_PER_WIDTH + 1)
    u = nodes / _NODES_PER_WIDTH
    return ndtr(u), np.exp(-0.5 * u**2) / np.sqrt(2 * np.pi)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _normal(u, distribution, density):
    """Distribution function and density at u, from the nearest node by Taylor's series."""
    if u <= -_SPREAD:
        return 0.0, 0.0
    if u >= _SPREAD:
        return 1.0, 0.0
    node = int(np.floor((u + _SPREAD) * _NODES_PER_WIDTH + 0.5))
    near = node / _NODES_PER_WIDTH - _SPREAD
    d = u - near
    curve = near * near - 1.0
    p = density[node]
    value = distribution[node] + p * d * (1.0 - d * (0.5 * near - d * curve / 6.0))
    return value, p * (1.0 - d * (near - 0.5 * d * curve))


@njit(cache=True)  # type: ignore[untyped-decorator]
def _smear(distance, spacing, width, distribution, density, counts):
    n_bins = len(counts)
    for r in distance:
        bin_ = int(np.floor((r - _SPREAD * width) / spacing))
        below, _ = _normal((bin_ * spacing - r) / width, distribution, density)
        while below < 1.0 and bin_ < n_bins:
            above, _ = _normal(((bin_ + 1) * spacing - r) / width, distribution, density)
            place = bin_ if bin_ >= 0 else -1 - bin_  # below zero: the mirror image
            if place < n_bins:
                counts[place] += above - below
            below = above
            bin_ += 1


@njit(cache=True)  # type: ignore[untyped-decorator]
def _smear_gradient(block, spacing, width, distribution, density, slopes, gradient):
    i, j, displacement, distance = block
    n_bins = len(slopes)
    for m in range(len(distance)):
        r = distance[m]
        bin_ = int(np.floor((r - _SPREAD * width) / spacing))
        below, low = _normal((bin_ * spacing - r) / width, distribution, density)
        slope = 0.0
        while below < 1.0 and bin_ < n_bins:
            below, high = _normal(((bin_ + 1) * spacing - r) / width, distribution, density)
            place = bin_ if bin_ >= 0 else -1 - bin_
            if place < n_bins:
                slope += slopes[place] * (low - high)
            low = high
            bin_ += 1
        for axis in range(3):
            pull = slope / (width * r) * displacement[m, axis]
            gradient[i[m], axis] += pull
            gradient[j[m], axis] -= pull
