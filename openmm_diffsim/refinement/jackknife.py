"""What the noise of the frames does to a fit, found by leaving stretches of them out.

The inverse of the Hessian is the covariance of a fit where its Jacobian J and the noise C are
right. Both are made of the frames that the averages are made of, so J^T C^-1 prefers what happened
to fluctuate little, or fast, in these: along the softest mode of a melt of chains, which is slow as
well, a third of the true variance was left. Frames that a solution was made without tell. Of the
solutions c_b without one of B stretches of equal weight,

    V = (B - 1) / B sum_b (c_b - <c>) (c_b - <c>)^T

(the jackknife of correlated series: Kuensch, Ann. Statist. 17, 1217 (1989)). V has B - 1 degrees of
freedom, too few for its own modes, so it is asked along those of the covariance, one by one.

J is noise in part, and the fit takes that for an answer: with G = H^-1 J^T C^-1 it is G J = 1, but
of the frames left out G_b J_b is a < 1 along soft modes (0.2 along the softest of water from 700
effective frames). A fit that came to rest did so where G r = 0, off by the noise of that over a.
So variances are divided by a^2, where no theory stands beside the frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..samples import View
from .methods import GaussNewtonOptions
from .methods.gauss_newton import LinearModel
from .state import FitView

Array = NDArray[np.float64]

_STRETCHES = 10  # long, for what is slow to be over within one
_FEWEST = 10  # effective frames in each
_LEAST_ANSWER = 0.2  # below, the frames know nothing of a mode


def excess(view: FitView, options: GaussNewtonOptions, covariance: Array) -> Array:
    """What has to be added to the covariance of a solution, [parameters, parameters].

    Along each mode of its correlations: what V is above the noise that the frames are said to have,
    and as many times that as the targets have of such noise; all of it over a^2. Nothing where
    frames are few.
    """
    if not all(frames.n_effective >= _STRETCHES * _FEWEST for frames in view.frames):
        return np.zeros_like(covariance)
    error = np.sqrt(np.diag(covariance))
    size = np.where(error > 0, error, 1.0)
    variance, modes = np.linalg.eigh(covariance / np.outer(size, size))
    ahead, back = size[:, None] * modes, modes.T / size
    own, like_own = LinearModel.of(view, options).noise(covariance)
    left = [_Left.out(view, options, number) for number in range(_STRETCHES)]
    said = np.einsum("ki,ij,kj->k", back, own, back)
    beside = np.einsum("ki,ij,kj->k", back, like_own, back)
    found = _spread(np.array([part.change for part in left]) @ back.T)
    more = np.maximum(found - said, 0.0) * (1 + beside / np.where(said > 0, said, np.inf))
    lost = np.mean([np.einsum("ki,ij,jk->k", back, part.lost, ahead) for part in left], axis=0)
    answer = np.clip(1 - lost, _LEAST_ANSWER, 1.0)
    return np.asarray((ahead * ((variance + more) / answer**2 - variance)) @ ahead.T)


@dataclass(frozen=True)
class _Left:
    """A solution without one stretch of the frames."""

    change: Array
    lost: Array
    """G (J - J_b), what of a change the frames of the stretch do not confirm; see above."""

    @classmethod
    def out(cls, view: FitView, options: GaussNewtonOptions, number: int) -> _Left:
        within = [_stretch_of(frames) == number for frames in view.frames]
        model = LinearModel.of(_without(view, within), options).undamped()
        step = model.step()
        assert step.covariance is not None
        lost = np.zeros_like(step.covariance)
        if all(comparison.growth is None for comparison in model.comparisons):
            bare = replace(options, theory=False, waves=False)
            other = _without(view, [~w for w in within]).compare(bare)
            for own, seen, chain in zip(model.comparisons, other, model.chains, strict=True):
                pull = (own.weighting @ (own.jacobian @ chain)) @ step.covariance
                lost += pull.T @ ((own.jacobian - seen.jacobian) @ chain)
        return cls(step.change, lost)


def _spread(each: Array) -> Array:
    """V along each mode, [modes], of solutions [stretches, modes]."""
    return np.asarray((_STRETCHES - 1) * np.var(each, axis=0))


def _without(view: FitView, frames: Sequence[NDArray[np.bool_]]) -> FitView:
    """The same fit with fewer frames of each state point, however few are effective."""
    states = []
    for state, out in zip(view.states, frames, strict=True):
        pool = replace(state.frames, floor=0.0).with_mixture(state.frames.log_mixture)
        states.append(replace(state, pool=pool.without(out)))
    return view.of(states)


def _stretch_of(frames: View) -> NDArray[np.int64]:
    """Number of the stretch of each frame, [frames]; all are of about the same weight."""
    weights = frames.weights.numpy(force=True)
    return np.floor(_STRETCHES * (np.cumsum(weights) - weights / 2)).astype(np.int64)
