"""How a measurement relates to the model: what the instrument does, and what is unknown of it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..curve import Axis
from ..errors import TargetError, UnitError
from ..io import read_matrix
from ..limits import Limit, checked_number, limit_of
from ..observables import Observable
from ..observables.identity import plain
from ..units import value_in_md_units
from .response import Model, Response, bins_about, nodes_of

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

SMEAR = ("density", "counts")
POINTS = ("point", "bin")
SHELLS = ("exact", "centre", "lower")
NORMALISATION = ("ideal gas", "unit integral")

_OPERATOR = ("resolution", "smear", "points", "shells", "normalisation")
_OF_CURVES = (*_OPERATOR, "background", "broadening", "shift")  # what a value without axis lacks
_HIDES = ("offset", "background", "systematic", "resolution", "broadening")
WIDEST = 0.25  # of the axis: a broader resolution leaves nothing to compare


@dataclass(frozen=True)
class Measurement:
    """How a target was measured: further keywords of ``Target``, each with a default.

    Known is what the instrument does. It is done to the model's values, nothing measured is
    transformed:

    resolution : float, array [points] or matrix [points, n_values]
        Standard deviation of a Gaussian, in the unit of the axis (nm); or a matrix that gives the
        measured values from those of the observable. A Gaussian is reflected at zero, and a g(r)
        goes on as 1 beyond the model's last bin.
    smear : "density" or "counts"
        What the resolution acts on: the values themselves (default), or their product with the
        volume of a shell, r^2 g(r), as where pairs are counted in soft bins; such counts are then
        divided by what they are for an ideal gas.
    points : "point", "bin", (low, high) or edges [points + 1]
        What a value is: that at its place, the model's being interpolated (default), or the mean
        over a bin, with edges halfway between the points, of so many equal bins from low to high,
        or as given.
    shells : "exact", "centre", "lower", (low, high) or edges [points + 1]
        What counts were divided by: the volume of the bin; 4 pi r^2 dr at the point, or at the
        lower edge of its bin; or the exact volumes of other bins, given like those of ``points``.
    normalisation : "ideal gas", "unit integral" or float
        An ideal gas gives 1 (default); or values were scaled by their own integral, sum_i g_i V_i
        over all measured points with the volumes V of the shells, to the volume of the sphere that
        they cover (of a distribution, to 1). A float is another value of that integral, in nm^3.

    Unknown is the rest. Each of these has a normal prior about zero (the scale about 1) and is
    marginalised exactly, v p p^T being added to the covariance of the target:

    scale : float or (float, length)
        Relative standard uncertainty, of one factor, or of one that drifts along the axis with
        that correlation length; p is what the model predicts, as the measured values would bias
        it (d'Agostini, doi 10.1016/0168-9002(94)90719-6). Default: 0.01 for a histogram (a g(r), a
        distribution) with independent noise, since the scale of a digitised curve is never known
        better unless somebody says so; 0 for noise that is "sampled", for a covariance that is
        given, and for anything else.
    offset : float
        Standard uncertainty, in the unit of the values; p is 1.
    background : (amplitude, length)
        Of a smooth function, a Gaussian process of that standard deviation (unit of the values)
        and correlation length (unit of the axis).
    broadening : float
        Of the resolution, in the unit of the axis: so broad a Gaussian may have been at work, or
        not, besides ``resolution``. The unknown is its variance, with the prior standard deviation
        ``broadening``^2; p is that times the derivative of the model's values by the variance at
        ``resolution`` (0.7 bins of the model at least). Only a positive variance can be: a
        negative one says that the stated resolution is too broad.
    shift : float
        Standard uncertainty of the zero of the axis: measured(x) = model(x + s), so that s is what
        has to be added to the measured places. p is ``shift`` times the derivative of the model's
        values along the axis.
    systematic : array [points] or [points, k]
        One standard error of each of k causes, fully correlated between points.
    covariance : matrix [points, points], or a file of one
        Of all else, in place of ``uncertainty``. See ``io.read_matrix`` for files, which
        ``resolution`` and ``systematic`` may be too.

    Arrays go with the points as they were given, whatever their order.
    """

    resolution: Any = None
    smear: str = "density"
    points: Any = "point"
    shells: Any = "exact"
    normalisation: Any = "ideal gas"
    scale: Any = None
    offset: Any = 0.0
    background: Any = None
    broadening: Any = 0.0
    shift: Any = 0.0
    systematic: Any = None
    covariance: Any = None

    def __post_init__(self) -> None:
        """Raises TargetError where a word is none of the known ones."""
        words = {"points": POINTS, "shells": SHELLS, "normalisation": NORMALISATION}
        for name, known in words.items():
            if isinstance(value := getattr(self, name), str) and value not in known:
                raise _not_one_of(name, value, known)
        if self.smear not in SMEAR:
            raise _not_one_of("smear", self.smear, SMEAR)
        if self.smear == "counts" and self.resolution is None and not self._said(["broadening"]):
            raise TargetError(
                "smear: got 'counts' and nothing that smears: give a resolution or a broadening"
            )
        if self.scale is not None and not isinstance(self.scale, Sequence):
            checked_number("scale", self.scale, TargetError)

    @classmethod
    def of(cls, keywords: Mapping[str, Any], others: Iterable[str]) -> Measurement:
        """From keywords; TargetError names one that is neither of these nor of the ``others``."""
        own = [field.name for field in fields(cls)]
        for name in keywords.keys() - set(own):
            near = difflib.get_close_matches(name, [*own, *others], 1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(own)}"
            raise TargetError(f"{name}: a target has no such keyword; {hint}", got=name)
        return cls(**keywords)

    def check_scalar(self) -> None:
        """TargetError where something is said that a value without an axis has not."""
        for name in self._said(_OF_CURVES):
            raise TargetError(
                f"{name}: only a curve has one, got {getattr(self, name)!r} for a value"
            )

    def hides_small_values(self) -> bool:
        """May what is small be no pairs at all, but an offset or the foot of a peak?"""
        return bool(self._said(_HIDES))

    def is_ideal(self) -> bool:
        """Are the values those of the model at their places, as far as is said?"""
        return not self._said(_OPERATOR)

    def _said(self, names: Sequence[str]) -> list[str]:
        """Those of the names that have not their default."""
        defaults = {field.name: field.default for field in fields(self)}
        values = {name: getattr(self, name) for name in names}
        plain_kinds = str | float | int | None
        return [
            name
            for name, value in values.items()
            if not isinstance(value, plain_kinds) or value != defaults[name]
        ]

    def identity(self, observable: Observable, x_kind: str) -> dict[str, Any]:
        """All of it as plain data, in md units; of a file what it holds."""
        kind = observable.kind
        kinds = {"resolution": x_kind, "points": x_kind, "shells": x_kind}
        kinds |= {"offset": kind, "systematic": kind, "broadening": x_kind, "shift": x_kind}
        words = (*SMEAR, *POINTS, *SHELLS, *NORMALISATION)
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        smooth = {"background": _amplitude_and_length(own.pop("background"), kind, x_kind)}
        if isinstance(self.scale, Sequence):
            smooth["scale"] = _amplitude_and_length(own.pop("scale"), "dimensionless", x_kind)
        return smooth | {
            name: value
            if isinstance(value, str) and value in words
            else plain(numbers_of(name, value, kinds.get(name, "dimensionless")))
            for name, value in own.items()
        }


@dataclass(frozen=True)
class Points:
    """The points of a target: where they are, and which of the rows that were given they are."""

    x: Array
    """[points], ascending."""
    rows: IntArray
    """[points]."""
    n_given: int

    @classmethod
    def of(cls, x: Array, given: Array | None = None) -> Points:
        """Of a curve as it is, or tidied up from what was ``given`` with holes, in any order."""
        if given is None:
            return cls(x, np.arange(len(x)), len(x))
        order = np.argsort(given, kind="stable")  # NaN last
        return cls(x, order[np.searchsorted(given[order], x)], len(given))

    def at(self, places: NDArray[np.bool_]) -> Points:
        """The points where ``places``, bool [points], is true."""
        return Points(self.x[places], self.rows[places], self.n_given)

    def each(self, name: str, array: Array) -> Array:
        """The rows of an array that has one for each point given."""
        if len(array) != self.n_given:
            raise TargetError(
                f"{name}: expected one row for each of the {self.n_given} points, got {len(array)}",
                got=len(array),
                expected=self.n_given,
            )
        return np.asarray(array[self.rows])


def response_of(how: Measurement, observable: Observable, axis: Axis, points: Points) -> Response:
    """What the instrument makes of the values of an observable, at all points.

    Raises
    ------
    TargetError
        If an argument cannot be, or does not fit the points or the axis.
    """
    assert observable.rules is not None
    x, growth = points.x, observable.rules.growth
    widths = np.diff(axis.values)
    even = len(widths) > 0 and np.ptp(widths) < 1e-6 * abs(widths.mean())
    model = Model(axis, growth, observable.is_histogram and even, observable.tends_to)
    bins = bins_about(x)
    if not isinstance(how.points, str):
        bins = edges_of("points", how.points, len(x), axis)
        if np.any((x < bins[:-1]) | (x > bins[1:])):
            raise TargetError("points: expected edges with each point in its bin, got others")
    resolution = numbers_of("resolution", how.resolution, axis.kind)
    if resolution is not None and resolution.ndim == 2 and resolution.shape[1] > 1:
        found, measure = _by_matrix(how, resolution, axis, points), None
    else:
        found, measure = _by_kernel(how, resolution, model, points, bins)
    volumes = np.diff(model.volume_below(bins))
    if measure is not None:
        volumes = np.diff(bins) * measure
    shells, top = _shells(how, model, x, bins)
    if shells is not None:
        found, volumes = found.times(volumes / shells), shells
    if isinstance(how.normalisation, str) and how.normalisation == "ideal gas":
        return found
    if isinstance(how.normalisation, str):
        whole = float(model.volume_below(np.array(top))) if observable.tends_to else 1.0
    else:
        whole = checked_number(
            "normalisation", how.normalisation, TargetError, limit_of("integral")
        )
        whole /= _solid_angle(growth)
    return found.over_integral(volumes, whole)


def _by_matrix(how: Measurement, matrix: Array, axis: Axis, points: Points) -> Response:
    if not isinstance(how.points, str) or how.points != "point" or how.smear != "density":
        raise TargetError("resolution: a matrix says all of it; leave out points and smear")
    if matrix.shape[1] != len(axis.values):
        raise TargetError(
            f"resolution: expected a matrix with {len(axis.values)} columns, one for each value of "
            f"the observable, got {matrix.shape[1]}",
            got=matrix.shape,
            expected=(points.n_given, len(axis.values)),
        )
    return Response(points.each("resolution", matrix))


def _by_kernel(
    how: Measurement, resolution: Array | None, model: Model, points: Points, bins: Array
) -> tuple[Response, Array | None]:
    """By a Gaussian, or none; and what an ideal gas was divided by, where that is not its bin."""
    x = points.x
    is_point = isinstance(how.points, str) and how.points == "point"
    if resolution is None:
        return (model.interpolated(x) if is_point else model.means(bins)), None
    sigma = np.full(len(x), float(resolution)) if resolution.ndim == 0 else resolution
    if resolution.ndim:
        sigma = points.each("resolution", resolution.reshape(len(resolution)))
    limit = limit_of("resolution")
    widest = WIDEST * float(model.axis.values[-1])
    limit = Limit(limit.least, widest, f"in {model.axis.unit}; a quarter of the axis at most")
    for number in (sigma.min(), sigma.max()):
        checked_number("resolution", float(number), TargetError, limit)
    places = np.maximum(x, 1e-6 * model.axis.values[-1])[:, None] if is_point else nodes_of(bins)
    found, measure = model.smeared(places, sigma, how.smear == "counts")
    return found, measure if how.smear == "counts" else None


def _shells(how: Measurement, model: Model, x: Array, bins: Array) -> tuple[Array | None, float]:
    """Volumes that were divided by, or None where they are exact; and where the last one ends."""
    if isinstance(how.shells, str):
        if how.shells == "exact":
            return None, float(bins[-1])
        place = x if how.shells == "centre" else bins[:-1]
        volumes = place**model.growth * np.diff(bins)
    else:
        bins = edges_of("shells", how.shells, len(x), model.axis)
        volumes = np.diff(model.volume_below(bins))
    if not np.all(volumes > 0):
        raise TargetError("shells: expected volumes above zero, got one of zero; see window=")
    return volumes, float(bins[-1])


def edges_of(name: str, given: Any, n_points: int, axis: Axis) -> Array:
    """Of as many bins as points, [points + 1], from their edges or the outer two."""
    edges = np.atleast_1d(np.asarray(value_in_md_units(given, axis.kind)))
    if edges.shape == (2,) and n_points > 1:
        edges = np.linspace(edges[0], edges[1], n_points + 1)
    if edges.shape != (n_points + 1,):
        raise TargetError(
            f"{name}: expected (low, high) or {n_points + 1} edges for {n_points} points, got "
            f"numbers of shape {edges.shape}",
            got=edges.shape,
            expected=(n_points + 1,),
        )
    if not (np.all(np.isfinite(edges)) and edges[0] >= 0 and np.all(np.diff(edges) > 0)):
        raise TargetError(f"{name}: expected rising edges from 0 on, got {edges[0]:g} first")
    return edges


def _solid_angle(growth: float) -> float:
    return 4 * np.pi if growth == 2 else 1.0


def numbers_of(name: str, given: Any, kind: str) -> Array | None:
    """An array of md units, of a file too; None where nothing was given."""
    if given is None:
        return None
    if isinstance(given, str | PathLike):
        found = read_matrix(given)
        return found[:, 0] if found.shape[1] == 1 else found
    found = np.asarray(value_in_md_units(given, kind))
    if not np.all(np.isfinite(found)):
        raise TargetError(f"{name}: expected finite numbers")
    return found


def number_of(name: str, given: Any, kind: str) -> float:
    """One number, in md units; TargetError where it is none."""
    try:
        found = np.asarray(value_in_md_units(given, kind))
    except UnitError as error:
        raise TargetError(f"{name}: {error}", got=given) from error
    if found.ndim:
        raise TargetError(
            f"{name}: expected one number, got an array of shape {found.shape}", got=given
        )
    return float(found)


def _not_one_of(name: str, value: Any, known: Sequence[str]) -> TargetError:
    return TargetError(
        f"{name}: expected {' or '.join(map(repr, known))}, got {value!r}", got=value
    )


def _amplitude_and_length(given: Any, kind: str, x_kind: str) -> list[float] | None:
    """In md units."""
    if given is None:
        return None
    return [number_of("length", *pair) for pair in zip(given, (kind, x_kind), strict=True)]
