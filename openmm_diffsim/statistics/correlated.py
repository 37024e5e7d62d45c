"""Errors of what is estimated from correlated frames.

To first order the error of an estimate is the sum of the influences of all frames; that of a
weighted average is w_n (A_n - <A>), summed up over n. Its variance is that of a sum over a
correlated series. Frames are put together in about a hundred blocks, whose influences I_b are again
such a series, with less noise in its correlations. Every value has its own: one that is slow beside
a fast energy, or a gradient, whose influence is a product of two. So

    Var = g C_0,    g = 1 + 2 sum_{0 < t <= M} C_t / C_0,    C_t = sum_b I_b I_{b+t}

within runs, M before the first C_t that is not positive. The mean of each run k, of n_k blocks, is
taken off, which lowers C_t by (1 - t / n_k) / n_k of g C_0 in it: that is put back once. B is the
number of independent blocks, those that carry the weight over 2 M + 1 or, where that is less,
2 g - 1, and nu is B less the number of runs. A standard error has Student's factor for nu degrees
of freedom in it: two of them hold the truth in 95 of 100 cases also where blocks are few; with
runs of ten correlation times, in 93 to 95.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

MOST_BLOCKS = 100
_FEWEST_BLOCKS = 20  # of a run
_LEAST_FREEDOM = 0.5  # degrees of freedom, for an error to be known
_CONFIDENCE = 0.95  # which Student's factor is for


@dataclass(frozen=True)
class Blocks:
    """Contiguous stretches of frames, in order; none crosses from one run to the next."""

    of_frame: IntArray  # [frames]
    run: IntArray  # [blocks]

    def __len__(self) -> int:
        return len(self.run)

    def sums(self, series: Array) -> Array:
        """Of a series over frames, [frames, ...], in each block, [blocks, ...]."""
        found = np.zeros((len(self), *series.shape[1:]))
        np.add.at(found, self.of_frame, series)
        return found

    def of_runs(self, of_blocks: Array) -> Array:
        """Sums over the blocks of each run, [runs, ...], of [blocks, ...]."""
        found = np.zeros((self.run[-1] + 1, *of_blocks.shape[1:]))
        np.add.at(found, self.run, of_blocks)
        return found

    def centered(self, influence: Array) -> Array:
        """Less its mean in each run, [blocks, ...]."""
        n = self.of_runs(np.ones(len(self))).reshape(-1, *[1] * (influence.ndim - 1))
        return np.asarray(influence - (self.of_runs(influence) / n)[self.run])


def assign_blocks(lengths: Sequence[int], most: int = MOST_BLOCKS) -> Blocks:
    """About ``most`` blocks of runs of so many frames; 20 at least of each that has them."""
    of_frame, total = [np.zeros(0, dtype=np.int64)], max(sum(lengths), 1)
    run: list[int] = []
    for k, length in enumerate(lengths):
        wanted = max(round(most * length / total), min(_FEWEST_BLOCKS, most))
        n = min(wanted, length)
        of_frame.append(len(run) + (np.arange(length) * n) // max(length, 1))
        run += [k] * n
    return Blocks(np.concatenate(of_frame), np.array(run, dtype=np.int64))


@dataclass(frozen=True)
class SumError:
    """How uncertain sums of correlated influences are."""

    standard_error: Array  # [...]; infinite where fewer than 1.5 blocks of a run tell of it
    freedom: Array  # [...], nu of each
    length: Array  # [...], how many blocks make an independent one

    @property
    def spread(self) -> Array:
        """The standard errors without Student's factor: of the estimate, were g known, [...]."""
        return np.asarray(self.standard_error / student_factor(self._nu))

    def interval(self, value: Array, confidence: float = 0.95) -> tuple[Array, Array]:
        """Both ends of the confidence interval, by Student's t."""
        wide = t.ppf(0.5 + confidence / 2, self._nu) * self.spread
        return value - wide, value + wide

    @property
    def _nu(self) -> Array:
        return np.maximum(self.freedom, _LEAST_FREEDOM)


def student_factor(freedom: Array) -> Array:
    """What a standard error is larger by, for a normal's interval to be Student's."""
    quantile = 0.5 + _CONFIDENCE / 2
    each, where = np.unique(freedom, return_inverse=True)  # a few, of many values
    factor = t.ppf(quantile, each) / norm.ppf(quantile)
    return np.asarray(factor[where.reshape(np.shape(freedom))])


def error_of_sum(influence: Array, blocks: Blocks, weights: Array) -> SumError:
    """Of sum_b I_b; the equations stand above.

    Parameters
    ----------
    influence : array [blocks, ...]
        I_b of any number of values.
    weights : array [frames], normalised
        Of how many blocks and runs the sums are.
    """
    shape = influence.shape[1:]
    series = blocks.centered(influence.reshape(len(blocks), -1))
    correlations, lost = _autocorrelations(series, blocks.run)
    total, _ = _initial_sequence(correlations)
    g = total / np.where(total > 0, correlations[0], 1.0)
    total, length = _initial_sequence(correlations + g * lost)
    of_block = blocks.sums(weights)
    n_blocks = _participating(of_block) / length
    freedom = n_blocks - _participating(blocks.of_runs(of_block))
    known = freedom >= _LEAST_FREEDOM
    nu = np.where(known, freedom, 1.0)
    error = np.sqrt(total) * student_factor(nu)
    return SumError(
        np.where(known, error, np.inf).reshape(shape), freedom.reshape(shape), length.reshape(shape)
    )


def covariance_of_sum(influence: Array, blocks: Blocks, error: SumError) -> Array:
    """Covariance of sum_n I_n, each value with the variance that ``error`` gives it.

    D R D, with D the standard errors and R the correlations of the influences of overlapping
    stretches of independent length, which know of slow modes, shrunk toward those of single frames,
    which are more. How far follows from the noise of the former against the difference of both
    (Ledoit and Wolf, J. Empir. Finance 10, 603 (2003)): R is positive definite where there are more
    frames than values.

    Parameters
    ----------
    influence : array [frames, values]
    error : SumError of these values, from ``error_of_sum``

    Returns
    -------
    array [values, values]; infinite variances on the diagonal where they are not known.
    """
    of_frames = _correlation(influence - influence.mean(axis=0))
    length = int(np.ceil(error.length.mean()))
    stretches = _stretches(blocks.centered(blocks.sums(influence)), blocks.run, length)
    of_blocks = _correlation(stretches)
    noise = np.sum((1 - of_blocks**2) ** 2) / max(len(blocks) / length - 1, 1)
    distance = np.sum((of_blocks - of_frames) ** 2)
    share = min(1.0, noise / distance) if distance > 0 else 1.0
    correlation = (1 - share) * of_blocks + share * of_frames
    known = np.isfinite(error.standard_error)
    size = np.where(known, error.standard_error, 0.0)
    covariance = size[:, None] * correlation * size
    covariance[~known, ~known] = np.inf
    return np.asarray(covariance)


def _stretches(series: Array, run: IntArray, length: int) -> Array:
    """Sums over all stretches of so many blocks of a run, [stretches, values]."""
    parts = []
    for part in np.split(series, np.flatnonzero(np.diff(run)) + 1):
        sums = np.cumsum(np.concatenate([np.zeros((1, part.shape[1])), part]), axis=0)
        own = min(length, len(part))
        parts.append(sums[own:] - sums[:-own])
    return np.concatenate(parts)


def _correlation(deviations: Array) -> Array:
    """Of columns, [values, values], with 1 on the diagonal; 0 with what does not vary."""
    size = np.linalg.norm(deviations, axis=0)
    scaled = deviations / np.where(size > 0, size, 1.0)
    correlation = scaled.T @ scaled
    np.fill_diagonal(correlation, 1.0)
    return np.asarray(correlation)


def _autocorrelations(series: Array, run: IntArray) -> tuple[Array, Array]:
    """C_t of centered series [blocks, values], added up over runs, [lags, values].

    And what centering took off, for g = 1, of the same shape.
    """
    parts = np.split(series, np.flatnonzero(np.diff(run)) + 1)
    longest = max(map(len, parts))
    spectra: Any = 0.0
    lost = np.zeros((longest, series.shape[1]))
    for part in parts:
        n = len(part)
        spectra = spectra + np.abs(np.fft.rfft(part, 2 * longest, axis=0)) ** 2
        lost[:n] += np.outer((1 - np.arange(n) / n) / n, np.sum(part**2, axis=0))
    return np.asarray(np.fft.irfft(spectra, 2 * longest, axis=0)[:longest]), lost


def _initial_sequence(correlations: Array) -> tuple[Array, Array]:
    """g C_0, and how many blocks make an independent one, [values] each."""
    first = correlations[0]
    kept = np.logical_and.accumulate(correlations > 0, axis=0)
    lags = np.maximum(kept.sum(axis=0) - 1, 0)
    total = np.maximum(2 * np.sum(correlations * kept, axis=0) - first, first)
    g = total / np.where(first > 0, first, 1.0)
    return total, np.maximum(np.minimum(2 * lags + 1, 2 * g - 1), 1.0)


def _participating(weights: Array) -> float:
    """1 / sum w^2: how many carry normalised weights."""
    return float(1.0 / np.sum(weights**2))
