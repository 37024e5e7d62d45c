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
- Where there is no theory, as of molecules, the Jacobian is that of the frames, and its noise many
  times the answer of soft modes. What of it is no noise stretches of the frames tell, and it is
  shrunk to that: see ``Normal.belief``. What nothing answers to, the prior alone decides.
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
  No parameter changes by more than its own prior is wide.
- The Jacobian of a dynamic observable is measured on few segments, without theory that of a g(r)
  on few frames, and how a box at constant pressure answers on few independent volumes. Its noise
  damps the step: see ``Normal.damped``.

The covariance of c' is the inverse of the Hessian; what the data leave open shows in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce

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
_LARGEST_STEP = 4.0  # kT, with it
_MOST_WIDTHS = 1.0  # of its prior, that a parameter changes by
_LEAST_SEEN = 1e-12  # of the largest eigenvalue of a Hessian: below, nothing is measured
_LEAST_SHARE = 0.5  # of a mode that is true, for a step: else it goes astray with few frames
_RIDGE = 1e-9  # of the largest entry of a Hessian


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

    def largest_step(self, potential: Potential) -> float:
        """kT: more where the linear model bounds the step, see ``_excess``."""
        return _LARGEST_STEP if potential.energy_is_linear else 1.0

    def propose(self, view: FitView) -> Step:
        """The minimum of the linear model of all targets."""
        if not view.potential.energy_is_linear:
            return Step(frame_space.change(view, self.options))
        model = LinearModel.of(view, self.options)
        step = to_minimum(view, model)
        return replace(step, change=step.change / max(_excess(step.change, view, model), 1.0))


def to_minimum(view: FitView, model: LinearModel) -> Step:
    """The step to the minimum, however far that is."""
    step = model.step()
    if view.potential.is_linear:
        return step
    models: dict[tuple[float, ...], tuple[Array, Array]] = {}
    groups = [tuple(view.kelvins[k] for k in members) for _, members in view.groups]
    parts = zip(groups, model.each, model.from_prior, model.precisions, strict=True)
    for kelvins, data, offset, precision in parts:
        bold = data.along(data.belief[1])
        hessian, slope = bold.damped, bold.slope
        if precision is not None:
            hessian, slope = hessian + precision, slope + precision @ offset
        if kelvins in models:  # the same coefficients
            hessian, slope = hessian + models[kelvins][0], slope + models[kelvins][1]
        models[kelvins] = hessian, slope
    theta = follow(view.potential, view.parameters, [*models], [*models.values()], view.prior)
    return Step((theta - view.parameters).numpy(), step.covariance)


@dataclass(frozen=True)
class LinearModel:
    """All groups of targets as linear functions of the parameters, and the prior.

    Parameters
    ----------
    comparisons : one per group of targets
    chains : dc/dtheta of each, [coefficients at its state points, parameters]
    from_prior : of each c - c_0, [coefficients at all state points of the group]
    precisions : of the prior on all of these, [coefficients, coefficients], or None
    of_parameters : precision of each parameter's own prior, and that times theta - mean,
        [parameters] each
    """

    comparisons: Sequence[Comparison]
    chains: Sequence[Array]
    from_prior: Sequence[Array]
    precisions: Sequence[Array | None]
    of_parameters: tuple[Array, Array] | None = None

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

    @cached_property
    def each(self) -> list[Normal]:
        """Of each group of targets, in its coefficients."""
        return [Normal.of(comparison) for comparison in self.comparisons]

    @cached_property
    def data(self) -> Normal:
        """Of all targets, in the parameters."""
        pairs = zip(self.each, self.chains, strict=True)
        return reduce(Normal.__add__, (own.along(chain) for own, chain in pairs))

    @cached_property
    def prior(self) -> tuple[Array, Array]:
        """Hessian and slope of both priors, in the parameters."""
        precision, slope = self._of_each
        hessian = np.diag(precision)
        for chain, offset, own in zip(self.chains, self.from_prior, self.precisions, strict=True):
            if own is not None:
                hessian = hessian + chain.T @ own @ chain
                slope = slope + chain.T @ (own @ offset)
        return hessian, slope

    @property
    def _of_each(self) -> tuple[Array, Array]:
        n = self.chains[0].shape[1]
        return (np.zeros(n), np.zeros(n)) if self.of_parameters is None else self.of_parameters

    def step(self, is_damped: bool = True) -> Step:
        """To the minimum; or, not damped, to what the frames say, however far it is."""
        prior, pull = self.prior
        known, bold = (self.data.along(k) for k in self.data.belief)
        hessian = known.hessian + prior
        slope = (bold if is_damped else known).slope + pull
        damped = bold.damped + prior if is_damped else hessian
        acts = np.any([chain.any(axis=0) for chain in self.chains], axis=0)  # others are given
        own = np.diag(self.data.hessian + prior)
        # For what neither data nor a prior decide; a parameter's own prior is not outweighed.
        ridge = _RIDGE * np.where(self._of_each[0] > 0, own, own.max(initial=0.0))
        ridge = np.diag(np.where(acts, ridge, 1.0))
        covariance = np.asarray(np.linalg.inv(hessian + ridge))
        change = -np.linalg.solve(damped + ridge, slope)
        return Step(np.where(acts, change, 0.0), np.where(np.outer(acts, acts), covariance, 0.0))


@dataclass(frozen=True)
class Normal:
    """Normal equations of targets, in coefficients or parameters."""

    hessian: Array
    """J^T C^-1 J, [n, n]."""
    noise: Array
    """E^T C^-1 E of the noise E of a Jacobian that was measured, [stretches, n, n].

    Summed over stretches of frames it is what it adds to the Hessian.
    """
    slope: Array
    """J^T C^-1 r, [n]."""

    @classmethod
    def of(cls, view: Comparison) -> Normal:
        """In the coefficients of a comparison."""
        hessian, slope = linear_model(view)
        if view.jacobian_noise is None:
            return cls(hessian, np.zeros((0, *hessian.shape)), slope)
        return cls(hessian, view.jacobian_noise.parts(view.weighting), slope)

    def along(self, k: Array) -> Normal:
        """Of J K in place of J, with k [n, m]."""
        return Normal(k.T @ self.hessian @ k, k.T @ self.noise @ k, k.T @ self.slope)

    def __add__(self, other: Normal) -> Normal:
        noise = np.concatenate([self.noise, other.noise])
        return Normal(self.hessian + other.hessian, noise, self.slope + other.slope)

    @property
    def damped(self) -> Array:
        """The Hessian, and what the noise adds to it, [n, n].

        The misfit expected after a step x is that of J alone plus x^T <E^T C^-1 E> x: a step is
        shorter along what was measured badly.
        """
        return np.asarray(self.hessian + self.noise.sum(axis=0))

    @cached_property
    def belief(self) -> tuple[Array, Array]:
        """K, [n, n]: what of a Jacobian is no noise is J K; and a larger one, for a step.

        H = J^T C^-1 J holds the noise N of J. With R R^T = H, the modes of 1 - R^-1 N R^-T have
        the shares that are true, s = F / (F + N), and K = R^-T s R^T shrinks J to them (James and
        Stein: the noise of the response of soft modes is many times the response). A step is long
        where s is small; its K has s and the standard error of that, and at least a half.
        """
        if not self.noise.any():
            return (np.eye(len(self.slope)),) * 2
        size = np.sqrt(np.diag(self.hessian))
        size = np.where(size > 0, size, 1.0)
        values, vectors = np.linalg.eigh(self.hessian / np.outer(size, size))
        seen = values > _LEAST_SEEN * values[-1]
        root = size[:, None] * vectors[:, seen] * np.sqrt(values[seen])
        back = vectors[:, seen] / np.sqrt(values[seen]) / size[:, None]
        lost = back.T @ self.noise @ back
        shares, modes = np.linalg.eigh(np.eye(seen.sum()) - lost.sum(axis=0))
        error = np.sqrt((np.einsum("ik,bij,jk->bk", modes, lost, modes) ** 2).sum(axis=0))
        ahead, again = back @ modes, root @ modes
        bold = np.clip(shares + error, _LEAST_SHARE, 1)
        return ahead * np.clip(shares, 0, 1) @ again.T, ahead * bold @ again.T


def _precision(view: FitView, members: Sequence[int], roughness: float) -> Array | None:
    """The prior's, of the coefficients at all state points of a group; None where there is none."""
    found = [view.prior_precision(k, roughness) for k in members]
    return None if found[0] is None else np.asarray(block_diag(*found))


def _of_parameters(view: FitView) -> tuple[Array, Array] | None:
    if view.prior is None:
        return None
    return view.prior.precision, view.prior.slope(view.parameters.numpy(force=True))


def _excess(change: Array, view: FitView, model: LinearModel) -> float:
    """How many times too large a change of parameters is for the linear model to be good.

    Where theory knows the liquid, waves must not grow or decay by much; else, where frames alone
    say how it answers, u(r) must not change by more than about kT. No parameter may go farther
    than its prior is wide: that is how far it is likely to be from the truth, and for parameters of
    which no u(r) is known, as those of a System, nothing else tells a step that noise has made.
    """
    size = view.step_size(change) or 0.0
    excess = [0.0]
    if view.prior is not None:
        widths = np.abs(change) / view.prior.standard_deviation
        excess.append(float(widths.max()) / _MOST_WIDTHS)
    for comparison, chain in zip(model.comparisons, model.chains, strict=True):
        if comparison.growth is None:
            excess.append(size / _MOST_ALONE)
        else:
            growth = comparison.growth @ (chain @ change)
            excess += [float(growth.max()), -float(growth.min()) / _MOST_DECAY]
    return max(excess)


def linear_model(view: Comparison) -> tuple[Array, Array]:
    """Hessian and slope of the misfit of a group of targets, in its coefficients."""
    weighted = (view.weighting @ view.jacobian).T
    return weighted @ view.jacobian, weighted @ view.residual


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
