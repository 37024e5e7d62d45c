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
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import block_diag

from ...samples import Samples
from ...units import beta
from .gauss_newton import StateView

Array = NDArray[np.float64]

_SEEN = 1e-6  # of the largest weight: frames with less say nothing
_EXPLICIT_FRAMES = 100  # enough for E, which varies little from frame to frame
_RIDGE = 1e-5  # e, of the largest eigenvalue
_MOST_DOUBLINGS = 60


@dataclass(frozen=True)
class Rows:
    """One state point in the space of its frames."""

    energies: Array  # B, [frames, parameters]
    values: Array  # -a^T of all points, [points, frames]
    explicit: Array  # E, [points, parameters]
    weights: Array  # [all frames], zero for those that are left out

    def nonlinearity(self, change: Array, step: Array) -> float:
        """How far U/kT of all frames has changed otherwise than it should by a step, relative."""
        seen = self.weights > 0
        w, found = self.weights[seen], change[seen]
        expected = self.energies @ step
        difference = np.sqrt(w) * (found - w @ found / w.sum()) - expected
        return float(np.linalg.norm(difference) / (np.linalg.norm(expected) + 1e-12))


def rows_of(view: StateView, samples: Samples) -> Rows:
    """B, a and E of all targets of a state point, at the present parameters."""
    c = samples.coefficients().detach().requires_grad_(True)
    weights = samples.weights(c.detach()).detach()
    w = weights.numpy()
    seen = w > _SEEN * w.max()
    root = np.sqrt(w[seen])
    slopes = samples.learned.select(seen).linear(c.detach(), virials=False).flat
    slopes = slopes - root**2 @ slopes / np.sum(root**2)
    stride = max(1, len(w) // _EXPLICIT_FRAMES)
    points, explicit = [], []
    for target in view.targets:
        values = samples.values(target.observable, c)
        a = values.detach().numpy()
        points.append(target.operator @ ((a - w @ a)[seen] * root[:, None]).T)
        along = np.zeros((values.shape[1], c.numel()))
        if values.requires_grad:
            some = weights * (torch.arange(len(weights)) % stride == 0)
            along = np.array(
                [
                    torch.autograd.grad(mean, c, retain_graph=True)[0].numpy().ravel()
                    for mean in (some / some.sum()) @ values
                ]
            )
        explicit.append(target.operator @ along)
    energies = beta(samples.temperature) * root[:, None] * slopes
    return Rows(energies, -np.concatenate(points), np.concatenate(explicit), np.where(seen, w, 0.0))


def step(
    views: Sequence[StateView],
    rows: Sequence[Rows],
    largest_variances: Sequence[float],
    ridge: float = _RIDGE,
) -> Array:
    """The step x, [parameters], whose change of U/kT has at most that variance at each state.

    ``ridge`` is e over the largest eigenvalue of J^T C^-1 J.
    """
    energies = np.concatenate([r.energies for r in rows])
    explicit = np.concatenate([r.explicit for r in rows])
    has_explicit = explicit.any(axis=1)
    size = np.linalg.norm(explicit[has_explicit], axis=1) * np.sqrt(has_explicit.sum())
    unit = np.linalg.norm(energies) / size[:, None]  # bar, say: no matter of what they span
    everything = np.concatenate([energies, unit * explicit[has_explicit]])
    squares, vectors = np.linalg.eigh(everything @ everything.T)
    seen = squares > 1e-12 * squares[-1]
    scaled = vectors[:, seen] * np.sqrt(squares[seen])  # all rows in the orthonormal basis
    own, other = scaled[: len(energies)], np.zeros((len(explicit), scaled.shape[1]))
    other[has_explicit] = scaled[len(energies) :] / unit
    jacobian = block_diag(*(r.values for r in rows)) @ own + other
    weight = block_diag(*(view.weight for view in views))
    residual = np.concatenate([view.residual for view in views])
    hessian, slope = jacobian.T @ weight @ jacobian, jacobian.T @ weight @ residual
    ridge *= float(np.linalg.norm(hessian, 2))
    identity = np.eye(len(hessian))
    noise = [float(np.sum(view.weight * view.own_covariance)) for view in views]
    splits = np.cumsum([len(r.energies) for r in rows])[:-1]
    metrics = [part.T @ part for part in np.split(own, splits)]
    m = np.array(noise)
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


def expected_misfit(views: Sequence[StateView], rows: Sequence[Rows], change: Array) -> float:
    """(r + J x)^T C^-1 (r + J x) of all state points."""
    total = 0.0
    for view, row in zip(views, rows, strict=True):
        residual = view.residual + row.values @ (row.energies @ change) + row.explicit @ change
        total += float(residual @ view.weight @ residual)
    return total
