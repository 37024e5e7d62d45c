"""What an instrument makes of a model's values: resolution, bins, shells, normalisation.

Nothing measured is transformed; the model is. A measured value is, in the order in which it came
about,

    y = (M a + b) / (s a + s_0),

with a the model's values: M holds the interpolation, the resolution, the bins and the shells, b
what lies beyond the last value, and s the integral over all measured points where these were scaled
by it (else s = 0, s_0 = 1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor

from ..curve import Axis, spline_matrix

Array = NDArray[np.float64]

_PER_WIDTH = 4  # cells to a standard deviation of the resolution
_MOST_PER_VALUE = 16  # cells to a value of the model: finer, its values say nothing
_MOST_NUMBERS = 2e7  # in a matrix from values to cells
_REACH = 8.0  # standard deviations: beyond, a Gaussian is nothing
_NODES, _SHARES = np.polynomial.legendre.leggauss(6)  # in a bin, from -1 to 1; shares add up to 2


@dataclass(frozen=True)
class Response:
    """From a model's values a [values] to measured ones, y = (M a + b) / (s a + s_0), [points]."""

    matrix: Array
    """M, [points, values]."""
    constant: Array | None = None
    """b, [points]; None: zero."""
    integral: tuple[Array, float] | None = None
    """s [values] and s_0; None: zero and one."""

    def __call__(self, values: Array) -> Array:
        """y, [points]."""
        found = self.matrix @ values
        if self.constant is not None:
            found = found + self.constant
        return np.asarray(found / self._total(values))

    def of_tensor(self, values: Tensor) -> Tensor:
        """y, [points], differentiable."""
        found = torch.from_numpy(self.matrix) @ values
        if self.constant is not None:
            found = found + torch.from_numpy(self.constant)
        if self.integral is None:
            return found
        s, s_0 = self.integral
        return found / (torch.from_numpy(s) @ values + s_0)

    def jacobian(self, values: Array) -> Array:
        """dy/da = (M - y s^T) / (s a + s_0), [points, values]."""
        if self.integral is None:
            return self.matrix
        return (self.matrix - np.outer(self(values), self.integral[0])) / self._total(values)

    def at(self, places: NDArray[np.bool_]) -> Response:
        """The points where ``places``, bool [points], is true; the integral stays that over all."""
        constant = None if self.constant is None else self.constant[places]
        if constant is not None and not constant.any():
            constant = None
        return replace(self, matrix=self.matrix[places], constant=constant)

    def times(self, factor: Array) -> Response:
        """Each point times a known number, [points]."""
        constant = None if self.constant is None else factor * self.constant
        return replace(self, matrix=factor[:, None] * self.matrix, constant=constant)

    def over_integral(self, volumes: Array, whole: float) -> Response:
        """Scaled so that sum_i y_i volumes_i = ``whole``."""
        s = volumes @ self.matrix / whole
        s_0 = 0.0 if self.constant is None else float(volumes @ self.constant / whole)
        return replace(self, integral=(s, s_0))

    def _total(self, values: Array) -> float:
        return 1.0 if self.integral is None else float(self.integral[0] @ values + self.integral[1])


@dataclass(frozen=True)
class Model:
    """A model's values as a density over its axis, on both sides of what it has values for."""

    axis: Axis
    growth: float
    """Volume goes as x^growth dx: 2 of a g(r)."""
    is_histogram: bool
    """Are the values means over equal bins about their places?"""
    tends_to: float
    """What the density of a histogram is beyond its last bin; of anything else the last value."""

    def interpolated(self, x: Array) -> Response:
        """As the axis says; beyond its last place what it tends to."""
        beyond = x > self.axis.ends[1]
        matrix = self.axis.operator(np.minimum(x, self.axis.ends[1]))
        if not (self.is_histogram and beyond.any()):
            return Response(matrix)
        return Response(np.where(beyond[:, None], 0.0, matrix), np.where(beyond, self.tends_to, 0))

    def means(self, edges: Array) -> Response:
        """Means over bins with sharp ``edges`` [points + 1], each by its volume.

        The number of pairs up to r, which a histogram knows at its own edges, is interpolated by a
        cubic spline between them: bins that are the model's have its values.
        """
        if not self.is_histogram:
            return self._mean_of_nodes(edges)
        counts, constant = self._counts(edges)
        volumes = np.diff(self.volume_below(edges))
        return Response(counts / volumes[:, None], constant / volumes)

    def smeared(self, places: Array, sigma: Array, as_counts: bool) -> tuple[Response, Array]:
        """Seen with Gaussians of standard deviation ``sigma`` about places [points, nodes].

        Of several places the mean by volume. A Gaussian is reflected at x = 0. Smeared is the
        density or, with ``as_counts``, density times x^growth, and what of it a density of 1 would
        give is divided by, so that an ideal gas stays 1.

        Returns
        -------
        response, and that divisor, [points]: volume per width
        """
        matrix = np.empty((len(places), len(self.axis.values)))
        constant, measure = np.empty(len(places)), np.empty(len(places))
        edges = self._cells(float(sigma.min()), float((places.max(axis=1) + _REACH * sigma).max()))
        rows, level = self._densities(edges)
        volumes = np.diff(self.volume_below(edges)) / np.diff(edges)
        shares = _shares_of(places.shape[1])
        cells = np.diff(edges).max() ** 2 / (6 if self.is_histogram else 12)  # variance they add
        narrower = np.sqrt(np.maximum(sigma**2 - cells, 0.25 * sigma**2))
        for i, (x, width) in enumerate(zip(places, narrower, strict=True)):
            first, last = np.searchsorted(edges, [x[0] - _REACH * width, x[-1] + _REACH * width])
            here = slice(max(first - 1, 0), min(last + 1, len(volumes)))
            weights = _seen(edges[here.start : here.stop + 1], x, width)
            if as_counts:
                weight = shares @ (weights * volumes[here])
            else:
                weight = (shares * x**self.growth) @ weights
            measure[i] = weight.sum()
            matrix[i] = weight @ rows[here] / measure[i]
            constant[i] = weight @ level[here] / measure[i]
        return Response(matrix, constant), measure

    def volume_below(self, x: Array) -> Array:
        """x^(growth + 1) / (growth + 1); of a g(r), the volume of a sphere over 4 pi."""
        return np.asarray(x ** (self.growth + 1) / (self.growth + 1))

    def _mean_of_nodes(self, edges: Array) -> Response:
        places = nodes_of(edges)
        weights = _shares_of(places.shape[1]) * places**self.growth
        weights /= weights.sum(axis=1, keepdims=True)
        each = self.interpolated(places.ravel()).matrix.reshape(*places.shape, -1)
        return Response(np.einsum("pq,pqv->pv", weights, each))

    def _edges(self) -> Array:
        """Of the bins of a histogram, [values + 1]."""
        centres = self.axis.values
        half = 0.5 * float(np.diff(centres).mean())
        return np.maximum(np.append(centres - half, centres[-1] + half), 0.0)

    def _counts(self, edges: Array) -> tuple[Array, Array]:
        """Counts between ``edges``, [edges - 1, values], and those beyond the last bin."""
        own = self._edges()
        volumes = np.diff(self.volume_below(own))
        cumulative = np.tril(np.ones((len(own), len(volumes))), -1) * volumes
        inside = np.clip(edges, own[0], own[-1])
        below = spline_matrix(own, inside) @ cumulative
        before = self.volume_below(np.minimum(edges, own[0]))  # as dense as in the first bin
        below[:, 0] += before
        after = np.maximum(self.volume_below(edges) - self.volume_below(own[-1:]), 0.0)
        return np.diff(below, axis=0), self.tends_to * np.diff(after)

    def _cells(self, sigma: float, reach: float) -> Array:
        """Edges of equal cells from zero to ``reach``, those of the model's bins among them."""
        values = self.axis.values
        width = float(np.diff(values).mean())
        most = max(1, min(_MOST_PER_VALUE, int(_MOST_NUMBERS * width / (reach * len(values)))))
        parts = int(np.clip(np.ceil(_PER_WIDTH * width / sigma), 1, most))
        cell = width / parts
        start = (self._edges()[0] if self.is_histogram else float(values[0])) % cell
        edges = start + cell * np.arange(int(np.ceil((reach - start) / cell)) + 1)
        return np.asarray(edges if start < 1e-9 * cell else np.append(0.0, edges))

    def _densities(self, edges: Array) -> tuple[Array, Array]:
        """Of each cell: from the values, [cells, values], and what lies beyond them, [cells]."""
        if self.is_histogram:
            counts, constant = self._counts(edges)
            volumes = np.diff(self.volume_below(edges))
            return counts / volumes[:, None], constant / volumes
        centres = 0.5 * (edges[1:] + edges[:-1])
        return self.interpolated(centres).matrix, np.zeros(len(centres))


def bins_about(x: Array) -> Array:
    """Edges halfway between points x [n], [n + 1]; the outer ones as far on the other side."""
    if len(x) < 2:
        return np.array([x[0], x[0]])
    between = 0.5 * (x[1:] + x[:-1])
    first, last = 2 * x[0] - between[0], 2 * x[-1] - between[-1]
    return np.maximum(np.concatenate([[first], between, [last]]), 0)


def nodes_of(edges: Array) -> Array:
    """Places in each bin, [bins, nodes], ascending, that Gauss' quadrature takes."""
    centre, half = 0.5 * (edges[1:] + edges[:-1]), 0.5 * np.diff(edges)
    return np.asarray(centre[:, None] + half[:, None] * _NODES)


def _shares_of(n_nodes: int) -> Array:
    return np.ones(1) if n_nodes == 1 else 0.5 * _SHARES


def _seen(edges: Array, places: Array, sigma: float) -> Array:
    """Share of a Gaussian about each place that lies in each cell, [places, cells]."""
    below = ndtr((edges - places[:, None]) / sigma) - ndtr((-edges - places[:, None]) / sigma)
    return np.asarray(np.diff(below, axis=1))
