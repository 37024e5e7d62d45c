"""Covariances of many points that few numbers are behind.

A curve has thousands of points, what a model says of them comes from a few hundred bins: the noise
of the averages has the rank of these, whatever the number of points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LowRank:
    """A symmetric matrix D + U K U^T, of n points and rank r; the matrix is never made.

    ``made`` and all that is computed with one have r < n: else D is the whole matrix.
    """

    own: Array
    """D, [n] if it is diagonal, else [n, n]."""
    factor: Array
    """U, [n, r]."""
    core: Array
    """K, [r, r]; symmetric, not necessarily positive."""

    @classmethod
    def made(cls, own: Array, factor: Array | None = None, core: Array | None = None) -> LowRank:
        """D, and U K U^T if there is one; as one matrix where that is smaller."""
        if factor is None or core is None:
            return cls(own, np.zeros((len(own), 0)), np.zeros((0, 0)))
        if factor.shape[1] < len(own):
            return cls(own, factor, core)
        whole = own if own.ndim == 2 else np.diag(own)
        return cls.made(whole + factor @ core @ factor.T)

    @classmethod
    def of_parts(cls, parts: Sequence[Array]) -> LowRank:
        """Of points that are independent between parts: variances [n] or a covariance of each."""
        if all(part.ndim == 1 for part in parts):
            return cls.made(np.concatenate(parts))
        return cls.made(block_diag(*(np.diag(p) if p.ndim == 1 else p for p in parts)))

    def __len__(self) -> int:
        return len(self.own)

    def dense(self) -> Array:
        """The matrix, n^2 numbers."""
        own = self.own if self.own.ndim == 2 else np.diag(self.own)
        return np.asarray(own + self.factor @ self.core @ self.factor.T)

    def diagonal(self) -> Array:
        """Its diagonal, [n]."""
        own = np.diag(self.own) if self.own.ndim == 2 else self.own
        return np.asarray(own + np.einsum("pr,pr->p", self.factor @ self.core, self.factor))

    def __matmul__(self, x: Array) -> Array:
        return _times(self.own, x) + self.factor @ (self.core @ (self.factor.T @ x))

    def __add__(self, other: LowRank) -> LowRank:
        own = self.own + other.own if self.own.ndim == other.own.ndim else _sum(self.own, other.own)
        if self.factor is other.factor:
            return LowRank.made(own, self.factor, self.core + other.core)
        if not len(self.core) or not len(other.core):
            used = other if len(other.core) else self
            return LowRank.made(own, used.factor, used.core)
        factor = np.concatenate([self.factor, other.factor], axis=1)
        return LowRank.made(own, factor, block_diag(self.core, other.core))

    def at(self, places: slice) -> LowRank:
        """Of some of the points."""
        own = self.own[places, places] if self.own.ndim == 2 else self.own[places]
        return LowRank.made(own, self.factor[places], self.core)

    def scaled(self, scale: Array) -> LowRank:
        """S A S with S the diagonal matrix of ``scale`` [n]."""
        own = scale[:, None] * self.own * scale if self.own.ndim == 2 else scale**2 * self.own
        if np.ptp(scale) == 0:
            return LowRank(own, self.factor, scale[0] ** 2 * self.core)
        return LowRank(own, scale[:, None] * self.factor, self.core)

    def part(self, where: slice) -> LowRank:
        """Of these points alone."""
        own = self.own[where, where] if self.own.ndim == 2 else self.own[where]
        return LowRank.made(own, self.factor[where], self.core)

    def inverse(self) -> LowRank:
        """D^-1 - D^-1 U (1 + K U^T D^-1 U)^-1 K U^T D^-1 (Woodbury)."""
        own = np.asarray(np.linalg.inv(self.own) if self.own.ndim == 2 else 1 / self.own)
        factor = _times(own, self.factor)
        small = np.eye(len(self.core)) + self.core @ (self.factor.T @ factor)
        core = -np.linalg.solve(small, self.core)
        return LowRank(own, factor, 0.5 * (core + core.T))

    def trace_with(self, other: LowRank) -> float:
        """tr(A B)."""
        dense = other.own.ndim == 2
        first = np.sum(self.dense() * other.own) if dense else self.diagonal() @ other.own
        return float(first + np.sum((self @ other.factor) * (other.factor @ other.core)))


def _times(own: Array, x: Array) -> Array:
    if own.ndim == 2:
        return np.asarray(own @ x)
    return own * x if x.ndim == 1 else own[:, None] * x


def _sum(first: Array, second: Array) -> Array:
    dense, diagonal = (first, second) if first.ndim == 2 else (second, first)
    return dense + np.diag(diagonal)
