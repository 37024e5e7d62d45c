"""What was measured beside what the frames say: prediction, Jacobian and noise of all targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import block_diag

from ..engine.segments import jacobian_deviations
from ..errors import ObservableError
from ..observables import Observable
from ..samples import View
from ..units import beta
from .low_rank import LowRank
from .shrinkage import shrunk_of
from .target import Target
from .theory import LiquidTheory

Array = NDArray[np.float64]

_BIN_ERROR = 1e-3  # of a g(r) or P(theta), binned and interpolated: never known better than this
_UNKNOWN = 1e3  # uncertainties of a target: the error of a prediction whose error is not known


@dataclass(frozen=True)
class Knowledge:
    """How much is taken to be known besides the frames; the defaults need no tuning."""

    prior_frames: float = 1500.0  # M_0: frames' worth of trust in theory, or independent points
    theory: bool = True  # False: what the frames alone say
    waves: bool = True  # without theory, that waves of a g(r) fluctuate nearly independently


@dataclass(frozen=True)
class JacobianNoise:
    """Noise of a Jacobian that was measured: Cov(J, J) = sum_b D_b D_b with D = L d."""

    operator: Array
    """L, [points, values]."""
    deviations: Array
    """d, of averages of so many blocks of frames, [blocks, values, coefficients]."""

    def dense(self) -> Array:
        """D, [blocks, points, coefficients]: for a few points."""
        return np.asarray(self.operator @ self.deviations)

    def damping(self, weighting: LowRank) -> Array:
        """sum_b D_b^T W D_b, [coefficients] squared."""
        small = self.operator.T @ (weighting @ self.operator)
        return np.tensordot(self.deviations, small @ self.deviations, ([0, 1], [0, 1]))


@dataclass(frozen=True)
class Comparison:
    """All targets that hang together, as pooled frames see them. Points are stacked.

    Where targets depend on several state points, coefficients are those at each of them, one after
    the other.
    """

    targets: Sequence[Target]
    prediction: Array  # [points]
    jacobian: Array  # [points, coefficients]; [points, 0] if not asked for
    own_noise: LowRank  # covariance of the prediction, [points, points]
    target_noise: LowRank  # [points, points]
    n_effective: float  # least of all state points
    jacobian_noise: JacobianNoise | None = None  # None: J is exact

    @property
    def residual(self) -> Array:
        """Prediction - target, [points]."""
        return self.prediction - np.concatenate([t.values for t in self.targets])

    @cached_property
    def weighting(self) -> LowRank:
        """Inverse of the total covariance, scaled by the targets' weights."""
        return (self.own_noise + self.target_noise).inverse().scaled(np.sqrt(self._scale))

    @property
    def weight(self) -> Array:
        """``weighting`` as a matrix, [points, points]: for a few points."""
        return self.weighting.dense()

    @property
    def own_covariance(self) -> Array:
        """``own_noise`` as a matrix, [points, points]: for a few points."""
        return self.own_noise.dense()

    @property
    def target_covariance(self) -> Array:
        """``target_noise`` as a matrix, [points, points]: for a few points."""
        return self.target_noise.dense()

    def own_error(self) -> Array:
        """Standard error of the prediction, [points]."""
        return np.sqrt(self.own_noise.diagonal())

    def misfit(self) -> float:
        """Root mean square of residual / combined uncertainty, each point by its own."""
        variance = self.own_noise.diagonal() + self.target_noise.diagonal()
        return float(np.sqrt(np.average(self.residual**2 / variance, weights=self._scale)))

    def noise_ratio(self) -> float:
        """Median of the model's own uncertainty over the target's."""
        ratio = self.own_noise.diagonal() / self.target_noise.diagonal()
        return float(np.sqrt(np.median(ratio)))

    def places(self) -> list[tuple[Target, slice]]:
        """Each target, and where its points are."""
        return places_of(self.targets)

    @property
    def _scale(self) -> Array:
        return _each_point(self.targets, [t.weight for t in self.targets])


def places_of(targets: Sequence[Target]) -> list[tuple[Target, slice]]:
    """Each target, and where its points are among those of all."""
    ends = np.cumsum([len(t.values) for t in targets]).tolist()
    pairs = zip(targets, ends, strict=True)
    return [(t, slice(end - len(t.values), end)) for t, end in pairs]


@dataclass(frozen=True)
class Sight:
    """A state point as its frames see it, with what theory may say."""

    state_point: Any
    view: View
    theory: LiquidTheory | None = None


def compare(
    targets: Sequence[Target],
    sights: Sequence[Sight],
    knowledge: Knowledge | None = None,
    jacobian: bool = True,
) -> Comparison:
    """Averages, Jacobian and noise of targets of some state points.

    Every target is a function of averages, f(<A>, <B>, ...). Its Jacobian L is that of torch, so

        J = L d<A>/dc,    C = L Cov(<A>, <A>) L^T.

    ``jacobian=False`` leaves out J and what theory says of it.

    Raises
    ------
    OverlapError
        If the pooled frames do not reach the parameters.
    """
    known = knowledge or Knowledge()
    averages = [_averages_of(targets, sight, known, jacobian) for sight in sights]
    prediction, maps = _linearized(targets, averages)
    pairs = list(zip(maps, averages, strict=True))
    is_histogram = _each_point(targets, [t.observable.is_histogram for t in targets])
    uncertainty = np.concatenate([t.uncertainty for t in targets])
    of_values = np.concatenate(maps, axis=1) if len(maps) > 1 else maps[0]
    own = block_diag(*(a.covariance for a in averages))
    one_frame = block_diag(*(a.frame_covariance for a in averages))
    return Comparison(
        targets=targets,
        prediction=prediction,
        jacobian=np.concatenate([m @ a.jacobian for m, a in pairs], axis=1),
        own_noise=_propagated(of_values, own, _UNKNOWN * uncertainty)
        + LowRank.made(is_histogram * _BIN_ERROR**2),
        target_noise=_target_noise(targets, of_values, one_frame),
        n_effective=min(a.n_effective for a in averages),
        jacobian_noise=_jacobian_noise(of_values, averages) if jacobian else None,
    )


def groups_of(targets: Sequence[Target]) -> list[tuple[list[Target], list[Any]]]:
    """Targets that hang together by the state points that they share, and these."""
    groups: list[tuple[list[Target], list[Any]]] = []
    for target in targets:
        mine, points = [target], list(dict.fromkeys(point for point, _ in target.terms))
        for group in [g for g in groups if any(p in g[1] for p in points)]:
            groups.remove(group)
            mine = [*group[0], *mine]
            points = list(dict.fromkeys([*group[1], *points]))
        groups.append((mine, points))
    order = {id(t): n for n, t in enumerate(targets)}
    return [(sorted(mine, key=lambda t: order[id(t)]), points) for mine, points in groups]


@dataclass(frozen=True)
class _Averages:
    """Of all observables of one state point, stacked."""

    sight: Sight
    observables: list[Observable]
    mean: Array  # [values]
    jacobian: Array  # [values, coefficients]
    covariance: Array  # [values, values], of the mean; infinite where it is not known
    frame_covariance: Array  # [values, values], in one frame; zero of what is no value of a frame
    n_effective: float
    deviations: Array | None  # [blocks, values, coefficients], of the Jacobian

    def slice_of(self, observable: Observable) -> slice:
        start = 0
        for other in self.observables:
            if other is observable:
                break
            start += other.n_values
        return slice(start, start + observable.n_values)


def _averages_of(
    targets: Sequence[Target], sight: Sight, known: Knowledge, wants_jacobian: bool
) -> _Averages:
    here = [o for t in targets for point, o in t.terms if point is sight.state_point]
    each = list(dict.fromkeys(here))
    static = [o for o in each if not o.is_dynamic]
    dynamic = [o for o in each if o.is_dynamic]
    parts = []
    if static:
        parts.append(_static(static, sight, known, wants_jacobian))
    if dynamic:
        parts.append(_dynamic(dynamic, sight, wants_jacobian))
    return parts[0] if len(parts) == 1 else _side_by_side(*parts)


def _static(
    observables: list[Observable], sight: Sight, known: Knowledge, wants_jacobian: bool
) -> _Averages:
    """Of what has a value in every frame."""
    view = sight.view
    mean, jacobian = _means(view, observables, wants_jacobian)
    weights = view.weights.numpy(force=True)
    with torch.no_grad():
        values = np.concatenate([view.values(o).numpy() for o in observables], axis=1)
    deviations = values - mean
    frame_covariance = (deviations * weights[:, None]).T @ deviations
    noise = _relative_noise(view, observables, frame_covariance)
    linear = view.samples.potential.energy_is_linear
    share = known.prior_frames / (known.prior_frames + view.n_effective)
    theory = sight.theory if known.theory and wants_jacobian else None
    structure = None if theory is None else theory.structure(view)
    if theory is not None and structure is not None:
        along_volume, features_along_volume = _volume_modes(view, weights, deviations)
        c = view.coefficients.numpy(force=True)
        prior, rows = theory.jacobian(structure, observables, c)
        prior -= beta(view.samples.temperature) * np.outer(along_volume, features_along_volume)
        both = np.ix_(rows, theory.columns)
        jacobian[both] = (1 - share) * jacobian[both] + share * prior[both]
        prior, rows = theory.covariance(structure, observables)
        prior += np.outer(along_volume, along_volume)
        prior[~rows, ~rows] = np.diag(frame_covariance)[~rows]
        frame_covariance = (1 - share) * frame_covariance + share * prior
    elif known.waves and linear and any(o.is_structure for o in observables):
        found = shrunk_of(view, observables, values, sight.state_point.n_particles)
        frame_covariance, noise = found.covariance, 1 / found.n
        if wants_jacobian:
            jacobian -= beta(view.samples.temperature) * found.change
    if not linear:
        independent = np.diag(np.diag(frame_covariance))
        frame_covariance = (1 - share) * frame_covariance + share * independent
    covariance = noise * frame_covariance
    return _Averages(
        sight, observables, mean, jacobian, covariance, frame_covariance, view.n_effective, None
    )


def _dynamic(observables: list[Observable], sight: Sight, wants_jacobian: bool) -> _Averages:
    """Of what is measured on trajectory segments: just as the segments have it."""
    view = sight.view
    mean, jacobian = _means(view, observables, wants_jacobian)
    covariance = block_diag(*(view.estimate(o, check=False).covariance for o in observables))
    deviations = None
    if wants_jacobian:  # each observable has its own blocks: zero in the values of the others
        starts = np.cumsum([0, *(o.n_values for o in observables)])
        deviations = np.concatenate(
            [
                _padded(jacobian_deviations(view, o), start, len(mean))  # type: ignore[arg-type]
                for o, start in zip(observables, starts, strict=False)
            ]
        )
    none = np.zeros_like(covariance)
    n_effective = view.n_effective
    return _Averages(sight, observables, mean, jacobian, covariance, none, n_effective, deviations)


def _side_by_side(first: _Averages, second: _Averages) -> _Averages:
    """Both, with noise that is independent."""
    n, m = len(first.mean), len(second.mean)
    deviations = None if second.deviations is None else _padded(second.deviations, n, n + m)
    return _Averages(
        first.sight,
        [*first.observables, *second.observables],
        np.concatenate([first.mean, second.mean]),
        np.concatenate([first.jacobian, second.jacobian]),
        block_diag(first.covariance, second.covariance),
        block_diag(first.frame_covariance, second.frame_covariance),
        min(first.n_effective, second.n_effective),
        deviations,
    )


def _padded(deviations: Array, start: int, n_values: int) -> Array:
    """[blocks, n_values, coefficients], zero in all other values."""
    after = n_values - start - deviations.shape[1]
    return np.pad(deviations, ((0, 0), (start, after), (0, 0)))


def _means(
    view: View, observables: Sequence[Observable], wants_jacobian: bool
) -> tuple[Array, Array]:
    """Averages [values] and their Jacobian [values, coefficients], stacked.

    Raises
    ------
    ObservableError
        If an observable has not as many values as it says.
    """
    each = [view.average(o).numpy(force=True) for o in observables]
    for observable, mean in zip(observables, each, strict=True):
        if len(mean) != observable.n_values:
            raise ObservableError(
                f"{type(observable).__name__}: expected n_values = {observable.n_values} from "
                f"values(), got {len(mean)}",
                got=len(mean),
                expected=observable.n_values,
            )
    means = np.concatenate(each)
    if not wants_jacobian:
        return means, np.zeros((len(means), 0))
    return means, np.concatenate([view.jacobian(o) for o in observables])


def _linearized(
    targets: Sequence[Target], averages: Sequence[_Averages]
) -> tuple[Array, list[Array]]:
    """Predictions [points], and for each state point d(prediction)/d(averages) [points, values]."""
    maps = [np.zeros((sum(len(t.values) for t in targets), len(a.mean))) for a in averages]
    predictions = []
    for target, rows in places_of(targets):
        places = [
            next((k, a.slice_of(o)) for k, a in enumerate(averages) if a.sight.state_point is point)
            for point, o in target.terms
        ]
        means = [torch.from_numpy(averages[k].mean[where]) for k, where in places]
        value, slopes = target.linearized(*means)
        predictions.append(value)
        for (k, where), slope in zip(places, slopes, strict=True):
            maps[k][rows, where] += slope
    return np.concatenate(predictions), maps


def _jacobian_noise(operator: Array, averages: Sequence[_Averages]) -> JacobianNoise | None:
    """Of all state points, with respect to the coefficients at all of them."""
    sizes = np.array([a.jacobian.shape for a in averages])
    starts = np.cumsum(sizes, axis=0) - sizes
    parts = []
    for a, start, size in zip(averages, starts, sizes, strict=True):
        if a.deviations is not None:
            after = sizes.sum(axis=0) - start - size
            parts.append(np.pad(a.deviations, ((0, 0), *zip(start, after, strict=True))))
    return JacobianNoise(operator, np.concatenate(parts)) if parts else None


def _propagated(operator: Array, covariance: Array, if_unknown: Array) -> LowRank:
    """Covariance of ``operator @ values``; points of unknown (infinite) variance get an error.

    Too few blocks tell nothing of the noise: ``if_unknown`` [points] has to be large enough to
    leave such points without weight.
    """
    known = np.isfinite(np.diag(covariance))
    unknown = (operator[:, ~known] != 0).any(axis=1)
    finite = np.where(np.outer(known, known), covariance, 0.0)
    return LowRank.made(np.where(unknown, if_unknown, 0.0) ** 2, operator, finite)


def _volume_modes(view: View, weights: Array, deviations: Array) -> tuple[Array, Array]:
    """What fluctuates along with the volume: of all values, and of the features.

    Liquid-state theory speaks of a fixed volume. At constant pressure every covariance has a
    second part, Cov(A, B) = <Cov(A, B | V)> + Cov(A, V) Cov(V, B) / Var(V).
    """
    samples = view.samples
    n_coefficients = len(view.coefficients)
    if samples.pressure is None or np.ptp(samples.volume) == 0:
        return np.zeros(deviations.shape[1]), np.zeros(n_coefficients)
    volume = samples.volume - weights @ samples.volume
    scaled = weights * volume / np.sqrt(weights @ volume**2)
    features = samples.learned.linear(view.coefficients, virials=False).energies
    return scaled @ deviations, scaled @ (features - weights @ features)


def _relative_noise(
    view: View, observables: Sequence[Observable], frame_covariance: Array
) -> float:
    """Variance of an average over that of one frame: (1 + 2 tau) / n_effective."""
    variance = np.concatenate(
        [np.diag(view.estimate(o, check=False).covariance) for o in observables]
    )
    one_frame = np.diag(frame_covariance)
    seen = one_frame > 1e-3 * one_frame.max()
    ratio = float(np.median(variance[seen] / one_frame[seen])) if seen.any() else np.inf
    return ratio if np.isfinite(ratio) and ratio * view.n_effective > 1 else 1 / view.n_effective


def _target_noise(targets: Sequence[Target], operator: Array, one_frame: Array) -> LowRank:
    """Noise of all targets: as a Curve says, independent, or like that of so many frames.

    ``operator`` [points, values] gives the points from values of all observables at all state
    points, ``one_frame`` is the covariance of these in one frame.
    """
    frame = LowRank.made(np.zeros(len(operator)), operator, one_frame)
    variance = frame.diagonal()
    own, shares = [], []
    for target, here in places_of(targets):
        share = target.frames_share(variance[here])
        shares.append(share or 0.0)
        error = target.uncertainty if share is None else np.full_like(target.values, _BIN_ERROR)
        given = None if target.curve is None else target.curve.covariance
        own.append(error**2 if given is None else given)
    independent = LowRank.of_parts(own)
    if not any(shares):
        return independent
    return _sampled(frame, np.sqrt(_each_point(targets, shares))) + independent


def _sampled(frame: LowRank, scale: Array) -> LowRank:
    """``frame.scaled(scale)``; where each value has one scale, the factor stays the same array."""
    of_value = np.max((frame.factor != 0) * scale[:, None], axis=0, initial=0.0)
    if len(frame.core) and np.array_equal(scale[:, None] * frame.factor, frame.factor * of_value):
        return replace(frame, core=of_value[:, None] * frame.core * of_value)
    return frame.scaled(scale)


def _each_point(targets: Sequence[Target], numbers: Sequence[float]) -> Array:
    """A number of each target for each of its points, [points]."""
    pairs = zip(targets, numbers, strict=True)
    return np.concatenate([np.full(len(t.values), float(number)) for t, number in pairs])
