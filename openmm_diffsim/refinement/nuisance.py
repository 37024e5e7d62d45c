"""What is unknown of a measurement: nuisances that are marginalised, and covariances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..curve import Axis
from ..errors import TargetError
from ..limits import checked_number
from ..observables import Observable
from ..units import value_in_md_units
from .measurement import Measurement, Points, edges_of, numbers_of, response_of
from .response import Response

Array = NDArray[np.float64]

DIGITISED_SCALE = 0.01
"""Relative uncertainty of the scale of a histogram whose noise is independent, unless said."""

_LEAST_VARIANCE = 1e-10  # of the largest mode of a background: smaller ones are left out
_MOST_PLACES = 1000  # of a background: between them it is interpolated
_ROUNDING = 1e-8  # relative: what may be wrong with a covariance that was written and read


@dataclass(frozen=True)
class Nuisance:
    """Something unknown of a target: ``modes @ z`` is added to its values."""

    name: str
    modes: Array
    """[points, k]; the k numbers z have standard normal priors."""
    spread: float
    """Prior standard deviation: of the scale or the offset; else of the values, rms."""


@dataclass(frozen=True)
class Variant:
    """Another response that might be the right one."""

    name: str
    response: Response
    spread: float


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
        for variant in self.variants:
            mode = variant.response(values) - prediction
            found.append(Nuisance(variant.name, mode[:, None], variant.spread))
        return [*found, *self.fixed]


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
    offset = float(value_in_md_units(how.offset, kind))
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
    """What else the response at all points may be: broader, or shifted.

    Raises
    ------
    TargetError
        If an argument cannot be, or the resolution is a matrix and said to be uncertain.
    """
    found = []
    broadening = float(value_in_md_units(how.broadening, axis.kind))
    if checked_number("broadening", broadening, TargetError):
        sigma = numbers_of("resolution", how.resolution, axis.kind)
        if sigma is not None and sigma.ndim == 2:
            raise TargetError("broadening: a matrix says all of the resolution; leave one out")
        broader = replace(how, resolution=np.hypot(0.0 if sigma is None else sigma, broadening))
        response = response_of(broader, observable, axis, points)
        found.append(Variant("broadening", response, broadening**2))
    shift = float(value_in_md_units(how.shift, axis.kind))
    if checked_number("shift", shift, TargetError):
        response = response_of(*_shifted(how, points, axis, shift, observable))
        found.append(Variant("shift", response, shift))
    return found


def _shifted(
    how: Measurement, points: Points, axis: Axis, shift: float, observable: Observable
) -> tuple[Measurement, Observable, Axis, Points]:
    """The arguments of ``response_of`` with all points shifted."""
    x = np.minimum(points.x + shift, np.maximum(points.x, axis.ends[1]))
    if not isinstance(how.points, str):
        edges = edges_of("points", how.points, len(x), axis) + shift
        how, x = replace(how, points=edges), points.x + shift
    return how, observable, axis, replace(points, x=x)


def _smooth(name: str, given: Any, observable: Observable, x: Array, kind: str) -> Nuisance:
    """The modes of a Gaussian process that are not negligible; amplitude and length are given."""
    if observable.rules is None:
        raise TargetError(f"{name}: a value has no correlation length, got {given!r}")
    if isinstance(given, str) or not isinstance(given, Sequence) or len(given) != 2:
        raise TargetError(f"{name}: expected (amplitude, length), got {given!r}")
    amplitude = float(value_in_md_units(given[0], kind))
    length = float(value_in_md_units(given[1], observable.rules.x_kind))
    checked_number("amplitude", amplitude, TargetError)
    checked_number("correlation_length", length, TargetError)
    places = x if len(x) <= _MOST_PLACES else np.linspace(x[0], x[-1], _MOST_PLACES)
    variances, vectors = np.linalg.eigh(np.exp(-0.5 * ((places[:, None] - places) / length) ** 2))
    seen = variances > _LEAST_VARIANCE * variances[-1]
    shapes = vectors[:, seen] / np.sqrt(variances[seen])
    near = np.exp(-0.5 * ((x[:, None] - places) / length) ** 2)
    return Nuisance(name, amplitude * near @ shapes, amplitude)


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
