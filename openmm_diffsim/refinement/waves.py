"""What pair counts have to look like, where no theory of the fluid is at hand, as for molecules.

The smallest eigenvalues of a covariance of few frames come out too small, and they are those of the
soft modes: a step overshoots along them. The frames themselves say what is missing:

- Counts fluctuate by wave number. With y(r) = sqrt(shell / g) (g_n(r) - g(r)), in which counts of
  independent particles are white noise, the covariance of a fluid that is the same everywhere is
  nearly diagonal in the sine transform of y. The target T of the shrinkage is just that: diagonal
  in these modes, with the variances that the frames have; as many numbers as there are bins, each
  known to (2 / n)^1/2.
- What potentials are coefficients of, sums S over pairs, are sums over the bins that a g(r) counts,
  S = G A + R: Cov(A, S) of the target is T G^T. Both are shrunk alike, as blocks of one covariance.
- How far, a = M_0 / (M_0 + n), the frames say as well: M_0, in frames, has the largest evidence
  where the covariance is inverse-Wishart distributed about T. Where T is wrong, M_0 is small.
  It is three for each value at most: then little is left of the noise, and n frames overrule
  a target whose faults are in too few modes to be told.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dst
from scipy.optimize import minimize_scalar
from scipy.special import multigammaln

from ..observables import Observable
from ..observables.base import CountedPairs
from ..samples import View
from .modes import Modes

Array = NDArray[np.float64]

_FEWEST, _MOST = 1e-1, 3.0  # prior frames, and those for each value
_SEEN = 1e-12  # of the largest variance: below, a value is constant

Places = list[tuple[slice, CountedPairs | None]]


def counted_by(observables: Sequence[Observable], n_particles: int) -> Places:
    """Where the values of each are, and what pairs it counts."""
    ends = np.cumsum([o.n_values for o in observables]).tolist()
    places = [slice(end - o.n_values, end) for o, end in zip(observables, ends, strict=True)]
    alike = np.zeros(n_particles, dtype=np.int64)
    return [(p, o.counted_pairs(alike)) for p, o in zip(places, observables, strict=True)]


def wave_modes(counted: Places, mean: Array, covariance: Array) -> Modes:
    """Radial waves of each g(r), other values by themselves, each of the variance that it has.

    Parameters
    ----------
    counted : as ``counted_by`` has it
    mean : array [values]
    covariance : array [values, values], of one frame
    """
    n = len(mean)
    forth, back = [], []
    for here, pairs in counted:
        variance = np.diag(covariance)[here]
        seen = np.flatnonzero(variance > _SEEN * variance.max(initial=0.0))
        waves, scale = np.eye(len(seen)), np.ones(len(seen))
        if pairs is not None:
            seen = seen[mean[here][seen] > 0]
            scale = np.sqrt(mean[here][seen] / pairs.shells[seen])
            waves = dst(np.eye(len(seen)), type=4, norm="ortho", axis=0)
        place = np.zeros((n, len(seen)))
        place[here.start + seen, np.arange(len(seen))] = 1.0
        forth.append(waves / scale @ place.T)
        back.append(place * scale @ waves.T)
    there, again = np.concatenate(forth), np.concatenate(back, axis=1)
    size = np.sqrt(np.einsum("mv,vw,mw->m", there, covariance, there))
    return Modes(again * size, there / size[:, None], np.full(len(size), np.nan))


def reach_of(view: View, counted: Places, values: Array, features: Array, weights: Array) -> Array:
    """G, [features, values], of all pair potentials by all g(r); NaN where it is not known."""
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
