"""How g(r) and the pressure answer a change of the pair potential, from liquid-state theory.

A covariance of fluctuations needs hundreds of frames before it is more than noise. The
Ornstein-Zernike equation with the hypernetted-chain closure answers approximately, but without
noise, from g(r) alone. For species a, b with densities rho,

    ln g_ab = -beta u_ab + h_ab - c_ab,     H = C + C rho H  (matrices, for every k),

so a change of the potential obeys, with the structure factor S = 1 + rho^1/2 H rho^1/2,

    dh_ab / g_ab - dh_ab + dc_ab = -beta du_ab,
    rho^1/2 dC rho^1/2 = S^-1 rho^1/2 dH rho^1/2 S^-1.

The first is multiplied by g, so that the core, g = 0, needs no special case.
(Hansen and McDonald, Theory of Simple Liquids, chapters 3 and 4.)

Everything hinges on S(k) at small k, a few hundredths in a dense liquid, which enters squared and
inverse. Two corrections make it good to a few per cent from a g(r) that ends at half the box:

- a simulation with fixed particle numbers has h_ab(infinity) = -S_ab(0) / (N_a N_b)^1/2, and a g
  normalised by N (N - 1) pairs a further 1/N; both are taken out (Lebowitz and Percus, Phys. Rev.
  122, 1675 (1961));
- h is not cut off where the data end. The direct correlation function c is what is short-ranged:
  it is fitted on [0, cutoff] to reproduce the h that is known, and its h goes on beyond.

Against a covariance from 4000 frames of the Lennard-Jones liquid near its triple point the
response is right to about 10 % in every direction, soft modes included
(``benchmarks/response.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dst

from ...curve import interpolation_matrix
from ...potentials import SplineBasis, pair_index
from ...units import BAR

Array = NDArray[np.float64]

_LEAST_STRUCTURE_FACTOR = 0.02  # of the starting guess
_MOST_ITERATIONS = 60
_SMALL_WAVE = 0.3  # S(k) of a wave that may grow
_NODES = 6  # of the quadrature over a bin
_MOST_BOLTZMANN = 100.0  # of -beta u
_LEAST_G = 1e-3  # of the largest


@dataclass(frozen=True)
class Interaction:
    """A pair potential between species."""

    basis: SplineBasis
    row_of_pair: NDArray[np.int64]
    """Which of its pairs of types acts on each pair of species, -1 for none, [pairs]."""
    n_rows: int
    """How many pairs of types it has; there are so many coefficients for each of the basis."""

    def spread(self, by_pair: Array) -> Array:
        """From a derivative [..., pairs, basis] to one [..., coefficients] of this potential."""
        flat = np.zeros((*by_pair.shape[:-2], self.n_rows, by_pair.shape[-1]))
        for pair, row in enumerate(self.row_of_pair):
            if row >= 0:
                flat[..., row, :] += by_pair[..., pair, :]
        return flat.reshape(*flat.shape[:-2], -1)

    def gather(self, coefficients: Array) -> Array:
        """The coefficients between each pair of species, zero for none, [pairs, basis]."""
        rows = coefficients.reshape(self.n_rows, -1)
        return np.where(self.row_of_pair[:, None] >= 0, rows[self.row_of_pair], 0.0)


@dataclass(frozen=True)
class LiquidStructure:
    """All partial g(r) of a fluid on one grid, from which its response follows.

    Parameters
    ----------
    r : array [bins], nm, centres (n + 1/2) width of equal bins
    g : array [pairs of types, bins], normalised as ``RDF`` does
    n_of_type : array [types], particles of each type
    volume : float, nm^3
    beta : float, mol/kJ
    interactions : sequence of Interaction
        What acts between the species; coefficients are those of all of them, one after the other.
    fine : (array [fine bins], array [pairs of types, fine bins]), optional
        r and g in narrower bins, as they were recorded, for what is no wave of the whole liquid.
    """

    r: Array
    g: Array
    n_of_type: Array
    volume: float
    beta: float
    interactions: Sequence[Interaction]
    fine: tuple[Array, Array] | None = None

    def rdf_response(self) -> Array:
        """dg_p(r)/dc, mol/kJ, shape [pairs, bins, coefficients]."""
        width = self.r[1] - self.r[0]
        return self.direct_response(self.r, width, self.g) + self._indirect

    def direct_response(self, r: Array, width: Array | float, g: Array) -> Array:
        """What dg_p(r)/dc is if no third particle is near: -beta g_p(r) B_k(r).

        Means of B over bins of a ``width`` about ``r``, with ``g`` [pairs, len(r)] there: bins as
        narrow as a measurement's, and not those of the theory, see the finest waves of u(r).
        """
        each = np.eye(len(g))[:, None, :, None] * g[:, :, None, None]
        parts = [i.spread(each * _binned(i.basis, r, width)[:, None]) for i in self.interactions]
        return np.asarray(-self.beta * np.concatenate(parts, axis=-1))

    @cached_property
    def _indirect(self) -> Array:
        """What other particles do: ``rdf_response`` without the direct one, smooth in r."""
        n = len(self.r)
        smooth = self._susceptibility[:, :n].copy()
        for pair in range(len(self.g)):
            smooth[pair, :, pair, :n][np.diag_indices(n)] -= self.g[pair]
        parts = []
        for each in self.interactions:
            basis = _binned(each.basis, self._grid, self.r[1] - self.r[0])
            parts.append(each.spread(-self.beta * np.einsum("prqs,sk->prqk", smooth, basis)))
        return np.concatenate(parts, axis=-1)

    def response_at(self, shares: Array, r: Array) -> Array:
        """Of a mean of the partial g(r), at the centres r of other bins, [len(r), coefficients]."""
        near, g = (self.r, self.g) if self.fine is None else self.fine
        g = g @ interpolation_matrix(near, r).T
        direct = self.direct_response(r, np.gradient(r), g)
        grid = interpolation_matrix(self.r, r)
        return np.asarray(np.einsum("p,pbk->bk", shares, direct + grid @ self._indirect))

    def growth(self) -> Array:
        """d ln det S(k)/dc over what of it is bearable, mol/kJ, [wave numbers, coefficients].

        A response is that of S at the present potential, but 1/S is what changes linearly: with
        x = d ln S, S becomes S / (1 - x). Bearable is x = 1/2, twice S; or up to 0.3, where a wave
        is still small.
        """
        forward, _ = self._transforms
        n_types, n = len(self.n_of_type), len(self.r)
        rows, columns = np.triu_indices(n_types)
        inverse = np.linalg.inv(self.structure_factor)[:, rows, columns].T
        times = np.where(rows == columns, 1.0, 2.0) * self._root_density
        weight = times[:, None] * inverse
        response = forward[:, :n] @ self.rdf_response()
        largest = np.linalg.eigvalsh(self.structure_factor)[:, -1]
        bearable = np.maximum(0.5, 1 - largest / _SMALL_WAVE)
        return np.asarray(np.einsum("pk,pkc->kc", weight, response) / bearable[:, None])

    def rdf_covariance(self) -> Array:
        """Covariance of g_p(r) and g_q(r') in one frame, shape [pairs, bins, pairs, bins].

        What fluctuates is the number of pairs in each shell: X = dg_p(r)/d(-beta u_q(r')) is
        Cov(g_p(r), n_q(r')), and g = n / n_ideal.
        """
        n = len(self.r)
        covariance = self._susceptibility[:, :n, :, :n] / self.ideal_counts
        return np.asarray(0.5 * (covariance + covariance.transpose(2, 3, 0, 1)))

    @property
    def ideal_counts(self) -> Array:
        """Unordered pairs in each shell if g were 1, shape [pairs, bins]."""
        rows, columns = np.triu_indices(len(self.n_of_type))
        n_a, n_b = self.n_of_type[rows], self.n_of_type[columns]
        n_pairs = np.where(rows == columns, n_a * (n_a - 1) / 2, n_a * n_b)
        width = self.r[1] - self.r[0]
        shells = 4 * np.pi / 3 * ((self.r + width / 2) ** 3 - (self.r - width / 2) ** 3)
        return np.asarray(n_pairs[:, None] * shells / self.volume)

    @cached_property
    def _susceptibility(self) -> Array:
        """dg_p(r)/d(-beta u_q(r')), shape [pairs, grid, pairs, grid]."""
        n_pairs, n = self.g.shape[0], len(self._grid)
        g = (self._total_correlation + 1).ravel()
        system = self._direct_response.transpose(0, 2, 1, 3).reshape(n_pairs * n, n_pairs * n)
        system = g[:, None] * system
        system[np.diag_indices(n_pairs * n)] += 1 - g
        inverse = np.linalg.solve(system, np.diag(g))
        return np.asarray(inverse.reshape(n_pairs, n, n_pairs, n))

    def pressure_response(self, coefficients: Array) -> Array:
        """dP/dc in bar mol/kJ, shape [coefficients], by the virial equation.

        P = rho kT - (2 pi / 3) sum_ab rho_a rho_b int r^3 u'_ab g_ab dr. On the wall u' and g
        change a lot within a bin: there y = g exp(beta u) is taken as constant, and so is dg / g of
        what other particles do.
        """
        r, weight = _nodes(self.r, self.r[1] - self.r[0])
        rows, columns = np.triu_indices(len(self.n_of_type))
        density = self.n_of_type / self.volume
        multiplicity = np.where(rows == columns, 1.0, 2.0) * density[rows] * density[columns]
        measure = -2 * np.pi / 3 * BAR * multiplicity[:, None, None] * weight * r**3
        parts, start, flat = [], 0, r.ravel()
        u, slope = np.zeros((2, len(self.g), r.size))
        for each in self.interactions:
            values, slopes = each.basis.values(flat), each.basis.derivatives(flat)
            size = each.n_rows * each.basis.n_coefficients
            own = each.gather(coefficients[start : start + size])
            u, slope, start = u + own @ values.T, slope + own @ slopes.T, start + size
            parts.append((each, values, slopes))
        shape = (len(self.g), *r.shape)
        g, gained = self._within_bins(u.reshape(shape), r**2 * weight)
        force = measure * slope.reshape(shape) * g
        direct = [
            each.spread(
                np.einsum("pbn,bnk->pk", measure * g, slopes.reshape(*r.shape, -1))
                - self.beta * np.einsum("pbn,bnk->pk", force, values.reshape(*r.shape, -1))
            )
            for each, values, slopes in parts
        ]
        return np.concatenate(direct) + np.einsum("pbn,pbk->k", force, gained)

    def _within_bins(self, u: Array, weight: Array) -> tuple[Array, Array]:
        """g at nodes in each bin, [pairs, bins, nodes], and dg/g without the direct response.

        u [pairs, bins, nodes]; weight [bins, nodes]. Where g is too small to say, y is as outside.
        """
        boltzmann = np.exp(np.minimum(-self.beta * u, _MOST_BOLTZMANN))
        mean = (boltzmann * weight).sum(axis=-1) / weight.sum(axis=-1)
        seen = (self.g > _LEAST_G * self.g.max()) & (mean > 0)
        y = np.where(seen, self.g, 1.0) / np.where(seen, mean, 1.0)
        gained = self._indirect / np.where(seen, self.g, 1.0)[..., None]
        for pair, found in enumerate(seen):
            first = int(np.argmax(found))
            y[pair, :first], gained[pair, :first] = y[pair, first], gained[pair, first]
        return y[..., None] * boltzmann, gained

    @property
    def _cutoff(self) -> float:
        return max(each.basis.cutoff for each in self.interactions)

    @cached_property
    def _grid(self) -> Array:
        """The bins continued to twice their range."""
        return (np.arange(2 * len(self.r)) + 0.5) * (self.r[1] - self.r[0])

    @cached_property
    def _transforms(self) -> tuple[Array, Array]:
        return radial_transforms(self._grid)

    @cached_property
    def _root_density(self) -> Array:
        """(rho_a rho_b)^1/2 of each pair of types, 1/nm^3, [pairs]."""
        rows, columns = np.triu_indices(len(self.n_of_type))
        return np.asarray(np.sqrt(self.n_of_type[rows] * self.n_of_type[columns]) / self.volume)

    @cached_property
    def structure_factor(self) -> Array:
        """S(k) = 1 + rho^1/2 H rho^1/2, matrices [wave numbers, types, types]."""
        return self._solution[0]

    @cached_property
    def _total_correlation(self) -> Array:
        """h on the grid, measured where it is known and continued beyond, [pairs, grid]."""
        return self._solution[1]

    @cached_property
    def _solution(self) -> tuple[Array, Array]:
        """Two passes: the correction for fixed particle numbers needs S(0)."""
        n_types = len(self.n_of_type)
        compressibility = np.zeros(len(self.g))
        rows, columns = np.triu_indices(n_types)
        per_pair = 1 / np.sqrt(self.n_of_type[rows] * self.n_of_type[columns])
        for _ in range(2):
            shift = (compressibility - (rows == columns)) * per_pair
            known = self.g * (1 + shift[:, None]) - 1
            structure, h = self._continue(known)
            compressibility = structure[0][rows, columns]
        h[:, : len(self.r)] = known
        return structure, np.maximum(h, -1.0)

    def _continue(self, known: Array) -> tuple[Array, Array]:
        """Fit c on [0, cutoff] to the known h (Levenberg-Marquardt); its S(k) and h."""
        forward, backward = self._transforms
        n_pairs, n_known = known.shape
        n_inner = min(n_known, int(np.ceil(self._cutoff / (self.r[1] - self.r[0]))))
        c = self._first_direct_correlation(known)
        c[:, n_inner:] = 0.0
        structure, h = self._close(c)
        damping = 1e-3
        for _ in range(_MOST_ITERATIONS):
            residual = (h[:, :n_known] - known).ravel()
            response = self._pair_response(structure)
            each = (backward[:n_known] * response[:, :, None, :]) @ forward[:, :n_inner]
            jacobian = each.transpose(0, 2, 1, 3).reshape(n_pairs * n_known, n_pairs * n_inner)
            normal = jacobian.T @ jacobian
            normal[np.diag_indices(len(normal))] *= 1 + damping
            change = -np.asarray(np.linalg.solve(normal, jacobian.T @ residual))
            change = change.reshape(n_pairs, n_inner)
            accepted = self._line_search(c, change, residual, known)
            if accepted is None:
                break
            step, c, structure, h = accepted
            damping = max(0.3 * damping, 1e-8)
            if step * np.abs(change).max() < 1e-3:
                break
        return structure, h

    def _line_search(
        self, c: Array, change: Array, residual: Array, known: Array
    ) -> tuple[float, Array, Array, Array] | None:
        step = 1.0
        while step > 1e-4:
            trial = c.copy()
            trial[:, : change.shape[1]] += step * change
            structure, h = self._close(trial)
            misfit = np.sum((h[:, : known.shape[1]] - known) ** 2)
            if np.linalg.eigvalsh(structure).min() > 0 and misfit < residual @ residual:
                return step, trial, structure, h
            step /= 2
        return None

    def _close(self, c: Array) -> tuple[Array, Array]:
        """S(k) = (1 - rho^1/2 C rho^1/2)^-1 and h(r) of a direct correlation function."""
        forward, backward = self._transforms
        index = pair_index(len(self.n_of_type))
        scaled = (c @ forward.T) * self._root_density[:, None]
        eye = np.eye(len(self.n_of_type))
        structure = np.linalg.inv(eye - scaled[index].transpose(2, 0, 1))
        rows, columns = np.triu_indices(len(self.n_of_type))
        h = (structure - eye)[:, rows, columns].T / self._root_density[:, None]
        return np.asarray(structure), h @ backward.T

    def _first_direct_correlation(self, known: Array) -> Array:
        """c from an h that is tapered to zero where the data end (Lorch's window)."""
        forward, backward = self._transforms
        n_types, n_known = len(self.n_of_type), known.shape[1]
        h = np.zeros((len(known), len(self._grid)))
        h[:, :n_known] = known * np.sinc(self.r / self.r[-1])
        scaled = (h @ forward.T) * self._root_density[:, None]
        structure = np.eye(n_types) + scaled[pair_index(n_types)].transpose(2, 0, 1)
        values, vectors = np.linalg.eigh(structure)
        inverse = np.einsum(
            "kae,ke,kbe->kab", vectors, 1 / np.maximum(values, _LEAST_STRUCTURE_FACTOR), vectors
        )
        rows, columns = np.triu_indices(n_types)
        c = (np.eye(n_types) - inverse)[:, rows, columns].T / self._root_density[:, None]
        return np.asarray(c @ backward.T)

    @cached_property
    def _direct_response(self) -> Array:
        """dc_p(r)/dh_q(r'), shape [pairs p, pairs q, grid r, grid r']."""
        forward, backward = self._transforms
        kernel = self._pair_response(np.asarray(np.linalg.inv(self.structure_factor)))
        return np.asarray(np.einsum("rk,pqk,ks->pqrs", backward, kernel, forward, optimize=True))

    def _pair_response(self, matrix: Array) -> Array:
        """d(X)_p / d(Y)_q for X~ = M Y~ M, tilde meaning times (rho_a rho_b)^1/2; [p, q, k]."""
        rows, columns = np.triu_indices(len(self.n_of_type))
        n_pairs = len(rows)
        out = np.empty((n_pairs, n_pairs, len(matrix)))
        for p, (a, b) in enumerate(zip(rows, columns, strict=True)):
            for q, (c, d) in enumerate(zip(rows, columns, strict=True)):
                kernel = matrix[:, a, c] * matrix[:, d, b]
                if c != d:
                    kernel = kernel + matrix[:, a, d] * matrix[:, c, b]
                out[p, q] = kernel * self._root_density[q] / self._root_density[p]
        return out


def _nodes(r: Array, width: Array | float) -> tuple[Array, Array]:
    """Nodes of a quadrature over bins and their weights, each [len(r), nodes]."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    half = 0.5 * np.broadcast_to(width, r.shape)[:, None]
    return np.maximum(r[:, None] + half * nodes, 0.0), half * weights


def _binned(basis: SplineBasis, r: Array, width: Array | float) -> Array:
    """Mean of each basis function over a bin, weighted by r^2, [len(r), functions]."""
    points, weights = _nodes(r, width)
    share = weights * points**2
    share /= share.sum(axis=1, keepdims=True)
    values = basis.values(points.ravel()).reshape(*points.shape, -1)
    return np.asarray(np.einsum("rn,rnk->rk", share, values))


def radial_transforms(r: Array) -> tuple[Array, Array]:
    """Matrices of the three-dimensional Fourier transform of a radial function and its inverse.

    f(k) = (4 pi / k) sum_j r_j f(r_j) sin(k r_j) width, on r_j = (j + 1/2) width and
    k_m = (m + 1) pi / (n width): a type-II discrete sine transform, whose inverse is exact.
    """
    n, width = len(r), r[1] - r[0]
    k = np.pi * np.arange(1, n + 1) / (n * width)
    sine = dst(np.eye(n), type=2, axis=0) / 2  # sin(k_m r_j), [m, j]
    norm = np.full(n, 2.0 / n)
    norm[-1] = 1.0 / n
    forward = 4 * np.pi * width * sine * r / k[:, None]
    backward = (sine * norm[:, None]).T * k / (4 * np.pi * width * r[:, None])
    return forward, backward
