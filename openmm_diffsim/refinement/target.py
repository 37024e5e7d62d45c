"""Targets: what was measured, how well, and at which state points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..curve import Axis, Curve
from ..engine.statepoint import StatePoint
from ..errors import TargetError
from ..io import read_curve, tidy
from ..limits import LIMITS, checked_number
from ..observables import Observable, check_observable, linearized
from ..observables.identity import plain
from ..units import UNIT_NAMES, value_in_md_units
from .measurement import Measurement, Points, response_of
from .nuisance import check_regular, covariance_of, unknowns_of, variants_of
from .response import Response

Array = NDArray[np.float64]

_FEWEST_POINTS = 3  # of a curve
_SEEN = 0.3  # of what a g(r) tends to, of the peak of a distribution: bins that are counted often
NOISE = ("auto", "sampled", "independent")


class Target:
    """A measured value of an observable at a state point, or at several.

        Target(liquid, rdf, r, g, uncertainty=0.02)                    # r in nm
        Target(liquid, angles, theta, p, uncertainty=0.02)             # theta in rad, p in 1/rad
        Target(liquid, Pressure(), 1.0, uncertainty=50.0)              # bar
        Target(liquid, VACF(range(0, 101, 5)), t, c, uncertainty=4e-4)  # t in ps, c in nm^2/ps^2
        Target(liquid, Diffusion(200), 2.4e-3, uncertainty=1e-4)       # nm^2/ps
        Target([hot, cold], FunctionOfAverages(lambda a, b: a - b, [Pressure(), Pressure()]),
               120.0, uncertainty=5.0)                                 # bar

    A target is a function of averages: of those of its ``terms``, which ``predict`` takes.

    A measured curve may be irregular, unsorted and end in NaN: it is compared where it was
    measured, with the model's interpolated as the axis of the observable says (linearly between bin
    centres, by a cubic spline between lags), or as ``Measurement`` says. Points beyond the axis, or
    outside ``window``, do not count.

    Parameters
    ----------
    state_points : StatePoint or sequence of StatePoint
    observable : Observable
    *data : ``x, y`` of an observable with an axis (``r, g`` for an RDF), or a ``Curve``, which is
        taken as it is; else ``value``, of as many numbers as the observable has
    uncertainty : float or array like the data
        Standard error of the measurement, in its units. Where it is zero (a bin without counts),
        the median of the others, or what one count is worth there if that is more; see
        ``filled_errors``. Default: the covariance of the Curve where it has one, else its error.
    weight : float
        Multiplies this target's share of the misfit.
    window : (float, float), optional
        Of the axis, such as nm, rad or ps; only points inside are compared.
    noise : "auto", "sampled" or "independent"
        How the errors of a histogram (a g(r), a distribution of angles) hang together. "sampled":
        counted in a simulation of as many particles, so that the errors of different points are
        correlated just like the fluctuations of the model; long waves are then known far better
        than the single points say. "independent": each point for itself, as digitised from a
        figure. "auto": sampled where the errors vary from point to point just as those of a
        simulation do (to a factor of 1.5 or so), else independent.
        The errors of anything else count as independent. Where they are independent, the scale of
        a histogram counts as known to a per cent: ``scale=0`` takes it as exact.
    as_it_is : bool
        Take a curve or a value although it looks as if its unit or its norm were another one, such
        as a g(r) that rises at 3 nm or tends to 0.7, or a density of 997 g/cm^3; see
        ``observables.plausible``.
    **measurement
        How it was measured, and what is unknown of that: ``resolution``, ``smear``, ``points``,
        ``shells``, ``normalisation``, ``scale``, ``offset``, ``background``, ``broadening``,
        ``shift``, ``systematic``, ``covariance``; see ``Measurement``.

    Attributes
    ----------
    terms : tuple of (StatePoint, Observable)
        The averages that it takes; of a plain observable just its own.
    state_points : tuple of StatePoint
    axis : Axis or None
    curve : Curve or None
        What is compared, in md units; its error is the uncertainty.
    x : array [points], md units of the axis; None without one
    values, uncertainty : arrays [points], md units
    covariance : array [points, points] or None
        Of the measurement, where it was given.
    measurement : Measurement
    response : Response
        From all values of the observable to those that were measured.

    Raises
    ------
    TargetError
        If the data cannot be what they are said to be, with what was got and expected.
    ObservableError
        If the observable needs another number of state points, or cannot be recorded at one: its
        atoms, charges, bonds or a box are not there.
    """

    def __init__(
        self,
        state_points: StatePoint | Sequence[StatePoint],
        observable: Observable,
        *data: Any,
        uncertainty: Any = None,
        weight: float = 1.0,
        window: tuple[float, float] | None = None,
        noise: str = "auto",
        as_it_is: bool = False,
        **measurement: Any,
    ) -> None:
        if noise not in NOISE:
            raise TargetError(
                f"noise: expected 'auto', 'sampled' or 'independent', got {noise!r}", got=noise
            )
        points = state_points if isinstance(state_points, Sequence) else [state_points]
        self.state_points: tuple[StatePoint, ...] = tuple(points)
        check_observable(observable)
        self.observable = observable
        self.terms: tuple[tuple[StatePoint, Observable], ...] = observable.terms(self.state_points)
        for point, term in self.terms:
            point.check_observable(term)
        self.weight = checked_number("weight", weight, TargetError)
        self.noise = noise
        self.measurement = Measurement.of(measurement, signature(Target).parameters)
        if self.measurement.covariance is not None and uncertainty is not None:
            raise TargetError("covariance: got an uncertainty as well; give one of them")
        self.axis = observable.axis(self.state_point.timestep)
        self.curve: Curve | None = None
        if self.axis is None:
            self._take_values(data, uncertainty, as_it_is)
        else:
            self._take_curve(self.axis, data, uncertainty, window, as_it_is)
        self._check()

    @classmethod
    def from_file(
        cls,
        state_points: StatePoint | Sequence[StatePoint],
        observable: Observable,
        path: str | Path,
        unit: str | None = None,
        uncertainty: Any = None,
        columns: Sequence[int] | None = None,
        block: int | None = None,
        **options: Any,
    ) -> Target:
        """A curve (a g(r), a distribution of angles, a function of time) from a text file.

        See ``openmm_diffsim.io.read_curve`` for what it may look like. ``unit`` is that of x in
        the file, one of ``observable.rules.units``: "nm" (the default) or "angstrom" for a g(r),
        "rad" or "degree" for angles. ``uncertainty`` may be left out where the file has a third
        column of errors. ``columns`` are those of x, y and perhaps the error, counted from 1, and
        ``block`` one of several tables in the file, likewise, or -1 for the last.
        """
        if observable.rules is None:
            raise TargetError(f"{observable.label} is no curve: give its value, not {path}")
        unit = unit or observable.rules.default_unit
        curve = read_curve(path, observable.rules, unit, columns, block)
        if curve.error is None and uncertainty is None and options.get("covariance") is None:
            raise TargetError(f"{path}: has no error column, so uncertainty= is needed", path=path)
        return cls(state_points, observable, curve, uncertainty=uncertainty, **options)

    @property
    def state_point(self) -> StatePoint:
        """The first of ``state_points``."""
        return self.state_points[0]

    @property
    def x(self) -> Array | None:
        """Where it was measured, [points]; None for what is no curve."""
        return None if self.curve is None else self.curve.x

    def predict(self, *averages: Tensor) -> Tensor:
        """What the averages of all ``terms`` say of the measured values, [points].

        Each is [n_values of its observable]. Differentiable: the Jacobian is that of torch.
        """
        return self.response.of_tensor(self.observable.combine(*averages).double())

    def linearized(self, *averages: Tensor) -> tuple[Array, list[Array]]:
        """``predict`` and its Jacobian with respect to each average, [points, n_values].

        Raises
        ------
        ObservableError
            If torch finds no way back to the averages, or either is not finite.
        """
        values, jacobians = linearized(self.observable, averages)
        slope = self.response.jacobian(values)
        return self.response(values), [slope @ jacobian for jacobian in jacobians]

    def identity(self) -> dict[str, Any]:
        """Everything that it was made from, as plain data: a fit belongs to such targets alone."""
        return {
            "observable": self.observable.identity(),
            "timesteps": [o.segment_timestep(p.timestep) for p, o in self.terms],
            "x": None if self.x is None else self.x.tolist(),
            "values": self.values.tolist(),
            "uncertainty": self.uncertainty.tolist(),
            "covariance": plain(self.covariance),
            "measurement": self.measurement.identity(self.observable, self._x_kind),
            "weight": self.weight,
            "noise": self.noise,
        }

    def frames_share(self, one_frame: Array) -> float | None:
        """Variance of the target over that of one frame of the model, or None if independent.

        ``one_frame`` [points] is the variance of each point in one frame.
        """
        if not self.observable.is_histogram or self.noise == "independent":
            return None
        if self.covariance is not None:
            return None
        seen = self.values > _SEEN * (self.observable.tends_to or self.values.max())
        seen &= one_frame > 0
        if seen.sum() < (20 if self.noise == "auto" else 1):
            return None
        if self.noise == "auto" and np.ptp(self.uncertainty[seen]) == 0:
            return None
        ratio = np.log(self.uncertainty[seen] ** 2 / one_frame[seen])
        if self.noise == "auto" and 1.4826 * np.median(np.abs(ratio - np.median(ratio))) > 0.8:
            return None
        return float(np.exp(np.median(ratio)))

    @property
    def covariance(self) -> Array | None:
        """Of the measurement, [points, points], where it was given."""
        return self._covariance if self.curve is None else self.curve.covariance

    @property
    def _x_kind(self) -> str:
        return "dimensionless" if self.axis is None else self.axis.kind

    def _take_curve(
        self,
        axis: Axis,
        data: tuple[Any, ...],
        uncertainty: Any,
        window: tuple[float, float] | None,
        as_it_is: bool,
    ) -> None:
        observable, how = self.observable, self.measurement
        curve, points = self._taken_curve(data, uncertainty)
        if not as_it_is:
            observable.check(curve, self.state_point.place())
        kept = _inside(curve, axis, window)
        growth = observable.rules.growth if observable.rules else 0.0
        self.curve = _filled(curve.at(kept), growth)
        assert self.curve.error is not None
        self.values, self.uncertainty = self.curve.y, self.curve.error
        self.response = response_of(how, observable, axis, points).at(kept)
        digitised = observable.is_histogram and self.covariance is None
        variants = variants_of(how, observable, axis, points)
        variants = [variant.at(kept) for variant in variants]
        self.unknowns = unknowns_of(how, observable, points.at(kept), digitised, variants)

    def _taken_curve(self, data: tuple[Any, ...], uncertainty: Any) -> tuple[Curve, Points]:
        """What was measured, tidied up, with an error everywhere, and where it came from."""
        observable, rules = self.observable, self.observable.rules
        if rules is None:
            raise TargetError(
                f"{type(observable).__name__} has an axis and no rules: give it CurveRules, which "
                "say what a measured curve may be"
            )
        x: Array | None = None
        if len(data) == 1 and isinstance(data[0], Curve):
            curve = data[0]
            if uncertainty is not None:
                error = self._errors(uncertainty, curve.x.shape)
                curve = replace(curve, error=error, covariance=None)
        elif len(data) == 2:
            x = np.asarray(value_in_md_units(data[0], rules.x_kind))
            given = self.measurement.covariance is not None
            spread = None if given else self._errors(uncertainty, x.shape)
            curve = tidy(x, data[1], spread, rules, observable.kind)
        else:
            raise TargetError(
                f"a target of {type(observable).__name__} needs {rules.x} and "
                f"{observable.column or 'values'}, got {len(data)} arrays"
            )
        points = Points.of(curve.x, x)
        covariance = covariance_of(self.measurement, points)
        if covariance is not None:
            curve = replace(curve, error=None, covariance=covariance)
        if curve.error is None and curve.covariance is not None:
            curve = replace(curve, error=np.sqrt(np.diag(curve.covariance)))
        if curve.error is None:
            raise TargetError(f"a target of {type(observable).__name__} needs its uncertainty")
        return curve, points

    def _take_values(self, data: tuple[Any, ...], uncertainty: Any, as_it_is: bool) -> None:
        observable, how = self.observable, self.measurement
        how.check_scalar()
        if len(data) != 1:
            raise TargetError(f"a scalar target needs one value, got {len(data)}")
        if isinstance(data[0], Curve):
            raise TargetError(
                f"{type(observable).__name__} has no axis, and cannot be compared with a curve: "
                "give it axis(), or a value"
            )
        values = np.atleast_1d(np.asarray(value_in_md_units(data[0], observable.kind)))
        _check_shape("value", values, (observable.n_values,))
        if not as_it_is:
            observable.check_values(values)
        _check_one_unit(data[0], uncertainty, observable.kind)
        points = Points.of(np.arange(float(len(values))))
        self._covariance = covariance_of(how, points)
        if self._covariance is not None:
            uncertainty = np.sqrt(np.diag(self._covariance))
        self.values, self.uncertainty = values, self._errors(uncertainty, values.shape)
        self.response = Response(np.eye(len(values)))
        self.unknowns = unknowns_of(how, observable, points)

    def _errors(self, uncertainty: Any, shape: tuple[int, ...]) -> Array:
        """One for every value; NaN where there is none."""
        given = np.nan if uncertainty is None else uncertainty
        error = np.asarray(value_in_md_units(given, self.observable.kind))
        if error.ndim:
            _check_shape("uncertainty", error, shape)
        return np.broadcast_to(error, shape).copy()

    def _check(self) -> None:
        if not np.all(np.isfinite(self.values)):
            raise TargetError(f"expected finite values, got {self.values}")
        if not np.all(np.isfinite(self.uncertainty) & (self.uncertainty > 0)):
            raise TargetError(
                "uncertainty: expected positive numbers, got a smallest of "
                f"{self.uncertainty.min()}"
            )
        if self.covariance is not None and len(self.values) > 1:
            check_regular(self.covariance)
        for name, numbers in (("value", self.values), ("uncertainty", self.uncertainty)):
            limit = LIMITS[name]
            wrong = ~((numbers >= limit.least) & (numbers <= limit.most))
            if wrong.any():
                source = (self.curve and self.curve.path) or self.observable.label
                raise TargetError(f"{source}: {name}: {limit.error('numbers', numbers[wrong][0])}")


def _check_one_unit(value: Any, uncertainty: Any, kind: str) -> None:
    """TargetError for a plain uncertainty beside a value in a unit that is not the md one."""
    if not hasattr(value, "unit") or uncertainty is None or hasattr(uncertainty, "unit"):
        return
    if value_in_md_units(1.0 * value.unit, kind) != 1.0:
        raise TargetError(
            f"uncertainty: got {uncertainty} without a unit beside a value in "
            f"{value.unit.get_name()}; give it the same unit, or both as plain numbers in "
            f"{UNIT_NAMES[kind]}",
            got=uncertainty,
        )


def _check_shape(name: str, array: Array, expected: tuple[int, ...]) -> None:
    if array.shape != expected:
        raise TargetError(
            f"{name}: expected an array of shape {expected}, got one of shape {array.shape}",
            got=array.shape,
            expected=expected,
        )


def _inside(curve: Curve, axis: Axis, window: tuple[float, float] | None) -> NDArray[np.bool_]:
    """The points on the axis and in the window, bool [points].

    Raises
    ------
    TargetError
        If they are fewer than three.
    """
    low, high = window or (min(0.0, float(axis.values[0])), np.inf)
    low, high = max(low, axis.ends[0]), min(high, axis.ends[1])
    inside = (curve.x >= low) & (curve.x <= high)
    if inside.sum() < _FEWEST_POINTS:
        raise TargetError(
            f"only {inside.sum()} points of the target lie between {low:.4f} and {high:.4f} "
            f"{axis.unit}, where it is compared; expected at least {_FEWEST_POINTS}",
            n_points=int(inside.sum()),
        )
    return inside


def filled_errors(curve: Curve, growth: float) -> Array:
    """Its errors, with something for the bins where they are zero, [n].

    A bin b without counts says that its y is less than about one count is worth. Where y > 0, with
    n counts, y = n d and error = d sqrt(n), so d = error^2 / y; and counts go as the volume of a
    bin, so d ~ 1 / (x^growth dx). Taken is the median of x^growth dx error^2 / y, over that volume
    in b, but no less than the median of the other errors: the foot of a peak is steeper than
    interpolation between bins follows. Near x = 0, where not even an ideal gas would have been
    counted, this is large, and the bin says nothing.

    Raises
    ------
    TargetError
        If all are zero.
    """
    assert curve.error is not None
    x, y, error = curve.x, curve.y, curve.error
    positive = error > 0
    if positive.all():
        return error
    if not positive.any():
        raise TargetError("uncertainty: expected positive numbers, got only zeros")
    floor = np.full_like(error, np.median(error[positive]))
    counted = positive & (y > 0)
    if counted.any():
        width = np.gradient(x)
        volume = (x**2 + width**2 / 12) ** (growth / 2) * width
        count = np.median((volume * error**2)[counted] / y[counted])
        floor = np.where(y == 0, np.maximum(floor, count / volume), floor)
    return np.where(positive, error, floor)


def _filled(curve: Curve, growth: float) -> Curve:
    """No error and no variance of zero."""
    error, covariance = filled_errors(curve, growth), curve.covariance
    if covariance is not None:
        empty = np.diag(covariance) == 0
        covariance = covariance + np.diag(np.where(empty, error**2, 0.0))
    return replace(curve, error=error, covariance=covariance)
