"""Covariances of few frames, shrunk toward what pair counts have to look like.

The smallest eigenvalues of a sampled covariance come out too small, and they are those of the soft
modes: a step from few frames overshoots along them. Where no theory of the fluid is at hand, as for
molecules, the frames themselves say what is missing:

- Counts fluctuate by wave number. With y(r) = sqrt(shell / g) (g_n(r) - g(r)), in which counts of
  independent particles are white noise, the covariance of a fluid that is the same everywhere is
  nearly diagonal in the sine transform of y. The target T of the shrinkage is just that: diagonal
  in these modes, with the variances that the frames have; as many numbers as there are bins, each
  known to (2 / n)^1/2.
- What potentials are coefficients of, sums S over pairs, are sums over the bins that a g(r) counts,
  S = G A + R: Cov(A, S) of the target is T G^T. Both are shrunk alike, as blocks of one covariance.
- Long waves relax slowly: each mode has its own correlation time.
- How far, a = M_0 / (M_0 + n), the frames say as well: M_0, in frames, has the largest evidence
  where the covariance is inverse-Wishart distributed about T. Where T is wrong, M_0 is small.
  It is three for each value at most: then little is left of the noise, and n frames overrule
  a target whose faults are in too few modes to be told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dst
from scipy.linalg import block_diag
from scipy.optimize import minimize_scalar
from scipy.special import multigammaln

from ..observables import Observable
from ..observables.base import CountedPairs
from ..samples import View
from ..statistics.averages import assign_blocks, effective_blocks, statistical_inefficiency

Array = NDArray[np.float64]

_FEWEST, _MOST = 1e-1, 3.0  # prior frames, and those for each value
_BLOCKS, _FEWEST_BLOCKS = 20, 4  # of all frames: what is slow shows between them
_SEEN = 1e-12  # of the largest variance: below, a value is constant


@dataclass(frozen=True)
class Modes:
    """Directions of some values that fluctuate nearly independently."""

    forth: Array  # [modes, values], to modes
    back: Array  # [values, modes]; back @ forth = 1 for values that fluctuate, 0 for others

    @classmethod
    def of_values(cls, variance: Array) -> Modes:
        """Each value by itself."""
        seen = np.flatnonzero(variance > _SEEN * variance.max(initial=0.0))
        pick = np.zeros((len(seen), len(variance)))
        pick[np.arange(len(seen)), seen] = 1.0
        return cls(pick, pick.T)

    @classmethod
    def of_counts(cls, g: Array, shells: Array, variance: Array) -> Modes:
        """Radial waves of a g(r), both [bins]: sin(k_m (r - r_0)), k_m = (m + 1/2) pi / range.

        r_0 is where pairs are first found; a wave ends there, but not at the last bin.
        """
        bins = cls.of_values(np.where(g > 0, variance, 0.0))
        scale = np.sqrt(bins.forth @ (g / shells))
        waves = dst(np.eye(len(scale)), type=4, norm="ortho", axis=0)
        return cls(waves @ (bins.forth / scale[:, None]), (bins.back * scale) @ waves.T)

    @classmethod
    def stacked(cls, parts: Sequence[Modes]) -> Modes:
        """Of values one after the other."""
        return cls(block_diag(*(p.forth for p in parts)), block_diag(*(p.back for p in parts)))


@dataclass(frozen=True)
class Shrunk:
    """Blocks of one covariance."""

    covariance: Array  # of values, of one of n independent frames, [values, values]
    change: Array  # of that of values and features in a frame, by the shrinkage, [values, features]
    n: float  # independent frames
    share: float  # a, of the target


def shrink(
    values: Array,
    features: Array,
    weights: Array,
    inefficiency: Array,
    n_effective: float,
    modes: Modes,
    reach: Array,
) -> Shrunk:
    """Cov(A, A) and Cov(A, S), linearly shrunk toward independent modes.

    Parameters
    ----------
    values : A, [frames, values]
    features : S, [frames, features]
    weights : [frames], normalised
    inefficiency : frames per independent one, of each mode, [modes]
    n_effective : frames; n is that over the median inefficiency
    modes : of the values
    reach : G, [features, values]; NaN in rows of features and in columns of values of which it is
        not known: there Cov(A, S) stays as it is
    """
    a, s = values - weights @ values, features - weights @ features
    weighted = weights[:, None] * a
    covariance, response = weighted.T @ a, weighted.T @ s
    of_modes = modes.forth @ covariance @ modes.forth.T
    variance = np.diag(of_modes)
    scale = np.sqrt(variance)
    correlation = of_modes / np.outer(scale, scale)
    usual = float(np.median(inefficiency))
    n = n_effective / usual
    prior = prior_frames(np.linalg.eigvalsh(correlation), n)
    share = prior / (prior + n)
    target = (modes.back * variance) @ modes.back.T
    known = np.isfinite(reach)
    from_target = np.where(known.T, target @ np.where(known, reach, 0.0).T, response)
    slow = modes.back * (scale * np.sqrt(inefficiency / usual))
    both = (1 - share) * correlation + share * np.eye(len(scale))
    return Shrunk(slow @ both @ slow.T, share * (from_target - response), n, share)


def shrunk_of(
    view: View, observables: Sequence[Observable], values: Array, n_particles: int
) -> Shrunk:
    """Of all values of some observables, [frames, values], as a view weighs the frames.

    What goes along with the volume is known from the frames as it is: Cov(A, B) =
    <Cov(A, B | V)> + Cov(A, V) Cov(V, B) / Var(V), of which the first is shrunk.
    """
    weights, samples = view.weights.numpy(force=True), view.samples
    features = samples.learned.linear(view.coefficients, virials=False).energies
    volume = _volume(samples.volume, weights)
    a, s = (x - weights @ x for x in (values, features))
    along = (weights * volume) @ a
    a, s = a - np.outer(volume, along), s - np.outer(volume, (weights * volume) @ s)
    counted = _counted(observables, n_particles)
    modes = _modes(counted, weights @ values, weights @ a**2)
    reach = _reach(view, counted, values, features, weights)
    lengths = [run.n_frames for run in samples.runs]
    slow = inefficiencies(a @ modes.forth.T, weights, lengths)
    found = shrink(a, s, weights, slow, view.n_effective, modes, reach)
    slower = inefficiencies(volume[:, None], weights, lengths) / np.median(slow)
    return replace(found, covariance=found.covariance + slower * np.outer(along, along))


def inefficiencies(series: Array, weights: Array, lengths: Sequence[int]) -> Array:
    """Frames per independent one of each series of deviations, [frames, series].

    A little that is slow, beside much that is fast, does not show in the correlation of frames, but
    in that of blocks: the larger of both estimates. Frames are taken in the order of the runs, by
    their influence on the average, so that what changed with the potential is not counted.

    Parameters
    ----------
    series : [frames, series], of mean 0
    weights : [frames], normalised
    lengths : frames of each run
    """
    influence = weights[:, None] * series
    of_frames = np.array([statistical_inefficiency(len(series) * one) for one in influence.T])
    blocks = assign_blocks(lengths, 1.0, max(1, _BLOCKS // len(lengths)))
    n = effective_blocks(weights, blocks)
    if n < _FEWEST_BLOCKS:
        return of_frames
    sums = np.zeros((blocks.max() + 1, series.shape[1]))
    np.add.at(sums, blocks, influence)
    independent = (influence**2).sum(axis=0)
    of_blocks = n / (n - 1) * (sums**2).sum(axis=0) / np.where(independent > 0, independent, 1.0)
    return np.asarray(np.maximum(of_frames, of_blocks))


Places = list[tuple[slice, CountedPairs | None]]


def _counted(observables: Sequence[Observable], n_particles: int) -> Places:
    """Where the values of each are, and what pairs it counts."""
    ends = np.cumsum([o.n_values for o in observables]).tolist()
    places = [slice(end - o.n_values, end) for o, end in zip(observables, ends, strict=True)]
    alike = np.zeros(n_particles, dtype=np.int64)
    return [(p, o.counted_pairs(alike)) for p, o in zip(places, observables, strict=True)]


def _modes(counted: Places, mean: Array, variance: Array) -> Modes:
    return Modes.stacked(
        [
            Modes.of_values(variance[here])
            if pairs is None
            else Modes.of_counts(mean[here], pairs.shells, variance[here])
            for here, pairs in counted
        ]
    )


def _reach(view: View, counted: Places, values: Array, features: Array, weights: Array) -> Array:
    """G of ``shrink``: of all pair potentials, by all g(r)."""
    reach = np.full((features.shape[1], values.shape[1]), np.nan)
    per_volume = 1 / view.samples.volume
    found = [(here, pairs) for here, pairs in counted if pairs is not None]
    counts = [values[:, here] * pairs.shells * per_volume[:, None] for here, pairs in found]
    for where, pair in view.samples.potential.pairs() if found else []:
        bases = [pair.basis.values(pairs.r) for _, pairs in found]
        own = features[:, where].reshape(len(features), pair.n_pairs, -1)
        parts = pair_sums(counts, bases, own, weights)
        for (here, pairs), part in zip(found, parts, strict=True):
            of_values = part * pairs.shells * (weights @ per_volume)
            reach[where, here] = of_values.reshape(-1, of_values.shape[-1])
    return reach


def _volume(volume: Array, weights: Array) -> Array:
    """Its deviations in units of their standard deviation, [frames]; zero where it is constant."""
    deviations = volume - weights @ volume
    spread = np.sqrt(weights @ deviations**2)
    varies = np.isfinite(spread) and spread > _SEEN * np.abs(volume).max()
    return np.asarray(deviations / spread if varies else np.zeros_like(volume))


def prior_frames(spectrum: Array, n: float) -> float:
    """M_0 of the largest evidence, given the eigenvalues of T^-1/2 C T^-1/2, [values].

    C is the covariance that n independent frames have, of normally distributed values of
    covariance Sigma, and Sigma is inverse-Wishart distributed with M_0 + p + 1 degrees of freedom,
    p being the number of values, and mean T. Then <Sigma> = (M_0 T + n C) / (M_0 + n). (Chen,
    J. Royal Stat. Soc. B 41, 235 (1979).)
    """
    p, e = len(spectrum), np.maximum(spectrum, 0.0)

    def loss(log_prior: float) -> float:
        m = np.exp(log_prior)
        half = (m + p + 1) / 2
        return float(
            multigammaln(half, p)
            - multigammaln(half + n / 2, p)
            - half * p * np.log(m)
            + (half + n / 2) * np.log(m + n * e).sum()
        )

    ends = np.log(_FEWEST), np.log(_MOST * p)
    return float(np.exp(minimize_scalar(loss, bounds=ends, method="bounded").x))


def pair_sums(
    counts: Sequence[Array], bases: Sequence[Array], features: Array, weights: Array
) -> list[Array]:
    """G of features that are sums over pairs: sum_j B_k(r_j) times the pairs in bin j.

    Which share of the pairs of each type a g(r) counts, and its norm, the frames say: least squares
    over all frames and functions of the basis, one number for each g(r) and pair of types.

    Parameters
    ----------
    counts : of each g(r) what is proportional to the pairs in each bin, [frames, bins]
    bases : of each the functions of the basis at its bins, [bins, functions]
    features : [frames, pairs of types, functions]
    weights : [frames], normalised

    Returns
    -------
    list of arrays [pairs of types, functions, bins], per unit of ``counts``
    """
    sums = np.stack([c @ b for c, b in zip(counts, bases, strict=True)])
    root = np.sqrt(weights)[:, None]
    x = (root * (sums - np.einsum("n,onk->ok", weights, sums)[:, None])).reshape(len(sums), -1)
    y = root[..., None] * (features - np.einsum("n,npk->pk", weights, features))
    shares = np.linalg.lstsq(x.T, y.transpose(0, 2, 1).reshape(-1, features.shape[1]), rcond=1e-6)
    return [share[:, None, None] * basis.T for share, basis in zip(shares[0], bases, strict=True)]
