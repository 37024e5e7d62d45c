"""The reciprocal part of particle-mesh Ewald, as a quadratic form of what particles carry.

    U = 1/2 sum_k G(m) |rho(k)|^2 / B(k)

with rho the Fourier transform of charges that B-splines of order five spread over a mesh, B the
squared moduli of those, and m the wave (Essmann et al., doi:10.1063/1.470117), as OpenMM has it.
Of a box that is scaled with molecules moving whole, -dU / d ln lambda is known too: fractional
coordinates then change by -o / L, o being the offset of a particle from its molecule's centre.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.fft import rfftn
from scipy.special import erfc

Array = NDArray[np.float64]

Waves = Callable[[Array, float, float], tuple[Array, Array]]
"""G and dG / d ln lambda of m^2, alpha and the volume."""

_ORDER = 5


@dataclass(frozen=True)
class ParticleMesh:
    """A mesh of so many points along each axis of the box."""

    alpha: float  # 1/nm
    shape: tuple[int, int, int]
    waves: Waves

    def __call__(
        self, positions: Array, box: Array, charges: Array, offsets: Array | None = None
    ) -> tuple[Array, Array]:
        """Symmetric R with U = z R z of charges z @ ``charges``, and that of -dU / d ln lambda.

        Parameters
        ----------
        positions : array [particles, 3], nm
        box : array [3, 3], nm
        charges : array [sets, particles], e
        offsets : array [particles, 3], nm, optional
            Without them the second is zeros.

        Returns
        -------
        two arrays [sets, sets], 1/nm
        """
        inverse = np.linalg.inv(box).astype(np.float64)
        moves = np.zeros((0, 3)) if offsets is None else -offsets @ inverse * self.shape
        fraction = positions @ inverse
        u = (fraction - np.floor(fraction)) * self.shape
        rho = np.stack([self._transform(u, moves, row) for row in charges], axis=1)
        influence, response = self._influence(box, inverse)
        energies = _products(rho[0] * influence, rho[0])
        if offsets is None:
            return energies, np.zeros_like(energies)
        moved = _products(rho[0] * influence, rho[1])
        return energies, -_products(rho[0] * response, rho[0]) - moved - moved.T

    def _transform(self, u: Array, moves: Array, charges: Array) -> Array:
        """Of one set, and of what it changes by if there are moves, [1 or 2, waves]."""
        meshes = np.zeros((2 if len(moves) else 1, *self.shape))
        _spread(u, moves, charges, meshes)
        return np.asarray(rfftn(meshes, axes=(1, 2, 3)).reshape(len(meshes), -1))

    def _influence(self, box: Array, inverse: Array) -> tuple[Array, Array]:
        """G / 2 B of the half of the mesh that a real transform has, and d / d ln lambda of it.

        Where the other half is left out, it counts with it.
        """
        x, y, z = (np.fft.fftfreq(n, 1 / n).astype(np.float64) for n in self.shape)
        half = z[: self.shape[2] // 2 + 1]
        volume = float(np.prod(np.diag(box)))
        there = self.waves(_squares(x, y, half, inverse), self.alpha, volume)
        # Of -k, whose place on a mesh with an even number of points is not always at -m.
        x, y = (np.concatenate([row[:1], row[:0:-1]]) for row in (x, y))
        twins = self.waves(_squares(x, y, -half, inverse), self.alpha, volume)
        has_twin = np.ones(len(half))
        has_twin[0] = 0.0
        if self.shape[2] % 2 == 0:
            has_twin[-1] = 0.0
        both = [0.5 * (a + b * has_twin) / self._moduli for a, b in zip(there, twins, strict=True)]
        return both[0].ravel(), both[1].ravel()

    @cached_property
    def _moduli(self) -> Array:
        """B of the half of the mesh, [x, y, z]."""
        x, y, z = (_squared_moduli(n) for n in self.shape)
        return x[:, None, None] * y[:, None] * z[: self.shape[2] // 2 + 1]


def _squares(x: Array, y: Array, z: Array, inverse: Array) -> Array:
    """m^2 of all waves, 1/nm^2."""
    m = [
        x[:, None, None] * inverse[k, 0] + y[:, None] * inverse[k, 1] + z * inverse[k, 2]
        for k in range(3)
    ]
    return np.asarray(m[0] ** 2 + m[1] ** 2 + m[2] ** 2)


def coulomb_waves(square: Array, alpha: float, volume: float) -> tuple[Array, Array]:
    """G of 1 / r, exp(-b^2) / (pi V m^2), b = pi m / alpha, and dG / d ln lambda."""
    square[0, 0, 0] = np.inf
    exponent = np.pi**2 * square / alpha**2
    value = np.exp(-exponent) / (np.pi * volume * square)
    exponent[0, 0, 0] = 0.0
    return value, value * (2 * exponent - 1)


def dispersion_waves(square: Array, alpha: float, volume: float) -> tuple[Array, Array]:
    """G of -1 / r^6, and dG / d ln lambda.

    G = -pi^(3/2) alpha^3 / (3 V) [(1 - 2 b^2) exp(-b^2) + 2 pi^(1/2) b^3 erfc(b)], with that b.
    """
    b = np.pi * np.sqrt(square) / alpha
    gaussian, tail = np.exp(-(b**2)), np.sqrt(np.pi) * erfc(b)
    scale = -(np.pi**1.5) * alpha**3 / (3 * volume)
    value = (1 - 2 * b**2) * gaussian + 2 * b**3 * tail
    slope = 6 * b**2 * (b * tail - gaussian)  # b times the derivative
    return scale * value, -scale * (3 * value + slope)


def _products(first: Array, second: Array) -> Array:
    """sum_k Re a conj(b) of each two sets, [sets, sets]."""
    return np.asarray(first.real @ second.real.T + first.imag @ second.imag.T)


def _squared_moduli(n: int) -> Array:
    """Of the B-spline, [n]; where it is zero, the mean of the neighbours, as OpenMM takes it."""
    nodes = np.zeros(n)
    weights, _ = _weights(0.0)
    np.add.at(nodes, np.arange(1, _ORDER + 1) % n, weights)
    found = np.abs(np.fft.fft(nodes)) ** 2
    low = found < 1e-7
    found[low] = 0.5 * (np.roll(found, 1) + np.roll(found, -1))[low]
    return np.asarray(found)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _weights(t):
    """Of the five points from a particle's cell on, at t in it, and their derivatives."""
    w = np.zeros(_ORDER)
    w[0], w[1] = 1.0 - t, t
    slopes = np.zeros(_ORDER)
    for order in range(3, _ORDER + 1):
        if order == _ORDER:
            slopes[0] = -w[0]
            for m in range(1, _ORDER):
                slopes[m] = w[m - 1] - w[m]
        scale = 1.0 / (order - 1)
        w[order - 1] = scale * t * w[order - 2]
        for m in range(1, order - 1):
            w[order - m - 1] = scale * (
                (t + m) * w[order - m - 2] + (order - m - t) * w[order - m - 1]
            )
        w[0] = scale * (1.0 - t) * w[0]
    return w, slopes


@njit(cache=True)  # type: ignore[untyped-decorator]
def _spread(u, moves, charges, meshes):
    """Spread charges at u [particles, 3] over a mesh, and how that changes as u moves."""
    _, nx, ny, nz = meshes.shape
    for i in np.flatnonzero(charges):
        q = charges[i]
        x, y, z = int(u[i, 0]), int(u[i, 1]), int(u[i, 2])
        wx, sx = _weights(u[i, 0] - x)
        wy, sy = _weights(u[i, 1] - y)
        wz, sz = _weights(u[i, 2] - z)
        for a in range(_ORDER):
            ix = (x + a) % nx
            for b in range(_ORDER):
                iy = (y + b) % ny
                flat = q * wx[a] * wy[b]
                for c in range(_ORDER):
                    meshes[0, ix, iy, (z + c) % nz] += flat * wz[c]
                if len(moves) == 0:
                    continue
                moved = q * (moves[i, 0] * sx[a] * wy[b] + moves[i, 1] * wx[a] * sy[b])
                for c in range(_ORDER):
                    change = moved * wz[c] + flat * moves[i, 2] * sz[c]
                    meshes[1, ix, iy, (z + c) % nz] += change
