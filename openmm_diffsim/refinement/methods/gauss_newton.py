"""Noise-aware Gauss-Newton: where the linear model of all targets says that the answer is.

At coefficients c, with A the pooled averages of all targets t and J their Jacobian, the next
coefficients minimize

    (A + J (c' - c) - t)^T C^-1 (A + J (c' - c) - t) + |D2 (c' - c_0)|^2 / q.

- C holds the noise of the targets and that of the averages themselves, so noise is not fitted.
  A g(r) that was sampled has noise that is strongly correlated between bins: its long waves are
  known 1/S(k)^2 times better than independent counts would be, and they decide the soft modes.
  With that C, the minimum is the maximum-likelihood one: for noise like that of the model's own
  frames, J^T C^-1 J = beta^2 Cov(S, S), the Hessian of the relative entropy.
- J and the one-frame covariance in C are (1 - a) times the covariance of the frames, plus a times
  that of liquid-state theory, a = M_0 / (M_0 + n_effective): the Bayesian estimate of a covariance
  with M_0 frames' worth of prior knowledge. Few frames give noise; theory has none but is
  approximate. M_0 has to be large against the number of coefficients: the smallest eigenvalues of
  a sampled covariance come out too small, and they are those of the soft modes, along which a
  step from few frames overshoots.
- There is no theory of a network. In its place stand points that fluctuate independently: fewer
  frames than points give a singular covariance, whose inverse would weigh most what no frame shows.
- The prior says that c differs from the potential of mean force c_0 by something smooth:
  beta (w - u) = ln y(r) up to a constant, and the cavity function y is smooth, through the core
  too. Its second derivative is white noise of spectral density q. Where no pair ever was, the
  prior alone decides.

- The Jacobian of a dynamic observable is measured on few segments. Its noise damps the step: see
  ``damping``.

The covariance of c' is the inverse of the Hessian; what the data leave open shows in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import block_diag
from scipy.optimize import least_squares

from ...engine.segments import jacobian_deviations
from ...observables import Observable, SegmentObservable
from ...potentials import PairPotential, flat_parameters, parameter_chain, set_flat_parameters
from ...samples import Samples
from ...units import beta
from ..target import Target
from ..theory.state import LiquidTheory

Array = NDArray[np.float64]

_MOST_ITERATIONS = 30  # of the nonlinear least squares
_BIN_ERROR = 1e-3  # of a g(r) or P(theta), binned and interpolated: never known better than this
_UNKNOWN = 1e3  # uncertainties of a target: the error of a prediction whose error is not known


@dataclass(frozen=True)
class GaussNewtonOptions:
    """What can be tuned; the defaults need no tuning."""

    prior_frames: float = 1500.0  # M_0: frames' worth of trust in theory, or independent points
    roughness: float = 200.0  # q, (kT)^2 / (distance of nearest neighbours)^3
    theory: bool = True  # False: the covariance of the frames alone
    network_steps: int = 5  # most steps of an update of a network
    stride: float = 0.03  # variance of the change of U/kT of a network in a round, per particle


@dataclass(frozen=True)
class StateView:
    """All targets of one state point, as its pooled frames see them. Points are stacked."""

    targets: Sequence[Target]
    prediction: Array  # [points]
    jacobian: Array  # [points, pairs of types * coefficients]; [points, 0] if not asked for
    own_covariance: Array  # [points, points], of the prediction
    target_covariance: Array  # [points, points]
    n_effective: float
    jacobian_deviations: Array | None = None
    """[blocks, points, pairs of types * coefficients], see ``segments``; None: J is exact."""

    @property
    def residual(self) -> Array:
        """Prediction - target, [points]."""
        return self.prediction - np.concatenate([t.values for t in self.targets])

    @property
    def weight(self) -> Array:
        """Inverse of the total covariance, scaled by the targets' weights, [points, points]."""
        scale = np.sqrt(np.concatenate([np.full(len(t.values), t.weight) for t in self.targets]))
        inverse = np.linalg.inv(self.own_covariance + self.target_covariance)
        return np.asarray(scale[:, None] * inverse * scale)

    def misfit(self) -> float:
        """Root mean square of residual / combined uncertainty, each point by its own."""
        variance = np.diag(self.own_covariance) + np.diag(self.target_covariance)
        scale = np.concatenate([np.full(len(t.values), t.weight) for t in self.targets])
        return float(np.sqrt(np.average(self.residual**2 / variance, weights=scale)))

    def noise_ratio(self) -> float:
        """Median of the model's own uncertainty over the target's."""
        ratio = np.diag(self.own_covariance) / np.diag(self.target_covariance)
        return float(np.sqrt(np.median(ratio)))


def view_state(
    targets: Sequence[Target],
    samples: Samples,
    theory: LiquidTheory | None,
    options: GaussNewtonOptions,
    jacobian: bool = True,
) -> StateView:
    """Averages, Jacobian and noise of all targets of one state point, at the present parameters.

    ``jacobian=False`` leaves out the Jacobian and what theory says of it.

    What is measured on trajectory segments has its own frames and no theory: it stands beside the
    rest, and their noise counts as independent.

    Raises
    ------
    OverlapError
        If the pooled frames do not reach the present parameters.
    """
    dynamic = [t for t in targets if isinstance(t.observable, SegmentObservable)]
    static = [t for t in targets if t not in dynamic]
    parts = []
    if static:
        parts.append(_view_static(static, samples, theory, options, jacobian))
    if dynamic:
        parts.append(_view_dynamic(dynamic, samples, jacobian))
    return parts[0] if len(parts) == 1 else _side_by_side(parts, targets)


def _view_static(
    targets: Sequence[Target],
    samples: Samples,
    theory: LiquidTheory | None,
    options: GaussNewtonOptions,
    wants_jacobian: bool,
) -> StateView:
    """Of what has a value in every frame."""
    observables = list(dict.fromkeys(t.observable for t in targets))
    with torch.no_grad():
        weights = samples.weights().numpy()
        values = np.concatenate([samples.values(o).numpy() for o in observables], axis=1)
    mean, jacobian = _averages(samples, observables, wants_jacobian)
    deviations = values - mean
    frame_covariance = (deviations * weights[:, None]).T @ deviations
    n_effective = samples.n_effective()
    relative_noise = _relative_noise(samples, observables, frame_covariance, n_effective)
    asks_theory = theory is not None and options.theory and wants_jacobian
    structure = theory.structure(samples) if theory is not None and asks_theory else None
    if theory is not None and structure is not None:
        share = options.prior_frames / (options.prior_frames + n_effective)
        c = samples.coefficients().detach().numpy()
        along_volume, sums_along_volume = _volume_modes(samples, weights, deviations)
        prior, known = theory.jacobian(structure, observables, c)
        prior -= beta(samples.temperature) * np.outer(along_volume, sums_along_volume)
        jacobian[known] = (1 - share) * jacobian[known] + share * prior[known]
        prior, known = theory.covariance(structure, observables)
        prior += np.outer(along_volume, along_volume)
        prior[~known, ~known] = np.diag(frame_covariance)[~known]
        frame_covariance = (1 - share) * frame_covariance + share * prior
    if not isinstance(samples.potential, PairPotential):
        share = options.prior_frames / (options.prior_frames + n_effective)
        independent = np.diag(np.diag(frame_covariance))
        frame_covariance = (1 - share) * frame_covariance + share * independent
    operator = _stacked_operator(targets, observables)
    bin_error = np.concatenate(
        [np.full(len(t.values), _BIN_ERROR if t.observable.is_histogram else 0.0) for t in targets]
    )
    covariance = operator @ frame_covariance @ operator.T
    return StateView(
        targets=targets,
        prediction=operator @ mean,
        jacobian=operator @ jacobian,
        own_covariance=relative_noise * covariance + np.diag(bin_error**2),
        target_covariance=_target_covariance(targets, covariance),
        n_effective=n_effective,
    )


def _view_dynamic(targets: Sequence[Target], samples: Samples, wants_jacobian: bool) -> StateView:
    """Of what is measured on trajectory segments: just as the segments have it."""
    each = dict.fromkeys(t.observable for t in targets)
    observables = [o for o in each if isinstance(o, SegmentObservable)]
    mean, jacobian = _averages(samples, observables, wants_jacobian)
    covariance = block_diag(*(samples.estimate(o, check=False).covariance for o in observables))
    operator = _stacked_operator(targets, observables)
    uncertainty = np.concatenate([t.uncertainty for t in targets])
    # Each observable has its own blocks: independent rows, zero in the values of the others.
    deviations = [np.zeros((0, *(operator @ jacobian).shape))]
    if wants_jacobian:
        deviations += [
            columns @ jacobian_deviations(samples, o)
            for o, columns in zip(observables, _columns(operator, observables), strict=True)
        ]
    return StateView(
        targets=targets,
        prediction=operator @ mean,
        jacobian=operator @ jacobian,
        own_covariance=_propagated(operator, covariance, _UNKNOWN * uncertainty),
        target_covariance=np.diag(uncertainty**2),
        n_effective=samples.n_effective(),
        jacobian_deviations=np.concatenate(deviations),
    )


def _columns(operator: Array, observables: Sequence[Observable]) -> list[Array]:
    """The part of a stacked operator that acts on each observable."""
    return np.split(operator, np.cumsum([o.n_values for o in observables])[:-1], axis=1)


def _averages(
    samples: Samples, observables: Sequence[Observable], wants_jacobian: bool
) -> tuple[Array, Array]:
    """Averages [values] and their Jacobian [values, pairs * coefficients], stacked."""
    with torch.no_grad():
        means = [average.numpy() for average in samples.averages(observables)]
    if not wants_jacobian:
        return np.concatenate(means), np.zeros((sum(o.n_values for o in observables), 0))
    rows = [samples.jacobian(o).numpy().reshape(o.n_values, -1) for o in observables]
    return np.concatenate(means), np.concatenate(rows)


def _propagated(operator: Array, covariance: Array, if_unknown: Array) -> Array:
    """Covariance of ``operator @ values``; points of unknown (infinite) variance get an error.

    Too few blocks tell nothing of the noise: ``if_unknown`` [points] has to be large enough to
    leave such points without weight.
    """
    known = np.isfinite(np.diag(covariance))
    unknown = (operator[:, ~known] != 0).any(axis=1)
    finite = np.where(np.outer(known, known), covariance, 0.0)
    return operator @ finite @ operator.T + np.diag(np.where(unknown, if_unknown, 0.0) ** 2)


def _side_by_side(parts: Sequence[StateView], targets: Sequence[Target]) -> StateView:
    """One view of independent parts, its points in the order of ``targets``."""
    sizes = [len(t.values) for part in parts for t in part.targets]
    places = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    points_of = dict(zip((id(t) for part in parts for t in part.targets), places, strict=True))
    order = np.concatenate([points_of[id(target)] for target in targets])
    both = np.ix_(order, order)
    return StateView(
        targets=targets,
        prediction=np.concatenate([part.prediction for part in parts])[order],
        jacobian=np.concatenate([part.jacobian for part in parts])[order],
        own_covariance=block_diag(*(part.own_covariance for part in parts))[both],
        target_covariance=block_diag(*(part.target_covariance for part in parts))[both],
        n_effective=min(part.n_effective for part in parts),
        jacobian_deviations=_deviations_of_all(parts)[:, order],
    )


def _deviations_of_all(parts: Sequence[StateView]) -> Array:
    """``jacobian_deviations`` in the points of all parts, zero in those of the others."""
    sizes = [len(part.prediction) for part in parts]
    rows = []
    for part, start in zip(parts, np.cumsum([0, *sizes[:-1]]), strict=True):
        if part.jacobian_deviations is not None:
            before, after = start, sum(sizes) - start - len(part.prediction)
            rows.append(np.pad(part.jacobian_deviations, ((0, 0), (before, after), (0, 0))))
    return np.concatenate(rows)


def _volume_modes(samples: Samples, weights: Array, deviations: Array) -> tuple[Array, Array]:
    """What fluctuates along with the volume: of all values, and of the basis sums.

    Liquid-state theory speaks of a fixed volume. At constant pressure every covariance has a
    second part, Cov(A, B) = <Cov(A, B | V)> + Cov(A, V) Cov(V, B) / Var(V).
    """
    sums = samples.basis_sums.reshape(len(samples), -1)
    if samples.pressure is None or np.ptp(samples.volume) == 0:
        return np.zeros(deviations.shape[1]), np.zeros(sums.shape[1])
    volume = samples.volume - weights @ samples.volume
    scaled = weights * volume / np.sqrt(weights @ volume**2)
    return scaled @ deviations, scaled @ (sums - weights @ sums)


def _relative_noise(
    samples: Samples, observables: Sequence[Observable], frame_covariance: Array, n: float
) -> float:
    """Variance of an average over that of one frame: (1 + 2 tau) / n_effective."""
    variance = np.concatenate(
        [np.diag(samples.estimate(o, check=False).covariance) for o in observables]
    )
    one_frame = np.diag(frame_covariance)
    seen = one_frame > 1e-3 * one_frame.max()
    ratio = float(np.median(variance[seen] / one_frame[seen])) if seen.any() else np.inf
    return ratio if np.isfinite(ratio) and ratio * n > 1 else 1 / n


def _stacked_operator(targets: Sequence[Target], observables: Sequence[Observable]) -> Array:
    """From all values of all observables to all points of all targets."""
    starts = np.cumsum([0, *(o.n_values for o in observables)])
    blocks = []
    for target in targets:
        start = starts[observables.index(target.observable)]
        block = np.zeros((len(target.values), starts[-1]))
        block[:, start : start + target.observable.n_values] = target.operator
        blocks.append(block)
    return np.concatenate(blocks)


def _target_covariance(targets: Sequence[Target], frame_covariance: Array) -> Array:
    """Noise of all targets: independent, or like that of so many frames where it was sampled."""
    diagonal, scale, start = [], [], 0
    for target in targets:
        here = slice(start, start + len(target.values))
        start = here.stop
        one_frame = np.diag(frame_covariance)[here]
        share = target.frames_share(one_frame)
        scale.append(np.full(len(target.values), 0.0 if share is None else np.sqrt(share)))
        diagonal.append(
            target.uncertainty**2 if share is None else np.full(len(one_frame), _BIN_ERROR**2)
        )
    s = np.concatenate(scale)
    return np.asarray(s[:, None] * frame_covariance * s + np.diag(np.concatenate(diagonal)))


@dataclass(frozen=True)
class Step:
    """A proposed change of the parameters, and their covariance after it."""

    change: Array  # [parameters]
    covariance: Array  # [parameters, parameters]


def linear_model(
    view: StateView, from_prior: Array, precision: Array | None
) -> tuple[Array, Array]:
    """Hessian and slope of the misfit of one state point, plus the prior, in its coefficients.

    Parameters
    ----------
    from_prior : c - c_0, [pairs * coefficients]
    precision : D2^T D2 / q, [pairs * coefficients, pairs * coefficients], or None
    """
    weighted = view.jacobian.T @ view.weight
    hessian, slope = weighted @ view.jacobian, weighted @ view.residual
    if precision is not None:
        hessian, slope = hessian + precision, slope + precision @ from_prior
    return hessian, slope


def damping(view: StateView) -> Array:
    """What the noise of the Jacobian adds to the Hessian, [pairs * coefficients] squared.

    With J + E of which J was measured, the misfit expected after a step x is that of J alone plus
    x^T <E^T C^-1 E> x: a step is shorter along what was measured badly.
    """
    deviations = view.jacobian_deviations
    if deviations is None:
        size = view.jacobian.shape[1]
        return np.zeros((size, size))
    return np.tensordot(deviations, view.weight @ deviations, ([0, 1], [0, 1]))


def solve(
    views: Sequence[StateView],
    chains: Sequence[Array],
    from_prior: Sequence[Array],
    precision: Array | None,
) -> Step:
    """The minimum of the linear model, for parameters that the coefficients are linear in.

    Parameters
    ----------
    views : one per state point
    chains : dc/dtheta of each, [pairs * coefficients, parameters]
    from_prior, precision : see ``linear_model``
    """
    n = chains[0].shape[1]
    hessian, damped, slope = np.zeros((n, n)), np.zeros((n, n)), np.zeros(n)
    for view, chain, offset in zip(views, chains, from_prior, strict=True):
        own_hessian, own_slope = linear_model(view, offset, precision)
        hessian += chain.T @ own_hessian @ chain
        damped += chain.T @ (own_hessian + damping(view)) @ chain
        slope += chain.T @ own_slope
    ridge = 1e-9 * np.eye(n)
    covariance = np.asarray(np.linalg.inv(hessian + ridge * np.diag(hessian).max()))
    change = -np.linalg.solve(damped + ridge * np.diag(damped).max(), slope)
    return Step(change, covariance)


def follow(
    potential: PairPotential,
    temperatures: Sequence[float],
    models: Sequence[tuple[Array, Array]],
) -> None:
    """Set the parameters to the minimum of the ``linear_model`` of each state point.

    The model is quadratic in the coefficients; these may depend on the parameters in any way
    (an exponent, a network). Nonlinear least squares, from the present parameters.
    """
    start = [potential.coefficients(t).detach().numpy().reshape(-1) for t in temperatures]
    roots, shifts = zip(*(_square_root(*model) for model in models), strict=True)

    def residuals(theta: Array) -> Array:
        set_flat_parameters(potential, torch.from_numpy(theta))
        with torch.no_grad():
            now = [potential.coefficients(t).numpy().reshape(-1) for t in temperatures]
        parts = zip(roots, shifts, now, start, strict=True)
        return np.concatenate([root @ (c - c_0) + shift for root, shift, c, c_0 in parts])

    def jacobian(theta: Array) -> Array:
        set_flat_parameters(potential, torch.from_numpy(theta))
        chains = [parameter_chain(potential, t) for t in temperatures]
        return np.concatenate([r @ chain for r, chain in zip(roots, chains, strict=True)])

    theta = flat_parameters(potential).numpy()
    few = len(theta) <= len(roots[0])
    solution = least_squares(
        residuals, theta, jacobian, x_scale="jac" if few else 1.0, max_nfev=_MOST_ITERATIONS
    )
    set_flat_parameters(potential, torch.from_numpy(solution.x))


def _square_root(hessian: Array, slope: Array) -> tuple[Array, Array]:
    """R and e with |R x + e|^2 / 2 = x^T hessian x / 2 + slope^T x up to a constant."""
    values, vectors = np.linalg.eigh(hessian)
    seen = values > 1e-12 * values[-1]
    scale = np.sqrt(values[seen])
    return scale[:, None] * vectors[:, seen].T, vectors[:, seen].T @ slope / scale


def smoothness_precision(
    potential: PairPotential, length: float, thermal_energy: float, roughness: float
) -> Array:
    """D2^T D2 / (q spacing^3) for every pair of types; q = roughness kT^2 / length^3."""
    n, h = potential.basis.n_coefficients, potential.basis.spacing
    second = np.eye(n) - 2 * np.eye(n, k=1) + np.eye(n, k=2)  # c = 0 beyond the last
    variance = roughness * thermal_energy**2 * (h / length) ** 3
    return np.asarray(np.kron(np.eye(potential.n_pairs), second.T @ second / variance))
