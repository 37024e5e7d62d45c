"""Noise-aware Gauss-Newton: where the linear model of all targets says that the answer is.

At coefficients c, with A the pooled averages of all targets t and J their Jacobian, the next
coefficients minimize

    (A + J (c' - c) - t)^T C^-1 (A + J (c' - c) - t) + |D2 (c' - c_0)|^2 / q.

- C holds the noise of the targets and that of the averages themselves, so noise is not fitted.
  A g(r) that was sampled has noise that is strongly correlated between bins: its long waves are
  known 1/S(k)^2 times better than independent counts would be, and they decide the soft modes.
  With that C, the minimum is the maximum-likelihood one: for noise like that of the model's own
  frames, J^T C^-1 J = beta^2 Cov(S, S), the Hessian of the relative entropy.
- J and C are judged mode by mode, see ``refinement.modes``: each mode of g(r) is known as well as
  its own correlation time lets it, and is that of the frames or that of liquid-state theory as far
  as either can be believed. Few frames give noise, of which the smallest eigenvalues come out too
  small: those of the soft modes, along which a step then overshoots. Theory has no noise but is
  approximate. It keeps the weight of M_0 frames where the frames agree with it, and loses it mode
  by mode where they do not.
- Where there is no theory, as of molecules, pair counts are taken to fluctuate by wave number, as
  far as the frames say so: see ``refinement.waves``.
- There is no theory of a network. In its place stand points that fluctuate independently: fewer
  frames than points give a singular covariance, whose inverse would weigh most what no frame shows.
- The prior says that c differs from the potential of mean force c_0 by something smooth:
  beta (w - u) = ln y(r) up to a constant, and the cavity function y is smooth, through the core
  too. Its second derivative is white noise of spectral density q. The default leaves u(r) free at
  the distance of knots wherever pairs are: a stronger one would count as data, and c_0 has the
  noise of these already. Where no pair ever was, the prior alone decides. A digitised g(r), of
  independent points, leaves more open between them, and the prior is stronger.
- A step goes as far as the linear model is good for: no wave of the liquid may grow much, which is
  what happens near phase separation; without theory, u(r) changes by kT at most.
- The Jacobian of a dynamic observable is measured on few segments, without theory that of a g(r)
  on few frames, and how a box at constant pressure answers on few independent volumes. Its noise
  damps the step: see ``damping``.

The covariance of c' is the inverse of the Hessian; what the data leave open shows in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import block_diag
from scipy.optimize import least_squares
from torch import Tensor

from ...potentials import ParameterPrior, Potential
from ..comparison import Comparison
from ..state import FitView
from . import frame_space
from .base import Step
from .options import GaussNewtonOptions, roughness_of

Array = NDArray[np.float64]

_MOST_ITERATIONS = 30  # of the nonlinear least squares
_MOST_DECAY = 4.0  # of a long wave in a step, in units of the growth that is bearable
_MOST_ALONE = 1.0  # kT, without theory


@dataclass
class GaussNewton:
    """Noise-aware Gauss-Newton on all pooled frames; see ``refinement.methods.gauss_newton``.

    Works with every potential: its parameters enter through the coefficients. Where the energy is
    linear in these, the step is taken in their space, with the potential's own prior; else, as for
    a network, in the space of the frames, see ``refinement.methods.frame_space``. What is known of
    the parameters themselves (``Potential.set_prior``) counts in both.
    """

    uses_prior = True
    options: GaussNewtonOptions = field(default_factory=GaussNewtonOptions)

    def propose(self, view: FitView) -> Step:
        """The minimum of the linear model of all targets."""
        if not view.potential.energy_is_linear:
            return Step(frame_space.change(view, self.options))
        model = LinearModel.of(view, self.options)
        step = model.step()
        if view.potential.is_linear:
            return replace(step, change=_bounded(step.change, view, model))
        models = []
        parts = zip(model.comparisons, model.from_prior, model.precisions, strict=True)
        for comparison, offset, precision in parts:
            hessian, slope = linear_model(comparison, offset, precision)
            models.append((hessian + damping(comparison), slope))
        groups = [members for _, members in view.groups]
        temperatures = [[view.states[k].temperature for k in members] for members in groups]
        theta = follow(view.potential, view.parameters, temperatures, models, view.prior)
        change = (theta - view.parameters).numpy()
        return Step(_bounded(change, view, model), step.covariance)


@dataclass(frozen=True)
class LinearModel:
    """All groups of targets as linear functions of the parameters, and the prior; see ``solve``."""

    comparisons: Sequence[Comparison]
    chains: Sequence[Array]
    from_prior: Sequence[Array]
    precisions: Sequence[Array | None]
    of_parameters: tuple[Array, Array] | None = None
    """Precision and slope of the prior of parameters, [parameters] each; see ``solve``."""

    @classmethod
    def of(cls, view: FitView, options: GaussNewtonOptions) -> LinearModel:
        """At the parameters of a view, of which the energy is linear in the coefficients."""
        groups = [members for _, members in view.groups]
        comparisons = view.compare(options)
        pairs = zip(groups, comparisons, strict=True)
        return cls(
            comparisons,
            [np.concatenate([view.chain(k) for k in members]) for members in groups],
            [np.concatenate([view.from_prior(k) for k in members]) for members in groups],
            [_precision(view, members, roughness_of(c, options)) for members, c in pairs],
            _of_parameters(view),
        )

    def undamped(self) -> LinearModel:
        """The same as if the Jacobian had no noise: what the frames say, not how far to go."""
        exact = [replace(c, jacobian_noise=None) for c in self.comparisons]
        return replace(self, comparisons=exact)

    def step(self) -> Step:
        """To the minimum."""
        known = (self.from_prior, self.precisions, self.of_parameters)
        return solve(self.comparisons, self.chains, *known)

    def noise(self, covariance: Array) -> tuple[Array, Array]:
        """What the noise of frames, and of targets like frames, is of a covariance of the step.

        G N G^T with G = H^-1 J^T W, for either noise N, [parameters, parameters] each.
        """
        own, like_own = np.zeros_like(covariance), np.zeros_like(covariance)
        for comparison, chain in zip(self.comparisons, self.chains, strict=True):
            pull = (comparison.weighting @ (comparison.jacobian @ chain)) @ covariance
            own += pull.T @ (comparison.own_noise @ pull)
            sampled = comparison.is_sampled[:, None] * pull
            like_own += sampled.T @ (comparison.target_noise @ sampled)
        return own, like_own


def _precision(view: FitView, members: Sequence[int], roughness: float) -> Array | None:
    """The prior's, of the coefficients at all state points of a group; None where there is none."""
    found = [view.prior_precision(k, roughness) for k in members]
    return None if found[0] is None else np.asarray(block_diag(*found))


def _of_parameters(view: FitView) -> tuple[Array, Array] | None:
    if view.prior is None:
        return None
    return view.prior.precision, view.prior.slope(view.parameters.numpy(force=True))


def _bounded(change: Array, view: FitView, model: LinearModel) -> Array:
    """As much of a change of parameters as the linear model is good for.

    Where theory knows the liquid, waves must not grow or decay by much; else, where frames alone
    say how it answers, u(r) must not change by more than about kT.
    """
    size = view.step_size(change) or 0.0
    excess = [1.0]
    for comparison, chain in zip(model.comparisons, model.chains, strict=True):
        if comparison.growth is None:
            excess.append(size / _MOST_ALONE)
        else:
            growth = comparison.growth @ (chain @ change)
            excess += [float(growth.max()), -float(growth.min()) / _MOST_DECAY]
    return change / max(excess)


def linear_model(
    view: Comparison, from_prior: Array, precision: Array | None
) -> tuple[Array, Array]:
    """Hessian and slope of the misfit of a group of targets, plus the prior, in its coefficients.

    Parameters
    ----------
    from_prior : c - c_0, [coefficients at all state points of the group]
    precision : of the prior on all of these, [coefficients, coefficients], or None
    """
    weighted = (view.weighting @ view.jacobian).T
    hessian, slope = weighted @ view.jacobian, weighted @ view.residual
    if precision is not None:
        hessian, slope = hessian + precision, slope + precision @ from_prior
    return hessian, slope


def damping(view: Comparison) -> Array:
    """What the noise of the Jacobian adds to the Hessian, [coefficients] squared.

    With J + E of which J was measured, the misfit expected after a step x is that of J alone plus
    x^T <E^T C^-1 E> x: a step is shorter along what was measured badly.
    """
    if view.jacobian_noise is None:
        size = view.jacobian.shape[1]
        return np.zeros((size, size))
    return view.jacobian_noise.damping(view.weighting)


def solve(
    views: Sequence[Comparison],
    chains: Sequence[Array],
    from_prior: Sequence[Array],
    precisions: Sequence[Array | None],
    of_parameters: tuple[Array, Array] | None = None,
) -> Step:
    """The minimum of the linear model, for parameters that the coefficients are linear in.

    Parameters
    ----------
    views : one per group of targets
    chains : dc/dtheta of each, [coefficients at its state points, parameters]
    from_prior, precisions : of each, see ``linear_model``
    of_parameters : precision of each parameter's own prior, and that times theta - mean,
        [parameters] each
    """
    acts = np.any([chain.any(axis=0) for chain in chains], axis=0)
    if not acts.all():  # some change nothing, as those of pairs of types that are given
        few = None if of_parameters is None else (of_parameters[0][acts], of_parameters[1][acts])
        step = solve(views, [chain[:, acts] for chain in chains], from_prior, precisions, few)
        return _among(step, acts)
    n = chains[0].shape[1]
    known, slope = (np.zeros(n), np.zeros(n)) if of_parameters is None else of_parameters
    hessian, damped = np.diag(known), np.diag(known)
    for view, chain, offset, precision in zip(views, chains, from_prior, precisions, strict=True):
        own_hessian, own_slope = linear_model(view, offset, precision)
        hessian = hessian + chain.T @ own_hessian @ chain
        damped = damped + chain.T @ (own_hessian + damping(view)) @ chain
        slope = slope + chain.T @ own_slope
    is_open = known == 0
    covariance = np.asarray(np.linalg.inv(_with_ridge(hessian, is_open)))
    change = -np.asarray(np.linalg.solve(_with_ridge(damped, is_open), slope))
    return Step(change, covariance)


def _with_ridge(hessian: Array, is_open: NDArray[np.bool_]) -> Array:
    """For what neither data nor a prior decide; a parameter's own prior is not outweighed."""
    own = np.diag(hessian)
    return np.asarray(hessian + 1e-9 * np.diag(np.where(is_open, own.max(), own)))


def _among(step: Step, acts: NDArray[np.bool_]) -> Step:
    """A step of some parameters as one of all: the others stay, and are known."""
    change, covariance = np.zeros(len(acts)), np.zeros((len(acts), len(acts)))
    change[acts] = step.change
    assert step.covariance is not None
    covariance[np.ix_(acts, acts)] = step.covariance
    return Step(change, covariance)


def follow(
    potential: Potential,
    parameters: Tensor,
    temperatures: Sequence[Sequence[float]],
    models: Sequence[tuple[Array, Array]],
    prior: ParameterPrior | None = None,
) -> Tensor:
    """The parameters at the minimum of the ``linear_model`` of each group, from these.

    The model is quadratic in the coefficients, those at each temperature of the group (K) one
    after the other; they may depend on the parameters in any way (an exponent, a network), of which
    the ``prior`` is known besides.
    Nonlinear least squares.
    """

    def coefficients(theta: Tensor, kelvins: Sequence[float]) -> Array:
        parts = [potential.coefficients_at(theta, t).numpy(force=True) for t in kelvins]
        return np.concatenate(parts)

    start = [coefficients(parameters, kelvins) for kelvins in temperatures]
    roots, shifts = zip(*(_square_root(*model) for model in models), strict=True)

    theta = parameters.numpy(force=True)
    root_of_prior, _ = (np.zeros((0, len(theta))), 0) if prior is None else prior.rows(theta)

    def residuals(theta: Array) -> Array:
        now = [coefficients(torch.from_numpy(theta), kelvins) for kelvins in temperatures]
        parts = zip(roots, shifts, now, start, strict=True)
        own = [] if prior is None else [prior.rows(theta)[1]]
        return np.concatenate([*(root @ (c - c_0) + e for root, e, c, c_0 in parts), *own])

    def slopes(theta: Array) -> Array:
        rows = []
        for root, kelvins in zip(roots, temperatures, strict=True):
            parts = np.split(root, len(kelvins), axis=1)
            pairs = zip(parts, kelvins, strict=True)
            at = torch.from_numpy(theta)
            rows.append(sum(potential.pull_back(part, at, t) for part, t in pairs))
        return np.concatenate(rows)

    acts = slopes(theta).any(axis=0)  # what changes nothing stays

    def whole(part: Array) -> Array:
        found = theta.copy()
        found[acts] = part
        return found

    few = acts.sum() <= len(roots[0])
    solution = least_squares(
        lambda part: residuals(whole(part)),
        theta[acts],
        lambda part: np.concatenate([slopes(whole(part)), root_of_prior])[:, acts],
        x_scale="jac" if few else 1.0,
        max_nfev=_MOST_ITERATIONS,
    )
    return torch.from_numpy(whole(solution.x))


def _square_root(hessian: Array, slope: Array) -> tuple[Array, Array]:
    """R and e with |R x + e|^2 / 2 = x^T hessian x / 2 + slope^T x up to a constant."""
    values, vectors = np.linalg.eigh(hessian)
    seen = values > 1e-12 * values[-1]
    scale = np.sqrt(values[seen])
    return scale[:, None] * vectors[:, seen].T, vectors[:, seen].T @ slope / scale
