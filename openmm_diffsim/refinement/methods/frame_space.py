"""Gauss-Newton for a network: the step in the space that the sampled frames span.

A network has too many parameters for a Hessian, but frames see only a few directions of them. With
B the gradients of U/kT in each frame, about their mean and times sqrt(w), the Jacobian of all
averages is J = -a^T B + E: a the values about their mean times sqrt(w), E what depends on the
parameters explicitly (a virial, a segment). The step x minimizes

    (r + J x)^T C^-1 (r + J x) + m |B x|^2 + e |x|^2,

with r the residuals and C their covariance, in an orthonormal basis of the rows of B and E, so
with as many unknowns as there are frames.

- |B x|^2 is the variance of the change of U/kT, the Fisher metric: reweighting reaches as far as
  that is of order one. m >= tr(C^-1 C_own), the noise of J in that metric: with a Jacobian J + F of
  which J was measured, the misfit expected after the step has <x^T F^T C^-1 F x> besides.
- m is raised until the step is one that the frames reach.

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

from ...samples.view import View, explicit
from ...units import beta
from ..comparison import Comparison, Knowledge
from ..state import FitView

Array = NDArray[np.float64]

_SEEN = 1e-6  # of the largest weight: frames with less say nothing
_EXPLICIT_FRAMES = 100  # enough for E, which varies little from frame to frame
_RIDGE = 1e-5  # e, of the largest eigenvalue
_MOST_DOUBLINGS = 60
_LEAST_OVERLAP = 0.4  # of n_effective, that an update leaves
_WITHIN_REACH = 0.5  # variance of the change of U/kT that reweighting bears
_RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of a step, until it is nearly linear
_MOST_NONLINEAR = 0.5  # of what a stride changes
_AS_EXPECTED = 0.5  # of what a step within reach should gain
_WORTHWHILE = 0.98  # of the misfit: a step that gains less is the last


def change(view: FitView, knowledge: Knowledge, most_steps: int, stride: float) -> Array:
    """What to change of the parameters, [parameters].

    ``stride`` is the variance of the change of U/kT that a stride may make, per particle.
    """
    enough = [
        max(_LEAST_OVERLAP * frames.n_effective, frames.samples.least_effective)
        for frames in view.frames
    ]
    variances = [max(_WITHIN_REACH, stride * s.state_point.n_particles) for s in view.states]
    now = view
    for _ in range(most_steps):
        comparisons = now.compare(knowledge, jacobian=False)
        rows = rows_at(now, comparisons)
        if max(variances) > _WITHIN_REACH:
            further = _stride(now, comparisons, rows, variances)
            if further is not None:
                now = further
                break
            variances = [_WITHIN_REACH] * len(variances)
        now, gained = _step_within_reach(now, comparisons, rows, knowledge, enough)
        if gained > _WORTHWHILE:
            break
    return now.change.expand_as(view.parameters).numpy(force=True)


def _stride(
    view: FitView,
    comparisons: Sequence[Comparison],
    rows: Sequence[Rows],
    variances: Sequence[float],
) -> FitView | None:
    """After the longest step that the energies follow linearly: of small changes of the parameters.

    None if it is within reach.
    """
    before = [frames.reduced_energies() for frames in view.frames]
    for ridge in _RIDGES:
        part = step(comparisons, rows, variances, ridge)
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


def _step_within_reach(
    view: FitView,
    comparisons: Sequence[Comparison],
    rows: Sequence[Rows],
    knowledge: Knowledge,
    enough: Sequence[float],
) -> tuple[FitView, float]:
    """After the step that makes the misfit fall as it should, or else the best; what is left."""
    before = _misfit(comparisons, comparisons)
    best, least = view, before
    for ridge in _RIDGES:
        part = step(comparisons, rows, [_WITHIN_REACH] * len(rows), ridge)
        there = view.moved(part)
        if not all(f.n_effective >= n for f, n in zip(there.frames, enough, strict=True)):
            continue
        after = _misfit(comparisons, there.compare(knowledge, jacobian=False))
        if after < least:
            best, least = there, after
        if before - after >= _AS_EXPECTED * (before - expected_misfit(comparisons, rows, part)):
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
        means = [view.frames[_index(view, point)].average(o) for point, o in target.terms]
        _, maps = target.linearized(*(mean.detach() for mean in means))
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


def _index(view: FitView, state_point: object) -> int:
    return next(k for k, s in enumerate(view.states) if s.state_point is state_point)


def step(
    views: Sequence[Comparison],
    rows: Sequence[Rows],
    largest_variances: Sequence[float],
    ridge: float = _RIDGE,
) -> Array:
    """The step x, [parameters], whose change of U/kT has at most that variance at each state.

    ``ridge`` is e over the largest eigenvalue of J^T C^-1 J.
    """
    energies = np.concatenate([r.energies for r in rows])
    explicit = _explicit(views, rows)
    has_explicit = explicit.any(axis=1)
    size = np.linalg.norm(explicit[has_explicit], axis=1) * np.sqrt(has_explicit.sum())
    unit = np.linalg.norm(energies) / size[:, None]  # bar, say: no matter of what they span
    everything = np.concatenate([energies, unit * explicit[has_explicit]])
    squares, vectors = np.linalg.eigh(everything @ everything.T)
    seen = squares > 1e-12 * squares[-1]
    scaled = vectors[:, seen] * np.sqrt(squares[seen])  # all rows in the orthonormal basis
    own, other = scaled[: len(energies)], np.zeros((len(explicit), scaled.shape[1]))
    other[has_explicit] = scaled[len(energies) :] / unit
    splits = np.cumsum([len(r.energies) for r in rows])[:-1]
    parts = np.split(own, splits)
    jacobian = other
    for place, r, part in zip(_places(views, rows), rows, parts, strict=True):
        jacobian[place] += r.values @ part
    each = zip(views, _of_views(views, jacobian), strict=True)
    weighted = np.concatenate([view.weighting @ part for view, part in each])
    residual = np.concatenate([view.residual for view in views])
    hessian, slope = weighted.T @ jacobian, weighted.T @ residual
    ridge *= float(np.linalg.norm(hessian, 2))
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
    basis = vectors[:, seen] / np.sqrt(squares[seen])
    return np.asarray(everything.T @ (basis @ z))


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
