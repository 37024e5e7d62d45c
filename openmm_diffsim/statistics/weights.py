"""Reweighting: from the states that were sampled to the one that is asked for.

Frames n = 1..N come from states k = 1..K, N_k from each, with reduced potentials
u_k(x) = beta_k (U_k(x) + p_k V(x)). An average in a state with reduced potential u is

    <A> = sum_n w_n A_n,   w = softmax(-u(x_n) - log sum_k N_k exp(f_k - u_k(x_n))),

the MBAR mixture weights (Shirts and Chodera, J. Chem. Phys. 129, 124105 (2008)); one state gives
w = softmax(-(u - u_1)). The free energies f_k are constants of what was sampled: they are not
differentiated. Autograd of the softmax is the covariance formula
d<A> = <dA> - <A du> + <A><du>.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

Array = NDArray[np.float64]

_LEAST_SLOPE = 1e-9  # frames
_MOST_ITERATIONS = 500
_FLAT = 1e-8  # of the largest curvature


def log_mixture(u_kn: Array, n_k: NDArray[np.int64]) -> tuple[Array, Array]:
    """log sum_k N_k exp(f_k - u_k(x_n)) with the MBAR free energies f_k, and its slope.

    Returned are [frames] and p_kn, [states, frames], its derivative with respect to f_k: from which
    state each frame may be.

    Parameters
    ----------
    u_kn : array [states, frames]
        Reduced potential of every frame in every sampled state.
    n_k : int array [states]
        Number of frames from each state; frames are in the order of the states.
    """
    if len(n_k) == 1:
        return np.asarray(np.log(n_k[0]) - u_kn[0]), np.ones_like(u_kn)
    shifted = u_kn - u_kn.min(axis=0)  # the same for all states: cancels, but saves digits
    exponent = np.log(n_k)[:, None] + free_energies(shifted, n_k)[:, None] - u_kn
    mixture = np.asarray(np.logaddexp.reduce(exponent, axis=0))
    return mixture, np.exp(exponent - mixture)


def free_energy_influence(p_kn: Array, n_k: NDArray[np.int64]) -> Array:
    """What each frame adds to the error of f_k, to first order, [states, frames].

    f solves sum_n p_kn = N_k, whose derivative is diag(N) - p p^T.
    """
    curvature = np.diag(n_k.astype(np.float64)) - p_kn @ p_kn.T
    return np.asarray(-np.linalg.pinv(curvature, rcond=_FLAT, hermitian=True) @ p_kn)


def free_energies(u_kn: Array, n_k: NDArray[np.int64]) -> Array:
    """MBAR reduced free energies f_k, shape [states], f_0 = 0.

    They minimize the convex function sum_n log sum_k N_k exp(f_k - u_k(x_n)) - sum_k N_k f_k.
    Where it is flat, between states without overlap, the start decides: half of the mean energy
    differences seen from both sides. A trust region never leaves it for where the minimum is not,
    as Newton's method alone does there.
    """

    def posterior(f: Array) -> tuple[Array, Array]:
        """Log of the mixture, [frames], and of which state each frame may be, [states, frames]."""
        exponent = (np.log(n_k) + np.append(0.0, f))[:, None] - u_kn
        mixture = np.logaddexp.reduce(exponent, axis=0)
        return mixture, np.exp(exponent - mixture)

    def value(f: Array) -> float:
        return float(posterior(f)[0].sum() - n_k[1:] @ f)

    def slope(f: Array) -> Array:
        return np.asarray((posterior(f)[1].sum(axis=1) - n_k)[1:])

    def curvature(f: Array) -> Array:
        p = posterior(f)[1][1:]
        return np.asarray(np.diag(p.sum(axis=1)) - p @ p.T)

    start = _first_free_energies(u_kn, n_k)[1:]
    options = {"gtol": _LEAST_SLOPE, "maxiter": _MOST_ITERATIONS}
    found = minimize(value, start, method="trust-exact", jac=slope, hess=curvature, options=options)
    # The value is flat to rounding before the slope is: one step more, along what is determined.
    last = found.x - np.linalg.pinv(found.hess, rcond=_FLAT, hermitian=True) @ found.jac
    ends = (found.x, last)
    return np.append(0.0, min(ends, key=lambda f: float(np.abs(slope(f)).max())))


def _first_free_energies(u_kn: Array, n_k: NDArray[np.int64]) -> Array:
    ends = np.cumsum(n_k)
    means = np.array(
        [u_kn[:, end - n : end].mean(axis=1) for end, n in zip(ends, n_k, strict=True)]
    )
    steps = [
        0.5 * (means[k, k + 1] - means[k, k] + means[k + 1, k + 1] - means[k + 1, k])
        for k in range(len(n_k) - 1)
    ]
    return np.concatenate([[0.0], np.cumsum(steps)])


def softmax_weights(u_n: Tensor, log_denominator: Tensor) -> Tensor:
    """Normalised weights, shape [frames], differentiable with respect to ``u_n`` [frames]."""
    return torch.softmax(-u_n - log_denominator, dim=0)


def n_effective(weights: Tensor) -> float:
    """Effective number of frames, entropy form exp(-sum w ln w).

    Between 1 and the number of frames. Counts correlated frames as if they were independent.
    """
    w = weights.detach()
    return float(torch.exp(-torch.xlogy(w, w).sum()))
