"""Gauss-Newton for a network: the step in the space that the sampled frames span.

A network has too many parameters for a Hessian, but frames see only a few directions of them. With
B the gradients of U/kT in each frame, about their mean and times sqrt(w), the Jacobian of all
averages is J = -a^T B + E: a the values about their mean times sqrt(w), E what depends on the
parameters explicitly (a virial, a segment). The step x minimizes

    (r + J x)^T C^-1 (r + J x) + m |B x|^2 + |P^1/2 (c + x - c_0)|^2 + e |x / s|^2,

with r the residuals and C their covariance, in an orthonormal basis of the rows of B, E and P, so
with as many unknowns as there are frames.

- |B x|^2 is the variance of the change of U/kT, the Fisher metric: reweighting reaches as far as
  that is of order one. m >= tr(C^-1 C_own), the noise of J in that metric: with a Jacobian J + F of
  which J was measured, the misfit expected after the step has <x^T F^T C^-1 F x> besides.
- m is raised until the step is one that the frames reach.
- P is what is known beforehand: of a pair potential that is learned in the network or beside it,
  and of parameters themselves.
- s is the size of a parameter, the rms of the tensor that it is part of. A length in nm and a
  weight of a network are then the same to e, whatever their units: one that moves U by a hundred kT
  does not hold back those that move it by a thousandth.

Within the reach of the frames several such steps are taken; far from the targets, one stride
beyond it. How far a linear response holds is a matter of the change per particle, how far
reweighting reaches of that of all particles together. So a stride may change U/kT by a variance
that grows with their number.

What few frames see of some directions asks for large changes of the parameters, which the network
does not follow linearly. So the ridge is raised until U of the frames, after a stride, or the
misfit, within reach, changes about as it should: that leaves these directions out, where
shortening the step would leave little of anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ...potentials.parameters import split
from ...samples.view import View, explicit
from ...units import beta
from ..comparison import Comparison
from ..state import FitView
from .options import GaussNewtonOptions, roughness_of

Array = NDArray[np.float64]

_SEEN = 1e-6  # of the largest weight: frames with less say nothing
_EXPLICIT_FRAMES = 100  # enough for E, which varies little from frame to frame
_MOST_DOUBLINGS = 60
_LEAST_OVERLAP = 0.4  # of n_effective, that an update leaves
_WITHIN_REACH = 0.5  # variance of the change of U/kT that reweighting bears
_RIDGES = tuple(10.0**k for k in range(-2, 6))  # e of a step, until it is nearly linear
_LEAST_SIZE = 0.1  # of the median size of all tensors: one that is zero may become something
_MOST_NONLINEAR = 0.5  # of what a stride changes
_AS_EXPECTED = 0.5  # of what a step within reach should gain
_WORTHWHILE = 0.98  # of the misfit: a step that gains less is the last


def change(view: FitView, options: GaussNewtonOptions) -> Array:
    """What to change of the parameters, [parameters]."""
    enough = view.enough(_LEAST_OVERLAP)
    per_particle = options.stride
    variances = [max(_WITHIN_REACH, per_particle * s.state_point.n_particles) for s in view.states]
    now = view
    for _ in range(options.network_steps):
        problem = Problem.at(now, options)
        if max(variances) > _WITHIN_REACH:
            further = _stride(problem, variances)
            if further is not None:
                now = further
                break
            variances = [_WITHIN_REACH] * len(variances)
        now, gained = _step_within_reach(problem, enough)
        if gained > _WORTHWHILE:
            break
    return now.change.expand_as(view.parameters).numpy(force=True)


@dataclass(frozen=True)
class Problem:
    """What a step is to make small, at one set of parameters."""

    view: FitView
    options: GaussNewtonOptions
    comparisons: Sequence[Comparison]
    rows: Sequence[Rows]
    prior: Prior

    @staticmethod
    def at(view: FitView, options: GaussNewtonOptions) -> Problem:
        """The problem where the view is."""
        comparisons = view.compare(options, jacobian=False)
        prior = Prior.at(view, _roughness(view, comparisons, options))
        return Problem(view, options, comparisons, rows_at(view, comparisons), prior)

    def step(self, variances: Sequence[float], ridge: float) -> Array:
        """x, [parameters]."""
        return step(self.comparisons, self.rows, variances, ridge, self.prior)

    def expected(self, change: Array) -> float:
        """What the linear model says is left after a step."""
        prior = float(np.sum((self.prior.offsets + self.prior.rows @ change) ** 2))
        return expected_misfit(self.comparisons, self.rows, change) + prior

    def found(self, there: FitView) -> float:
        """What is left at other parameters, errors being those here."""
        prior = Prior.at(there, _roughness(there, self.comparisons, self.options)).offsets
        comparisons = there.compare(self.options, jacobian=False)
        return _misfit(self.comparisons, comparisons) + float(np.sum(prior**2))


def _stride(problem: Problem, variances: Sequence[float]) -> FitView | None:
    """After the longest step that the energies follow linearly: of small changes of the parameters.

    None if it is within reach.
    """
    view, rows = problem.view, problem.rows
    before = [frames.reduced_energies() for frames in view.frames]
    for ridge in _RIDGES:
        part = problem.step(variances, ridge)
        if all(np.sum((r.energies @ part) ** 2) <= _WITHIN_REACH for r in rows):
            return None
        there = view.moved(part)
        after = [frames.reduced_energies() for frames in there.frames]
        deviations = [
            r.nonlinearity(b - a, part) for r, a, b in zip(rows, before, after, strict=True)
        ]
        if max(deviations) <= _MOST_NONLINEAR:
            break
    return there


def _step_within_reach(problem: Problem, enough: Sequence[float]) -> tuple[FitView, float]:
    """After the step that makes the misfit fall as it should, or else the best; what is left."""
    nothing = np.zeros(len(problem.view.parameters))
    before = problem.expected(nothing)
    best, least = problem.view, before
    for ridge in _RIDGES:
        part = problem.step([_WITHIN_REACH] * len(problem.rows), ridge)
        there = problem.view.moved(part)
        if not there.reaches(enough):
            continue
        after = problem.found(there)
        if after < least:
            best, least = there, after
        if before - after >= _AS_EXPECTED * (before - problem.expected(part)):
            break
    return best, least / before


def _misfit(weights: Sequence[Comparison], found: Sequence[Comparison]) -> float:
    """r^T C^-1 r, with C of the first and r of the second."""
    pairs = zip(weights, found, strict=True)
    return float(sum(there.residual @ (here.weighting @ there.residual) for here, there in pairs))


@dataclass(frozen=True)
class Rows:
    """One state point in the space of its frames."""

    energies: Array  # B, [frames, parameters]
    values: Array  # -a^T of all points of its group, [points, frames]
    explicit: Array  # E, [points, parameters]
    weights: Array  # [all frames], zero for those that are left out
    group: int = 0  # which of the comparisons it is part of

    def nonlinearity(self, change: Array, step: Array) -> float:
        """How far U/kT of all frames has changed otherwise than it should by a step, relative."""
        seen = self.weights > 0
        w, found = self.weights[seen], change[seen]
        expected = self.energies @ step
        difference = np.sqrt(w) * (found - w @ found / w.sum()) - expected
        return float(np.linalg.norm(difference) / (np.linalg.norm(expected) + 1e-12))


@dataclass(frozen=True)
class Prior:
    """What is known of the parameters before anything is measured: |rows x + offsets|^2."""

    rows: Array  # P^1/2 dc/dtheta, [known, parameters]
    offsets: Array  # P^1/2 (c - c_0), [known]
    sizes: Array  # s, [parameters]

    @staticmethod
    def at(view: FitView, roughness: Sequence[float]) -> Prior:
        """That of the potential, with a roughness at each state point, and of its parameters."""
        rows, offsets = [np.zeros((0, len(view.parameters)))], [np.zeros(0)]
        if view.prior is not None:
            own, e = view.prior.rows(view.parameters.numpy(force=True))
            rows.append(own)
            offsets.append(e)
        for k, state in enumerate(view.states):
            apart = view.from_prior(k)
            for where, precision in view.prior_blocks(k, roughness[k]):
                values, vectors = np.linalg.eigh(precision)
                root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
                offsets.append(root @ apart[where])
                wide = np.zeros((len(root), len(apart)))
                wide[:, where] = root
                rows.append(view.potential.pull_back(wide, view.parameters, state.temperature))
        return Prior(np.concatenate(rows), np.concatenate(offsets), sizes_of(view))


def _roughness(
    view: FitView, comparisons: Sequence[Comparison], options: GaussNewtonOptions
) -> list[float]:
    """That of the group of each state point."""
    groups = zip(view.groups, comparisons, strict=True)
    found = {k: roughness_of(c, options) for (_, members), c in groups for k in members}
    return [found[k] for k in range(len(view.states))]


def sizes_of(view: FitView) -> Array:
    """How large each parameter is: the rms of the tensor that it is part of, [parameters].

    At least a tenth of the median of all tensors that are not zero, or 1 where all are.
    """
    tensors = split(view.potential, view.parameters.detach())
    rms = np.array([float(tensor.double().square().mean().sqrt()) for tensor in tensors])
    median = float(np.median(rms[rms > 0])) if (rms > 0).any() else 1 / _LEAST_SIZE
    return np.repeat(np.maximum(rms, _LEAST_SIZE * median), [t.numel() for t in tensors])


def rows_at(view: FitView, comparisons: Sequence[Comparison]) -> list[Rows]:
    """Those of every state point."""
    found: dict[int, Rows] = {}
    for group, ((_, members), comparison) in enumerate(zip(view.groups, comparisons, strict=True)):
        for k in members:
            found[k] = _rows_of(view, k, comparison, group)
    return [found[k] for k in range(len(view.states))]


def _rows_of(view: FitView, index: int, comparison: Comparison, group: int) -> Rows:
    """B, a and E of all targets of a state point."""
    frames, state = view.frames[index], view.states[index]
    samples = frames.samples
    w = frames.weights.numpy(force=True)
    seen = w > _SEEN * w.max()
    root = np.sqrt(w[seen])
    c = frames.coefficients.detach().clone().requires_grad_(True)
    slopes = samples.learned.select(seen).linear(c.detach(), virials=False).energies
    slopes = slopes - root**2 @ slopes / np.sum(root**2)

    def pull_back(rows: Array) -> Array:
        return view.potential.pull_back(rows, view.parameters, state.temperature)

    n_points = len(comparison.residual)
    a = np.zeros((n_points, len(root)))
    along = np.zeros((n_points, len(c)))
    at_leaf, few = View(samples, c), _few(frames)
    for target, where in comparison.places():
        _, maps = target.linearized(*(mean.detach() for mean in view.averages(target)))
        for (point, observable), jacobian in zip(target.terms, maps, strict=True):
            if point is state.state_point:
                values = at_leaf.values(observable)
                deviations = values.numpy(force=True)
                deviations = deviations - w @ deviations
                a[where] += jacobian @ (deviations[seen] * root[:, None]).T
                along[where] += jacobian @ explicit(few @ values, c)
    energies = beta(samples.temperature) * root[:, None] * pull_back(slopes)
    return Rows(energies, -a, pull_back(along), np.where(seen, w, 0.0), group)


def _few(frames: View) -> torch.Tensor:
    """Weights of some of the frames, [frames], normalised."""
    weights = frames.weights.detach()
    stride = max(1, len(weights) // _EXPLICIT_FRAMES)
    some = weights * (torch.arange(len(weights)) % stride == 0)
    return some / some.sum()


def step(
    views: Sequence[Comparison],
    rows: Sequence[Rows],
    largest_variances: Sequence[float],
    ridge: float,
    prior: Prior,
) -> Array:
    """The step x, [parameters], whose change of U/kT has at most that variance at each state.

    ``ridge`` is e.
    """
    # In units of the sizes of the parameters.
    energies = np.concatenate([r.energies for r in rows]) * prior.sizes
    explicit, known = _explicit(views, rows) * prior.sizes, prior.rows * prior.sizes
    has_explicit = explicit.any(axis=1)
    everything = np.concatenate([energies, explicit[has_explicit], known])
    basis, upper = np.linalg.qr(everything.T)  # upper.T: all rows in an orthonormal basis
    ends = np.cumsum([len(energies), has_explicit.sum()])
    own, other, smooth = np.split(upper.T, ends)
    parts = np.split(own, np.cumsum([len(r.energies) for r in rows])[:-1])
    jacobian = np.zeros((len(explicit), basis.shape[1]))
    jacobian[has_explicit] = other
    for place, r, part in zip(_places(views, rows), rows, parts, strict=True):
        jacobian[place] += r.values @ part
    each = zip(views, _of_views(views, jacobian), strict=True)
    weighted = np.concatenate([view.weighting @ part for view, part in each])
    residual = np.concatenate([view.residual for view in views])
    hessian = weighted.T @ jacobian + smooth.T @ smooth
    slope = weighted.T @ residual + smooth.T @ prior.offsets
    identity = np.eye(len(hessian))
    noise = [view.weighting.trace_with(view.own_noise) for view in views]
    metrics = [part.T @ part for part in parts]
    m = np.array([noise[r.group] for r in rows])
    for _ in range(_MOST_DOUBLINGS):
        damped = hessian + sum(k * metric for k, metric in zip(m, metrics, strict=True))
        z = -np.linalg.solve(damped + ridge * identity, slope)
        variances = np.array([z @ metric @ z for metric in metrics])
        too_far = variances > np.asarray(largest_variances)
        if not too_far.any():
            break
        m = np.where(too_far, 2 * np.maximum(m, 1e-3), m)
    return np.asarray(prior.sizes * (basis @ z))


def expected_misfit(views: Sequence[Comparison], rows: Sequence[Rows], change: Array) -> float:
    """(r + J x)^T C^-1 (r + J x) of all points."""
    residuals = [np.array(view.residual) for view in views]
    for row in rows:
        residuals[row.group] += row.values @ (row.energies @ change) + row.explicit @ change
    pairs = zip(residuals, views, strict=True)
    return float(sum(residual @ (view.weighting @ residual) for residual, view in pairs))


def _of_views(views: Sequence[Comparison], rows: Array) -> list[Array]:
    """The rows of each, of what has a row for every point of all."""
    ends = np.cumsum([len(view.residual) for view in views])
    return np.split(rows, ends[:-1])


def _places(views: Sequence[Comparison], rows: Sequence[Rows]) -> list[slice]:
    """Where the points of each state point's group are among all."""
    ends = np.cumsum([len(view.residual) for view in views])
    return [slice(ends[r.group] - len(r.values), ends[r.group]) for r in rows]


def _explicit(views: Sequence[Comparison], rows: Sequence[Rows]) -> Array:
    """E of all points, [points, parameters]."""
    total = np.zeros((sum(len(v.residual) for v in views), rows[0].explicit.shape[1]))
    for place, r in zip(_places(views, rows), rows, strict=True):
        total[place] += r.explicit
    return total
