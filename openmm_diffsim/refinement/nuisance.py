"""What is unknown of a measurement: nuisances that are marginalised, and covariances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..curve import Axis
from ..errors import TargetError
from ..limits import Limit, checked_number, limit_of
from ..observables import Observable
from .measurement import WIDEST, Measurement, Points, edges_of, number_of, numbers_of, response_of
from .response import Response

Array = NDArray[np.float64]

DIGITISED_SCALE = 0.01
"""Relative uncertainty of the scale of a histogram whose noise is independent, unless said."""

_LEAST_VARIANCE = 1e-10  # of the largest mode of a background: smaller ones are left out
_MOST_PLACES = 1000  # of a background: between them it is interpolated
_STEP = 0.25  # share of the smallest bin, and of a variance: how far to see what a change does
_SINGULAR = 1e-10  # of the largest eigenvalue
_ROUNDING = 1e-8  # relative: what may be wrong with a covariance that was written and read


@dataclass(frozen=True)
class Nuisance:
    """Something unknown of a target: ``modes @ z`` is added to its values."""

    name: str
    modes: Array
    """[points, k]; the k numbers z have standard normal priors."""
    spread: float
    """Prior standard deviation: of the scale or the offset; else of the values, rms."""
    reach: float = np.inf
    """How large the number may be and the values still follow it linearly."""


@dataclass(frozen=True)
class Variant:
    """A number that the response depends on: the shift, or the variance of a broadening."""

    name: str
    lower: Response
    upper: Response
    step: float | Array
    """Of the number, between the two; [points] or one for all."""
    spread: float
    """Prior standard deviation of the number."""
    x: Array
    """[points]."""

    def at(self, places: NDArray[np.bool_]) -> Variant:
        """The points where ``places``, bool [points], is true."""
        lower, upper = self.lower.at(places), self.upper.at(places)
        step = np.broadcast_to(self.step, self.x.shape)[places]
        return replace(self, lower=lower, upper=upper, step=step, x=self.x[places])

    def nuisance(self, values: Array) -> Nuisance:
        """The central difference at the model's values [n_values], times ``spread``."""
        slope = (self.upper(values) - self.lower(values)) / self.step
        return Nuisance(self.name, self.spread * slope[:, None], self.spread, self._reach(slope))

    def _reach(self, slope: Array) -> float:
        """Half the length over which the slope changes, its square twofold for a variance.

        Along the axis that is L = rms(p) / rms(dp/dx). The slope by a variance is half a second
        derivative, and its own slope half that of p again: it changes over 2 L^2.
        """
        if len(slope) < 2 or not slope.any():
            return np.inf
        bend = np.gradient(slope, self.x)
        length = np.sqrt(np.mean(slope**2) / max(np.mean(bend**2), np.finfo(float).tiny))
        return float(0.5 * length if self.name == "shift" else length**2)


@dataclass(frozen=True)
class Unknowns:
    """All that is unknown of a target but the noise of its points."""

    scale: float | None
    """None: ``DIGITISED_SCALE`` where the noise is independent, if ``digitised``."""
    digitised: bool
    fixed: tuple[Nuisance, ...] = ()
    """Those that do not depend on the model."""
    variants: tuple[Variant, ...] = ()
    drift: Nuisance | None = None
    """Of a scale that drifts: its modes multiply what the model predicts."""

    def at(self, prediction: Array, values: Array, is_sampled: bool) -> list[Nuisance]:
        """Each nuisance, for the model's values [n_values] and what they predict, [points]."""
        scale = self.scale
        if scale is None:
            scale = DIGITISED_SCALE if self.digitised and not is_sampled else 0.0
        found = [Nuisance("scale", scale * prediction[:, None], scale)] if scale else []
        if self.drift is not None:
            found.append(replace(self.drift, modes=prediction[:, None] * self.drift.modes))
        return [*found, *(variant.nuisance(values) for variant in self.variants), *self.fixed]


def unknowns_of(
    how: Measurement,
    observable: Observable,
    points: Points,
    digitised: bool = False,
    variants: Sequence[Variant] = (),
) -> Unknowns:
    """Of some points; ``digitised`` ones get a scale by default.

    Raises
    ------
    TargetError
        If an argument cannot be, or does not fit the points.
    """
    kind, n = observable.kind, len(points.x)
    fixed = []
    offset = number_of("offset", how.offset, kind)
    if checked_number("offset", offset, TargetError):
        fixed.append(Nuisance("offset", np.full((n, 1), offset), offset))
    if how.background is not None:
        fixed.append(_smooth("background", how.background, observable, points.x, kind))
    systematic = numbers_of("systematic", how.systematic, kind)
    if systematic is not None:
        if systematic.ndim not in (1, 2):
            raise TargetError(f"systematic: expected an array [points, k], got {systematic.shape}")
        rows = points.each("systematic", systematic).reshape(n, -1)
        for k, mode in enumerate(rows.T):
            name = "systematic" if rows.shape[1] == 1 else f"systematic {k + 1}"
            fixed.append(Nuisance(name, mode[:, None], float(np.sqrt(np.mean(mode**2)))))
    if not isinstance(how.scale, Sequence):
        return Unknowns(how.scale, digitised, tuple(fixed), tuple(variants))
    drift = _smooth("scale", how.scale, observable, points.x, "dimensionless")
    drift = replace(drift, name="drift of the scale")
    return Unknowns(0.0, digitised, tuple(fixed), tuple(variants), drift)


def variants_of(
    how: Measurement, observable: Observable, axis: Axis, points: Points
) -> list[Variant]:
    """What the response at all points depends on: a broadening, a shift.

    Raises
    ------
    TargetError
        If an argument cannot be, or the resolution is a matrix and said to be uncertain.
    """
    found = []
    end = float(axis.values[-1])
    most = f"in {axis.unit}; "
    broadening = number_of("broadening", how.broadening, axis.kind)
    limit = Limit(0, WIDEST * end, f"{most}a quarter of the axis at most")
    if checked_number("broadening", broadening, TargetError, limit):
        found.append(_broader(how, observable, axis, points, broadening))
    shift = number_of("shift", how.shift, axis.kind)
    limit = Limit(0, end - float(axis.values[0]), f"{most}less than the axis is long")
    if checked_number("shift", shift, TargetError, limit):
        found.append(_shift(how, observable, axis, points, shift))
    sigma = numbers_of("resolution", how.resolution, axis.kind)
    if found and sigma is not None and sigma.ndim == 2 and sigma.shape[1] > 1:
        raise TargetError(f"{found[0].name}: a matrix says all of the resolution; leave one out")
    return found


def _broader(
    how: Measurement, observable: Observable, axis: Axis, points: Points, broadening: float
) -> Variant:
    """By the variance; where less than 0.7 bins of the model are stated, there."""
    sigma = numbers_of("resolution", how.resolution, axis.kind)
    least = _STEP * float(np.diff(axis.values).mean()) ** 2
    variance = np.maximum(0.0 if sigma is None else sigma**2, 2 * least)
    lower, upper = (
        response_of(replace(how, resolution=np.sqrt(share * variance)), observable, axis, points)
        for share in (1 - _STEP, 1 + _STEP)
    )
    step = np.broadcast_to(
        points.each("resolution", variance) if variance.ndim else variance, len(points.x)
    )
    return Variant("broadening", lower, upper, 2 * _STEP * step, broadening**2, points.x)


def _shift(
    how: Measurement, observable: Observable, axis: Axis, points: Points, spread: float
) -> Variant:
    """By a quarter of a bin of the model, or of the narrowest that was measured, to both sides.

    The slope is that of a spline: of lines between bin centres it would be that of a broader peak.
    """
    axis = replace(axis, between="spline")
    widths = [np.diff(axis.values).min()]
    if not isinstance(how.points, str):
        widths.append(np.diff(edges_of("points", how.points, len(points.x), axis)).min())
    step = _STEP * float(min(widths))
    lower, upper = (
        response_of(*_shifted(how, points, axis, by, observable)) for by in (-step, step)
    )
    return Variant("shift", lower, upper, 2 * step, spread, points.x)


def _shifted(
    how: Measurement, points: Points, axis: Axis, shift: float, observable: Observable
) -> tuple[Measurement, Observable, Axis, Points]:
    """The arguments of ``response_of`` with all points shifted, none of them below zero."""
    x = np.clip(points.x + shift, 0.0, np.maximum(points.x, axis.ends[1]))
    if not isinstance(how.points, str):
        edges = edges_of("points", how.points, len(x), axis) + shift
        how, x = replace(how, points=np.maximum(edges, 0.0)), np.maximum(points.x + shift, 0.0)
    return how, observable, axis, replace(points, x=x)


def _smooth(name: str, given: Any, observable: Observable, x: Array, kind: str) -> Nuisance:
    """The modes of a Gaussian process that are not negligible; amplitude and length are given."""
    if observable.rules is None:
        raise TargetError(f"{name}: a value has no correlation length, got {given!r}")
    if isinstance(given, str) or not isinstance(given, Sequence) or len(given) != 2:
        raise TargetError(f"{name}: expected (amplitude, length), got {given!r}")
    amplitude = number_of(name, given[0], kind)
    length = number_of("correlation_length", given[1], observable.rules.x_kind)
    limit = limit_of("amplitude")
    if name == "scale":
        limit = replace(limit_of("scale"), least=limit.least)
    checked_number(f"{name}: amplitude", amplitude, TargetError, limit)
    checked_number(
        f"{name}: correlation_length", length, TargetError, limit_of("correlation_length")
    )
    places = x if len(x) <= _MOST_PLACES else np.linspace(x[0], x[-1], _MOST_PLACES)
    variances, vectors = np.linalg.eigh(np.exp(-0.5 * ((places[:, None] - places) / length) ** 2))
    seen = variances > _LEAST_VARIANCE * variances[-1]
    shapes = vectors[:, seen] / np.sqrt(variances[seen])
    near = np.exp(-0.5 * ((x[:, None] - places) / length) ** 2)
    return Nuisance(name, amplitude * near @ shapes, amplitude)


def check_regular(covariance: Array) -> None:
    """TargetError where some combination of the points has next to no variance of its own."""
    error = np.sqrt(np.diag(covariance))
    least, *_, most = np.linalg.eigvalsh(covariance / np.outer(error, error))
    if not least > _SINGULAR * most:
        raise TargetError(
            f"covariance: is singular: of its correlations the smallest eigenvalue is {least:.2g}, "
            f"expected more than {_SINGULAR:g} of the largest, {most:.2g}; nothing is measured "
            "without error: add the variance of independent noise to its diagonal, and give what "
            "is common to all points as systematic, offset or scale"
        )


def covariance_of(how: Measurement, points: Points) -> Array | None:
    """What was given, [points, points]; None where nothing was.

    Raises
    ------
    TargetError
        If it is of another shape, not symmetric, or has a negative variance along something.
    """
    given = numbers_of("covariance", how.covariance, "dimensionless")
    if given is None:
        return None
    n = points.n_given
    if given.shape != (n, n):
        raise TargetError(
            f"covariance: expected a matrix {(n, n)} for {n} points, got {given.shape}",
            got=given.shape,
            expected=(n, n),
        )
    found = given[np.ix_(points.rows, points.rows)]
    if not np.all(np.isfinite(found)):
        raise TargetError("covariance: expected finite numbers")
    largest = np.abs(found).max()
    if np.abs(found - found.T).max() > _ROUNDING * largest:
        raise TargetError("covariance: expected a symmetric matrix, got one that is not")
    found = 0.5 * (found + found.T)
    least = float(np.linalg.eigvalsh(found)[0])
    if least < -_ROUNDING * largest * n:
        raise TargetError(
            f"covariance: got an eigenvalue of {least:.3g}, expected none below zero; was it "
            "rounded? Add the variance of the rounding to its diagonal"
        )
    return found
