"""Modes in which values fluctuate: how slow each is, and how far theory is right about it.

A g(r) of 100 bins is 100 modes. Most are counting noise, new in every frame; a few are long waves
that last for thousands of steps in a dilute fluid and fluctuate a hundred times less than counting
in a dense one. These decide a fit, and one correlation time for all values is wrong for them: the
longest wave of a Lennard-Jones fluid near its critical point takes 30 times as many frames as the
median one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2
from scipy.stats import f as variance_ratio

from ..statistics.correlated import Blocks, error_of_sum

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_LEAST_UNIT = 1e-6  # of the largest: a bin that is hardly ever counted has no mode
_LEAST_STRENGTH = 1e-6  # of a mode that theory may be right about
_FEWEST_OF_RUN, _FEWEST_RUNS = 10.0, 3  # effective frames, and runs that have them
_CHANCE = 0.99  # of what scatters no more than independent frames
_SPREAD = 1.5  # of ln M_0 beforehand
_GRID = np.linspace(-4.0, 2.0, 25)  # ln M_0 about what is expected of it, in units of its spread


@dataclass(frozen=True)
class Modes:
    """A basis of values, in which each coordinate has variance one and none goes with another.

    That is so by a reference covariance; what frames say of it is another matter.

    Parameters
    ----------
    basis : array [values, modes]
        value - mean = basis @ coordinate
    inverse : array [modes, values]
        coordinate = inverse @ (value - mean)
    strength : array [modes]
        Variance over that of independent counting, by theory; NaN where it does not say.
    """

    basis: Array
    inverse: Array
    strength: Array

    @classmethod
    def of(cls, reference: Array, unit: Array, sizes: Sequence[int]) -> Modes:
        """Of a covariance [values, values] in units of variances [values].

        Theory speaks of those values that have a unit; of the others, NaN, each observable, of so
        many values as ``sizes`` say, has modes of its own: a scalar is one. Directions in which
        theory's covariance is none (not positive) are taken for those of unit variance that nothing
        is known of. Values that never change have no mode.
        """
        alone = np.isnan(unit)
        least = _LEAST_UNIT * np.max(unit[~alone], initial=0.0)
        size = np.sqrt(np.where(alone, np.diag(reference), np.where(unit > least, unit, 0.0)))
        group = np.where(alone, np.repeat(np.arange(len(sizes)), sizes), -1)
        parts = []
        for number in np.unique(group):
            where = np.flatnonzero((group == number) & (size > 0))
            scaled = reference[np.ix_(where, where)] / np.outer(size[where], size[where])
            strength, vectors = np.linalg.eigh(scaled)
            is_positive = strength > _LEAST_STRENGTH
            scale = np.sqrt(np.where(is_positive, strength, 1.0))
            basis = np.zeros((len(reference), len(where)))
            inverse = np.zeros((len(where), len(reference)))
            basis[where] = size[where, None] * vectors * scale
            inverse[:, where] = (vectors / scale).T / size[where]
            is_known = is_positive & ~alone[where]
            parts.append((basis, inverse, np.where(is_known, strength, np.nan)))
        bases, inverses, strengths = zip(*parts, strict=True)
        return cls(np.concatenate(bases, 1), np.concatenate(inverses), np.concatenate(strengths))

    @property
    def known(self) -> Mask:
        """Does theory speak of it? [modes]"""
        return np.isfinite(self.strength)


@dataclass(frozen=True)
class Seen:
    """Modes as weighted frames see them.

    Parameters
    ----------
    modes : Modes
    deviations : array [frames, values], value - mean
    weights : array [frames], normalised
    blocks : Blocks
    alone : array [frames]
        Weights of each run by itself, see ``inefficiency``.
    """

    modes: Modes
    deviations: Array
    weights: Array
    blocks: Blocks
    alone: Array

    @cached_property
    def coordinates(self) -> Array:
        """[frames, modes]"""
        return self.deviations @ self.modes.inverse.T

    @cached_property
    def covariance(self) -> Array:
        """Of the coordinates in one frame, as the frames have it, [modes, modes]."""
        return (self.coordinates * self.weights[:, None]).T @ self.coordinates

    @cached_property
    def n_frames(self) -> float:
        """1 / sum w^2: frames that would make the same noise if none hung together."""
        return float(1 / np.sum(self.weights**2))

    @cached_property
    def inefficiency(self) -> Array:
        """Frames per independent one, of each mode, [modes]."""
        return inefficiency(self.coordinates, self.weights, self.blocks, self.alone)

    @property
    def n_independent(self) -> Array:
        """Frames that are independent in each mode, [modes]."""
        return self.n_frames / self.inefficiency

    def share(self, prior_frames: float) -> Array:
        """How much of each mode is left to the frames, n / (n + M_0), [modes]."""
        return np.asarray(self.n_independent / (self.n_independent + prior_frames))

    def share_by_evidence(self, prior_frames: float) -> Array:
        """As ``share``, of modes that theory knows, by how well the frames agree, [modes].

        A mode that theory gives variance 1, and n independent frames r, has the evidence

            p(r | M_0) = F(r; n, M_0),

        that of an inverse-chi-squared variance of M_0 frames' worth. Taken is the mean of the
        share over M_0, of which the logarithm is normal beforehand, about ``prior_frames``; but a
        wave that is amplified to many times what independent counts would do is known the less.
        """
        n, found = self.n_independent[:, None], np.diag(self.covariance)[:, None]
        amplified = np.maximum(np.nan_to_num(self.modes.strength), 1.0)
        m = (prior_frames / amplified**2)[:, None] * np.exp(_SPREAD * _GRID)
        evidence = variance_ratio.logpdf(found, n, m) - 0.5 * _GRID**2
        evidence[~np.isfinite(evidence)] = -np.inf
        evidence -= evidence.max(axis=1, keepdims=True)
        odds = np.exp(np.where(self.modes.known[:, None], evidence, -0.5 * _GRID**2))
        return np.asarray((odds * n / (n + m)).sum(axis=1) / odds.sum(axis=1))

    def mixed_covariance(self, share: Array) -> Array:
        """Of the coordinates, [modes, modes]: (1 - s) + s^1/2 C s^1/2 with the frames' C."""
        root = np.sqrt(share)
        return np.asarray(root[:, None] * self.covariance * root + np.diag(1 - share))

    def frame_covariance(self, share: Array) -> Array:
        """Covariance of the values [values, values] in what counts as one independent frame."""
        basis = self.modes.basis * np.sqrt(self.inefficiency)
        return np.asarray(basis @ self.mixed_covariance(share) @ basis.T)

    def jacobian(self, of_frames: Array, of_prior: Array, share: Array) -> Array:
        """Derivatives of the values [values, coefficients], of frames J and beforehand J_0, mixed.

        Features are thought to be S = L a + e with the coordinates a of the modes that theory
        knows, e going with none of them. So J = C J_0 + R, in the
        basis of the modes; C is mixed as for the values, the rest R, small and thought to be zero,
        has the share of the frames. So a large and slow fluctuation, which all features share and
        few frames tell of, spoils no other mode.
        """
        own, prior = self.modes.inverse @ of_frames, self.modes.inverse @ of_prior
        known = self.modes.known
        found = prior + share[:, None] * (own - prior)
        block = np.ix_(known, known)
        rest = own[known] - self.covariance[block] @ prior[known]
        mixed = self.mixed_covariance(share)[block] @ prior[known]
        found[known] = mixed + share[known, None] * rest
        return np.asarray(self.modes.basis @ found)


def inefficiency(series: Array, weights: Array, blocks: Blocks, alone: Array) -> Array:
    """Frames per independent one, of the average of each series of deviations [frames, series].

    Within runs, by the correlations of influences; and where it is more, between runs, by what is
    as slow as a run is long: the average of each by itself, which has n_k = 1 / sum w^2 frames,
    scatters with the variance g / n_k.

    Parameters
    ----------
    weights : array [frames], of the average of all runs
    alone : array [frames], of the averages of each run by itself, which add up to 1 in each
    """
    influence = weights[:, None] * series
    error = error_of_sum(blocks.sums(influence), blocks, weights)
    independent = np.sum(influence**2, axis=0)
    within = error.spread**2 / np.where(independent > 0, independent, 1.0)
    variance = weights @ series**2
    between = _between_runs(series / np.sqrt(np.where(variance > 0, variance, 1.0)), blocks, alone)
    return np.asarray(np.clip(np.maximum(within, between), 1.0, len(influence)))


def _between_runs(series: Array, blocks: Blocks, alone: Array) -> Array:
    """g of series of unit variance; zero where they may scatter as independent frames do."""
    run = blocks.run[blocks.of_frame]
    frames = 1 / np.bincount(run, alone**2)
    used = frames > _FEWEST_OF_RUN
    if used.sum() < _FEWEST_RUNS:
        return np.zeros(series.shape[1])
    means = np.zeros((len(frames), series.shape[1]))
    np.add.at(means, run, alone[:, None] * series)
    means, frames = means[used], frames[used]
    scatter = frames @ (means - frames @ means / frames.sum()) ** 2
    freedom = used.sum() - 1
    return np.where(scatter > chi2.ppf(_CHANCE, freedom), scatter / freedom, 0.0)
