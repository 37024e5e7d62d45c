"""Targets: what was measured, how well, and at which state point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from ..engine.statepoint import StatePoint
from ..errors import TargetError
from ..io import (
    clean_angles,
    clean_correlation,
    clean_rdf,
    read_angles,
    read_correlation,
    read_rdf,
)
from ..observables import RDF, AngleDistribution, Observable
from ..units import number_in_md_units, value_in_md_units

Array = NDArray[np.float64]

_FEWEST_POINTS = 3  # of a curve
_SEEN = 0.3  # of 1 for a g(r), of the peak for a distribution: bins that are counted often
_ROUNDING = 1e-6  # of the range of times: how far outside a point may lie that was rounded


class Target:
    """A measured value of an observable at a state point.

        Target(liquid, rdf, r, g, uncertainty=0.02)                    # r in nm
        Target(liquid, angles, theta, p, uncertainty=0.02)             # theta in rad, p in 1/rad
        Target(liquid, Pressure(), 1.0, uncertainty=50.0)              # bar
        Target(liquid, VACF(range(0, 101, 5)), t, c, uncertainty=4e-4)  # t in ps, c in nm^2/ps^2
        Target(liquid, Diffusion(200), 2.4e-3, uncertainty=1e-4)       # nm^2/ps

    A measured g(r), distribution of angles or function of time may be irregular, unsorted and end
    in NaN: it is compared where it was measured, with the model's interpolated linearly between bin
    centres, or by a cubic spline between lags. Points outside the bins or the lags of the
    observable, or outside ``window``, do not count.

    Parameters
    ----------
    state_point : StatePoint
    observable : Observable
    *data : ``r, g`` for an RDF, ``theta, p`` for an AngleDistribution, ``t, values`` for a function
        of time, ``value`` for a scalar
    uncertainty : float or array like the data
        Standard error of the measurement, in its units. Points of an array that are zero (a bin
        without counts) get the median of the others.
    weight : float
        Multiplies this target's share of the misfit.
    window : (float, float), optional
        nm, rad or ps; only points inside are compared.
    noise : "auto", "sampled" or "independent"
        How the errors of a g(r) or a distribution of angles hang together. "sampled": counted in a
        simulation of as many particles, so that the errors of different points are correlated just
        like the fluctuations of the model; long waves are then known far better than the single
        points say. "independent": each point for itself, as digitised from a figure. "auto":
        sampled where the errors vary from point to point just as those of a simulation do (to a
        factor of 1.5 or so), else independent.
        The errors of anything else count as independent.

    Attributes
    ----------
    r : array [points], nm, of a g(r), else None
    theta : array [points], rad, of a distribution of angles, else None
    t : array [points], ps, of a function of time, else None
    values, uncertainty : arrays [points], md units
    operator : array [points, observable.n_values]; prediction = operator @ <observable>

    Raises
    ------
    TargetError
        If the data cannot be what they are said to be, with what was got and expected.
    """

    def __init__(
        self,
        state_point: StatePoint,
        observable: Observable,
        *data: Any,
        uncertainty: Any,
        weight: float = 1.0,
        window: tuple[float, float] | None = None,
        noise: str = "auto",
    ) -> None:
        if noise not in ("auto", "sampled", "independent"):
            raise TargetError(
                f"noise: expected 'auto', 'sampled' or 'independent', got {noise!r}", got=noise
            )
        if not (np.isfinite(weight) and weight > 0):
            raise TargetError(f"weight: expected a positive number, got {weight}", got=weight)
        self.state_point = state_point
        self.observable = observable
        self.weight = float(weight)
        self.noise = noise
        self.r: Array | None = None
        self.theta: Array | None = None
        self.t: Array | None = None
        if isinstance(observable, RDF):
            self._take_rdf(observable, data, uncertainty, window)
        elif isinstance(observable, AngleDistribution):
            self._take_angles(observable, data, uncertainty, window)
        elif is_function_of_time(observable):
            self._take_function_of_time(observable, data, uncertainty, window)
        else:
            self._take_scalar(observable, data, uncertainty)
        self._check()

    @classmethod
    def from_file(
        cls,
        state_point: StatePoint,
        observable: Observable,
        path: str | Path,
        length_unit: str = "nm",
        angle_unit: str = "rad",
        uncertainty: float | None = None,
        **options: Any,
    ) -> Target:
        """A g(r), a distribution of angles or a function of time from a text file.

        See ``openmm_diffsim.io.read_rdf`` for what it may look like; ``length_unit`` is that of r,
        ``angle_unit`` that of theta, see ``openmm_diffsim.io.read_angles``. Times are in ps, see
        ``openmm_diffsim.io.read_correlation``. ``uncertainty`` may be left out where the file has a
        third column.
        """
        if isinstance(observable, AngleDistribution):
            angles = read_angles(path, angle_unit)
            columns, measured = (angles.theta, angles.p), angles.error
        elif is_function_of_time(observable):
            series = read_correlation(path)
            columns, measured = (series.t, series.values), series.error
        else:
            rdf = read_rdf(path, length_unit)
            columns, measured = (rdf.r, rdf.g), rdf.error
        error = measured if uncertainty is None else uncertainty
        if error is None:
            raise TargetError(f"{path}: has no error column, so uncertainty= is needed", path=path)
        return cls(state_point, observable, *columns, uncertainty=error, **options)

    @property
    def is_histogram(self) -> bool:
        """Is it counted in bins, as a g(r) and a distribution of angles are?"""
        return self.r is not None or self.theta is not None

    def frames_share(self, one_frame: Array) -> float | None:
        """Variance of the target over that of one frame of the model, or None if independent.

        ``one_frame`` [points] is the variance of each point in one frame.
        """
        if not self.is_histogram or self.noise == "independent":
            return None
        seen = self.values > _SEEN * (1.0 if self.theta is None else self.values.max())
        if seen.sum() < (20 if self.noise == "auto" else 1):
            return None
        if self.noise == "auto" and np.ptp(self.uncertainty[seen]) == 0:
            return None
        ratio = np.log(self.uncertainty[seen] ** 2 / one_frame[seen])
        if self.noise == "auto" and 1.4826 * np.median(np.abs(ratio - np.median(ratio))) > 0.8:
            return None
        return float(np.exp(np.median(ratio)))

    def _take_rdf(
        self,
        rdf: RDF,
        data: tuple[Any, ...],
        uncertainty: Any,
        window: tuple[float, float] | None,
    ) -> None:
        if len(data) != 2:
            raise TargetError(f"an RDF target needs r and g, got {len(data)} arrays")
        r = np.asarray(value_in_md_units(data[0], "length"), dtype=np.float64)
        error = self._spread(np.asarray(uncertainty, dtype=np.float64), r.shape)
        curve = clean_rdf(r, data[1], error)
        assert curve.error is not None
        inside = _inside(curve.r, rdf.r[0], rdf.r[-1], window, "nm")
        self.r = curve.r[inside]
        self.values = curve.g[inside]
        self.uncertainty = _fill_zeros(curve.error[inside])
        self.operator = interpolation_matrix(rdf.r, self.r)

    def _take_angles(
        self,
        observable: AngleDistribution,
        data: tuple[Any, ...],
        uncertainty: Any,
        window: tuple[float, float] | None,
    ) -> None:
        if len(data) != 2:
            raise TargetError(f"a target of angles needs theta and p, got {len(data)} arrays")
        theta = np.asarray(value_in_md_units(data[0], "angle"), dtype=np.float64)
        error = np.asarray(value_in_md_units(uncertainty, observable.kind), dtype=np.float64)
        curve = clean_angles(theta, data[1], self._spread(error, theta.shape))
        assert curve.error is not None
        inside = _inside(curve.theta, observable.theta[0], observable.theta[-1], window, "rad")
        self.theta = curve.theta[inside]
        self.values = curve.p[inside]
        self.uncertainty = _fill_zeros(curve.error[inside])
        self.operator = interpolation_matrix(observable.theta, self.theta)

    def _take_function_of_time(
        self,
        observable: Observable,
        data: tuple[Any, ...],
        uncertainty: Any,
        window: tuple[float, float] | None,
    ) -> None:
        name = type(observable).__name__
        if len(data) != 2:
            raise TargetError(f"a target of {name} needs t and values, got {len(data)} arrays")
        t = np.asarray(value_in_md_units(data[0], "time"), dtype=np.float64)
        error = np.asarray(value_in_md_units(uncertainty, observable.kind), dtype=np.float64)
        curve = clean_correlation(t, data[1], self._spread(error, t.shape), observable.kind)
        assert curve.error is not None
        grid = times_of(observable, self.state_point)
        slack = _ROUNDING * (grid[-1] - grid[0])
        inside = _inside(curve.t, grid[0] - slack, grid[-1] + slack, window, "ps")
        self.t = curve.t[inside]
        self.values = curve.values[inside]
        self.uncertainty = _fill_zeros(curve.error[inside])
        self.operator = spline_matrix(grid, self.t)

    def _take_scalar(self, observable: Observable, data: tuple[Any, ...], uncertainty: Any) -> None:
        if len(data) != 1:
            raise TargetError(f"a scalar target needs one value, got {len(data)}")
        self.values = np.atleast_1d(np.asarray(value_in_md_units(data[0], observable.kind)))
        self._check_shape("value", self.values, (observable.n_values,))
        error = np.asarray(value_in_md_units(uncertainty, observable.kind), dtype=np.float64)
        self.uncertainty = self._spread(error, self.values.shape)
        self.operator = np.eye(observable.n_values)

    def _spread(self, error: Array, shape: tuple[int, ...]) -> Array:
        """One error for every value."""
        if error.ndim:
            self._check_shape("uncertainty", error, shape)
        return np.broadcast_to(error, shape).copy()

    @staticmethod
    def _check_shape(name: str, array: Array, expected: tuple[int, ...]) -> None:
        if array.shape != expected:
            raise TargetError(
                f"{name}: expected an array of shape {expected}, got one of shape {array.shape}",
                got=array.shape,
                expected=expected,
            )

    def _check(self) -> None:
        if not np.all(np.isfinite(self.values)):
            raise TargetError(f"expected finite values, got {self.values}")
        if not np.all(np.isfinite(self.uncertainty) & (self.uncertainty > 0)):
            raise TargetError(
                "uncertainty: expected positive numbers, got a smallest of "
                f"{self.uncertainty.min()}"
            )


def is_function_of_time(observable: Observable) -> bool:
    """Has it one value for each of its lags?"""
    lags = getattr(observable, "lags", None)
    return lags is not None and len(lags) == observable.n_values


def times_of(observable: Observable, state_point: StatePoint) -> Array:
    """The lags of a function of time, ps, [n_values]."""
    lags = np.asarray(observable.lags, dtype=np.float64)  # type: ignore[attr-defined]
    return lags * timestep_of(observable, state_point)


def timestep_of(observable: Observable, state_point: StatePoint) -> float:
    """Timestep of the segments of an observable, ps: its own integrator's or the Simulation's."""
    integrator = getattr(observable, "integrator", None)
    if integrator is None:
        integrator = state_point.simulation.integrator
    if hasattr(integrator, "getStepSize"):
        return number_in_md_units(integrator.getStepSize(), "time")
    return number_in_md_units(integrator.timestep, "time")


def interpolation_matrix(grid: Array, x: Array) -> Array:
    """Linear interpolation from an ascending ``grid`` [n] to ``x`` [m], shape [m, n].

    It goes on flat beyond the grid.
    """
    cell = np.clip(np.searchsorted(grid, x, side="right") - 1, 0, len(grid) - 2)
    fraction = np.clip((x - grid[cell]) / (grid[cell + 1] - grid[cell]), 0.0, 1.0)
    matrix = np.zeros((len(x), len(grid)))
    rows = np.arange(len(x))
    matrix[rows, cell] = 1 - fraction
    matrix[rows, cell + 1] += fraction
    return matrix


def spline_matrix(grid: Array, x: Array) -> Array:
    """Cubic spline interpolation from an ascending ``grid`` [n] to ``x`` [m], shape [m, n]."""
    if len(grid) < 4:
        return interpolation_matrix(grid, x)
    return np.asarray(CubicSpline(grid, np.eye(len(grid)))(np.clip(x, grid[0], grid[-1])))


def _inside(
    x: Array, first: float, last: float, window: tuple[float, float] | None, unit: str
) -> NDArray[np.bool_]:
    """Which points lie between ``first`` and ``last`` and in the window, bool [points].

    Raises
    ------
    TargetError
        If they are fewer than three.
    """
    low, high = window or (0.0, np.inf)
    low, high = max(low, first), min(high, last)
    inside = (x >= low) & (x <= high)
    if inside.sum() < _FEWEST_POINTS:
        raise TargetError(
            f"only {inside.sum()} points of the target lie between {low:.4f} and {high:.4f} "
            f"{unit}, where it is compared; expected at least {_FEWEST_POINTS}",
            n_points=int(inside.sum()),
        )
    return np.asarray(inside)


def _fill_zeros(error: Array) -> Array:
    positive = error > 0
    if not positive.any():
        raise TargetError("uncertainty: expected positive numbers, got only zeros")
    return np.where(positive, error, np.median(error[positive]))
