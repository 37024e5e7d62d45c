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

from .averages import Averages, Knowledge, Sight, averages_of
from .low_rank import LowRank
from .nuisance import Nuisance
from .target import Target

Array = NDArray[np.float64]

_BIN_ERROR = 1e-3  # of a g(r) or P(theta), binned and interpolated: never known better than this
_FEW = 10  # stretches of frames that tell how well the noise of a Jacobian is known
_UNKNOWN = 1e3  # uncertainties of a target: the error of a prediction whose error is not known


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

    def parts(self, weighting: LowRank) -> Array:
        """D_b^T W D_b summed over each of a few stretches, [stretches, coefficients, coefficients].

        Their sum is what the noise adds to J^T W J.
        """
        small = self.operator.T @ (weighting @ self.operator)
        few = np.array_split(self.deviations, min(len(self.deviations), _FEW))
        return np.array([np.tensordot(d, small @ d, ([0, 1], [0, 1])) for d in few])


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
    target_noise: LowRank  # [points, points], without what is common to all points
    n_effective: float  # least of all state points
    jacobian_noise: JacobianNoise | None = None  # None: J is exact
    nuisances: Sequence[Sequence[Nuisance]] = ()  # of each target, what is common to its points
    growth: Array | None = None
    """How waves of all liquids grow, [wave numbers, coefficients]; None without theory."""
    theory_weight: float = 0.0
    """Mean over the modes of g(r) of the weight that theory has beside the frames."""
    like_frames: Sequence[bool] = ()
    """Of each target: is its noise that of so many frames of the model? Empty: of none."""

    @property
    def residual(self) -> Array:
        """Prediction - target, [points]."""
        return self.prediction - np.concatenate([t.values for t in self.targets])

    @cached_property
    def weighting(self) -> LowRank:
        """Inverse of the total covariance, scaled by the targets' weights."""
        return self.precision.scaled(np.sqrt(self._scale))

    @cached_property
    def precision(self) -> LowRank:
        """Inverse of the total covariance."""
        return self.noise.inverse()

    @property
    def noise(self) -> LowRank:
        """The total covariance: of prediction, target and nuisances, these as P P^T."""
        modes = self.modes
        shared = LowRank.made(np.zeros(len(modes)), modes, np.eye(modes.shape[1]))
        return self.own_noise + self.target_noise + shared

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

    @cached_property
    def modes(self) -> Array:
        """P, what the nuisances add is P z with standard normal z, [points, k]."""
        return _modes(self.targets, self.nuisances or [[] for _ in self.targets])

    @cached_property
    def unexplained(self) -> Array:
        """Residual less what the nuisances are most likely to be, [points].

        They are z = -P^T C^-1 r for the residual r, the modes P and the total covariance C.
        """
        modes = self.modes
        if not modes.shape[1]:
            return self.residual
        return self.residual - modes @ (modes.T @ (self.precision @ self.residual))

    def misfit(self) -> float:
        """Root mean square of residual / combined uncertainty, each point by its own.

        The residual is what nuisances leave ``unexplained``.
        """
        variance = self.own_noise.diagonal() + self.target_noise.diagonal()
        return float(np.sqrt(np.average(self.unexplained**2 / variance, weights=self._scale)))

    def noise_ratio(self) -> float:
        """Median of the model's own uncertainty over the target's."""
        ratio = self.own_noise.diagonal() / self.target_noise.diagonal()
        return float(np.sqrt(np.median(ratio)))

    def places(self) -> list[tuple[Target, slice]]:
        """Each target, and where its points are."""
        return places_of(self.targets)

    def each(self) -> list[Comparison]:
        """One of each target alone, without a Jacobian."""
        each = self.nuisances or [[] for _ in self.targets]
        return [
            Comparison(
                [target],
                self.prediction[here],
                self.jacobian[here, :0],
                self.own_noise.part(here),
                self.target_noise.part(here),
                self.n_effective,
                nuisances=[own],
            )
            for (target, here), own in zip(self.places(), each, strict=True)
        ]

    @property
    def _scale(self) -> Array:
        return _each_point(self.targets, [t.weight for t in self.targets])


def places_of(targets: Sequence[Target]) -> list[tuple[Target, slice]]:
    """Each target, and where its points are among those of all."""
    ends = np.cumsum([len(t.values) for t in targets]).tolist()
    pairs = zip(targets, ends, strict=True)
    return [(t, slice(end - len(t.values), end)) for t, end in pairs]


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
    averages = [averages_of(targets, sight, known, jacobian) for sight in sights]
    prediction, maps = _linearized(targets, averages)
    pairs = list(zip(maps, averages, strict=True))
    is_histogram = _each_point(targets, [t.observable.is_histogram for t in targets])
    uncertainty = np.concatenate([t.uncertainty for t in targets])
    of_values = np.concatenate(maps, axis=1) if len(maps) > 1 else maps[0]
    own = block_diag(*(a.covariance for a in averages))
    one_frame = block_diag(*(a.frame_covariance for a in averages))
    noise, is_sampled = _target_noise(targets, of_values, one_frame)
    return Comparison(
        targets=targets,
        prediction=prediction,
        jacobian=np.concatenate([m @ a.jacobian for m, a in pairs], axis=1),
        own_noise=_propagated(of_values, own, _UNKNOWN * uncertainty)
        + LowRank.made(is_histogram * _BIN_ERROR**2),
        target_noise=noise,
        nuisances=[
            target.unknowns.at(prediction[here], _values(target, averages), sampled)
            for (target, here), sampled in zip(places_of(targets), is_sampled, strict=True)
        ],
        n_effective=min(a.n_effective for a in averages),
        jacobian_noise=_jacobian_noise(of_values, averages) if jacobian else None,
        growth=_growth(averages),
        theory_weight=float(np.mean([a.theory_weight for a in averages])),
        like_frames=is_sampled,
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


def _linearized(
    targets: Sequence[Target], averages: Sequence[Averages]
) -> tuple[Array, list[Array]]:
    """Predictions [points], and for each state point d(prediction)/d(averages) [points, values]."""
    maps = [np.zeros((sum(len(t.values) for t in targets), len(a.mean))) for a in averages]
    predictions = []
    for target, rows in places_of(targets):
        places = _places(target, averages)
        means = [torch.from_numpy(averages[k].mean[where]) for k, where in places]
        value, slopes = target.linearized(*means)
        predictions.append(value)
        for (k, where), slope in zip(places, slopes, strict=True):
            maps[k][rows, where] += slope
    return np.concatenate(predictions), maps


def _places(target: Target, averages: Sequence[Averages]) -> list[tuple[int, slice]]:
    """Of each term of a target: the number of its state point, and where its values are there."""
    return [
        next((k, a.slice_of(o)) for k, a in enumerate(averages) if a.sight.state_point is point)
        for point, o in target.terms
    ]


def _values(target: Target, averages: Sequence[Averages]) -> Array:
    """All values of the observable of a target, [n_values]."""
    means = [torch.from_numpy(averages[k].mean[where]) for k, where in _places(target, averages)]
    return target.observable.combine(*means).double().numpy()


def _jacobian_noise(operator: Array, averages: Sequence[Averages]) -> JacobianNoise | None:
    """Of all state points, with respect to the coefficients at all of them."""
    sizes = np.array([a.jacobian.shape for a in averages])
    starts = np.cumsum(sizes, axis=0) - sizes
    parts = []
    for a, start, size in zip(averages, starts, sizes, strict=True):
        if a.deviations is not None:
            after = sizes.sum(axis=0) - start - size
            parts.append(np.pad(a.deviations, ((0, 0), *zip(start, after, strict=True))))
    return JacobianNoise(operator, np.concatenate(parts)) if parts else None


def _growth(averages: Sequence[Averages]) -> Array | None:
    """Of all state points, with respect to the coefficients at all of them."""
    if all(a.growth is None for a in averages):
        return None
    blocks = [
        np.zeros((0, a.jacobian.shape[1])) if a.growth is None else a.growth for a in averages
    ]
    return np.asarray(block_diag(*blocks))


def _propagated(operator: Array, covariance: Array, if_unknown: Array) -> LowRank:
    """Covariance of ``operator @ values``; points of unknown (infinite) variance get an error.

    Too few blocks tell nothing of the noise: ``if_unknown`` [points] has to be large enough to
    leave such points without weight.
    """
    known = np.isfinite(np.diag(covariance))
    unknown = (operator[:, ~known] != 0).any(axis=1)
    finite = np.where(np.outer(known, known), covariance, 0.0)
    return LowRank.made(np.where(unknown, if_unknown, 0.0) ** 2, operator, finite)


def _target_noise(
    targets: Sequence[Target], operator: Array, one_frame: Array
) -> tuple[LowRank, list[bool]]:
    """Noise of all targets: as a Curve says, independent, or like that of so many frames.

    ``operator`` [points, values] gives the points from values of all observables at all state
    points, ``one_frame`` is the covariance of these in one frame. Also returned is which targets
    have the noise of frames.
    """
    frame = LowRank.made(np.zeros(len(operator)), operator, one_frame)
    variance = frame.diagonal()
    own, shares = [], []
    for target, here in places_of(targets):
        share = target.frames_share(variance[here])
        shares.append(share or 0.0)
        error = target.uncertainty if share is None else np.full_like(target.values, _BIN_ERROR)
        own.append(error**2 if target.covariance is None else target.covariance)
    noise = LowRank.of_parts(own)
    if any(shares):
        noise = _sampled(frame, np.sqrt(_each_point(targets, shares))) + noise
    return noise, [share > 0 for share in shares]


def _modes(targets: Sequence[Target], nuisances: Sequence[Sequence[Nuisance]]) -> Array:
    """Those of all nuisances, one column for each number, [points, k]."""
    places = [here for _, here in places_of(targets)]
    columns = [(here, u.modes) for here, us in zip(places, nuisances, strict=True) for u in us]
    found = np.zeros((places[-1].stop, sum(modes.shape[1] for _, modes in columns)))
    start = 0
    for here, modes in columns:
        found[here, start : start + modes.shape[1]] = modes
        start += modes.shape[1]
    return found


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
