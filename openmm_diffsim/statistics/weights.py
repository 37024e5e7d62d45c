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

import logging
import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


def log_mixture(u_kn: Array, n_k: NDArray[np.int64]) -> Array:
    """log sum_k N_k exp(f_k - u_k(x_n)) with the MBAR free energies f_k, shape [frames].

    Parameters
    ----------
    u_kn : array [states, frames]
        Reduced potential of every frame in every sampled state.
    n_k : int array [states]
        Number of frames from each state; frames are in the order of the states.
    """
    if len(n_k) == 1:
        return np.asarray(np.log(n_k[0]) - u_kn[0])
    shifted = u_kn - u_kn.min(axis=0)  # the same for all states: cancels, but saves digits
    exponent = np.log(n_k)[:, None] + free_energies(shifted, n_k)[:, None] - u_kn
    return np.asarray(np.logaddexp.reduce(exponent, axis=0))


def free_energies(u_kn: Array, n_k: NDArray[np.int64]) -> Array:
    """MBAR reduced free energies f_k, shape [states], f_0 = 0.

    They minimize the convex function sum_n log sum_k N_k exp(f_k - u_k(x_n)) - sum_k N_k f_k
    (pymbar solves it); states without overlap leave their relative free energy undetermined,
    and then the start decides: half of the mean energy differences seen from both sides.
    """
    logging.getLogger("pymbar").setLevel(logging.ERROR)
    from pymbar import MBAR

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymbar gives SciPy options that it does not know
        solver = MBAR(u_kn, n_k, initial_f_k=_first_free_energies(u_kn, n_k))
    return np.asarray(solver.f_k, dtype=np.float64)


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
