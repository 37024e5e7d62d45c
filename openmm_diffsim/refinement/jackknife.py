"""What the noise of the frames does to a fit, found by leaving stretches of them out.

The inverse of the Hessian is the covariance of a fit where its Jacobian J and the noise C are
right. Both are made of the frames that the averages are made of, so J^T C^-1 prefers what happened
to fluctuate little, or fast, in these: along the softest mode of a melt of chains, which is slow as
well, a third of the true variance was left. Frames that a solution was made without tell. Of the
solutions c_b without one of B stretches of equal weight,

    V = (B - 1) / B sum_b (c_b - <c>) (c_b - <c>)^T

(the jackknife of correlated series: Kuensch, Ann. Statist. 17, 1217 (1989)). V has B - 1 degrees of
freedom, too few for its own modes, so it is asked along those of the covariance, one by one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..samples import Samples, View
from .methods import GaussNewtonOptions
from .methods.gauss_newton import LinearModel
from .state import FitView

Array = NDArray[np.float64]

_STRETCHES = 10  # long, for what is slow to be over within one
_FEWEST = 10  # effective frames in each


def excess(view: FitView, options: GaussNewtonOptions, covariance: Array) -> Array:
    """What has to be added to the covariance of a solution, [parameters, parameters].

    Along each mode of its correlations: what V is above the noise that the frames are said to have,
    and as many times that as the targets have of such noise. Nothing where frames are few.
    """
    if not all(frames.n_effective >= _STRETCHES * _FEWEST for frames in view.frames):
        return np.zeros_like(covariance)
    error = np.sqrt(np.diag(covariance))
    size = np.where(error > 0, error, 1.0)
    _, modes = np.linalg.eigh(covariance / np.outer(size, size))
    ahead, back = size[:, None] * modes, modes.T / size
    own, like_own = LinearModel.of(view, options).noise(covariance)
    found = np.sum((back @ _spread(view, options)) ** 2, axis=1)
    said = np.einsum("ki,ij,kj->k", back, own, back)
    beside = np.einsum("ki,ij,kj->k", back, like_own, back)
    more = np.maximum(found - said, 0.0) * (1 + beside / np.where(said > 0, said, np.inf))
    return np.asarray((ahead * more) @ ahead.T)


def _spread(view: FitView, options: GaussNewtonOptions) -> Array:
    """R with V = R R^T, [parameters, stretches]."""
    places = [_stretch_of(frames) for frames in view.frames]
    whole = [_unguarded(state.frames) for state in view.states]
    found = []
    for number in range(_STRETCHES):
        pools = [w.without(place == number) for w, place in zip(whole, places, strict=True)]
        states = [replace(s, pool=p) for s, p in zip(view.states, pools, strict=True)]
        left = FitView(view.potential, tuple(states), view.parameters)
        found.append(LinearModel.of(left, options).undamped().step().change)
    each = np.array(found).T
    share = np.sqrt((_STRETCHES - 1) / _STRETCHES)
    return np.asarray(share * (each - each.mean(axis=1, keepdims=True)))


def _stretch_of(frames: View) -> NDArray[np.int64]:
    """Number of the stretch of each frame, [frames]; all are of about the same weight."""
    weights = frames.weights.numpy(force=True)
    return np.floor(_STRETCHES * (np.cumsum(weights) - weights / 2)).astype(np.int64)


def _unguarded(samples: Samples) -> Samples:
    """The same, which may be averaged however few are effective."""
    return replace(samples, floor=0.0).with_mixture(samples.log_mixture)
