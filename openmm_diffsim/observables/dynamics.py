"""Time correlation functions and what else is measured along a trajectory segment.

All of these are plain torch functions of a segment's tensors: what they average over inside a
segment (particles, time origins) is meant for segments that start from equilibrium.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..curve import Axis, Curve, CurveRules
from ..errors import ConfigurationError, ObservableError
from ..units import MOLAR_GAS_CONSTANT, number_in_md_units, value_in_md_units
from .arguments import at_least, check_atoms, whole_numbers
from .base import Array, IntArray
from .function import shaped
from .plausible import doubt
from .segment import Segment, SegmentObservable, pick
from .site import Place, Section, Site
from .smooth import SmoothBins
from .structure import RDF

DIFFUSION_METHODS = ("green-kubo", "einstein")
_MOST_LAGS = 20  # of a measured function of time, which is smooth
_FEWEST_POINTS = 3  # of one, that lags are made for
_FEWEST_STEPS = 10  # of a segment that diffusion is measured on
_NEAR = (0.4, 1.3)  # of C(0) over 3RT/m: constraints take part of it, one axis has a third


class _LagObservable(SegmentObservable):
    """What compares particles at a time origin with the same particles some steps later.

    Subclasses give ``_compare``, for one origin; this class averages over origins. What has several
    values for each lag sets ``values_per_lag`` first; in these the lag runs fastest.
    """

    rules = CurveRules("function of time", "t", "value", "time", fewest_rows=3)
    values_per_lag = 1

    def __init__(
        self,
        lags: int | ArrayLike,
        atoms: ArrayLike | None = None,
        origins: int = 1,
        origin_spacing: int | None = None,
        **options: Any,
    ) -> None:
        self.lags: IntArray = _check_lags(lags)
        longest = int(self.lags[-1])
        self.atoms = check_atoms(atoms)
        self.origins = at_least(1, "origins", origins)
        if origin_spacing is None:
            origin_spacing = max(1, longest // self.origins)
        self.origin_spacing = at_least(1, "origin_spacing", origin_spacing)
        self._last_origin = (self.origins - 1) * self.origin_spacing
        self.n_values = self.values_per_lag * len(self.lags)
        super().__init__(longest + self._last_origin, **options)

    def times(self, timestep: Any) -> Array:
        """The lags in ps, shape [lags], for a timestep in ps or a Quantity.

        Raises
        ------
        ObservableError
            If the timestep is not positive.
        """
        dt = number_in_md_units(timestep, "time")
        if not 0 < dt < np.inf:
            raise ObservableError(f"timestep: expected a positive time, got {dt} ps")
        return self.lags.astype(np.float64) * dt

    def axis(self, timestep: float) -> Axis | None:
        """The lags in ps, of what has one value for each of them."""
        if self.values_per_lag > 1:
            return None
        return self.rules.axis(self.times(self.segment_timestep(timestep)), between="spline")

    @classmethod
    def settings(cls, section: Section) -> dict[str, Any]:
        """Those of segments, and the window, which the lags reach over."""
        return {"window": section.pair("window", "ps"), **super().settings(section)}

    @classmethod
    def from_settings(
        cls, settings: dict[str, Any], site: Site, curve: Curve | None
    ) -> _LagObservable:
        """Lags for the times that were measured; see ``lags_for``."""
        assert curve is not None
        low, high = settings["window"] or (0.0, np.inf)
        t = curve.x[(curve.x >= low) & (curve.x <= high)]
        if len(t) < _FEWEST_POINTS:
            raise ConfigurationError(
                f"target.window: {curve.path} has {len(t)} points from {low:g} to {high:g} ps, "
                f"expected at least {_FEWEST_POINTS}; it reaches from {curve.x[0]:g} to "
                f"{curve.x[-1]:g} ps",
                key="target.window",
                got=settings["window"],
            )
        return cls(lags_for(t, site.timestep), **cls.options(settings, site))

    def reach(self) -> IntArray:
        """Last step that each value depends on: its lag, from the last origin."""
        return np.tile(self.lags + self._last_origin, self.values_per_lag)

    def measure(self, segment: Segment) -> Tensor:
        """The values of a segment, shape [..., n_values].

        Raises
        ------
        ObservableError
            If the segment is too short or lacks a chosen atom.
        """
        moving = pick(self._moving(segment.first(self.steps)), self.atoms)
        origins = range(0, self._last_origin + 1, self.origin_spacing)
        parts = [
            self._compare(moving[..., s, :, :], moving[..., s + self.lags, :, :]) for s in origins
        ]
        return torch.stack(parts).mean(dim=0)

    def _moving(self, segment: Segment) -> Tensor:
        """What is compared, shape [..., times, particles, 3]."""
        return segment.positions

    def _compare(self, first: Tensor, later: Tensor) -> Tensor:
        """Mean over particles, [..., n_values], of [..., particles, 3], [..., lags, particles, 3].

        ``later`` follows ``first`` by each of the lags.
        """
        raise NotImplementedError


class VACF(_LagObservable):
    """Velocity autocorrelation function, nm^2/ps^2,

        C(t) = <v_i(s) . v_i(s + t)>,

    over particles i and time origins s (Allen and Tildesley, Computer Simulation of Liquids, 2nd
    ed., sec. 2.7). The dot product sums x, y and z, so C(0) = 3 k T / m for a single mass.

    There is no normalized form: C(t) / C(0) of single segments averages to something else than the
    ratio of the averages, as C(0) of a segment fluctuates with C(t). Divide the averages, or divide
    by 3 k T / m, which is exact.

    Parameters
    ----------
    lags : int or increasing sequence of int
        Times t, in steps; an int n stands for 0 .. n.
    atoms : sequence of int, optional
        Default all particles.
    origins : int
        Number of time origins s in a segment.
    origin_spacing : int, optional
        Steps from one origin to the next. Default: those of the longest lag over ``origins``, at
        least 1. The segment has max lag + (origins - 1) origin_spacing steps.
    **options
        As ``SegmentObservable``.

    Raises
    ------
    ObservableError
        If an argument is out of range.
    """

    entry = "vacf"
    kind = "squared_velocity"

    def check(self, curve: Curve, place: Place | None = None) -> None:
        """Raise TargetError where C(0) is not about 3RT/m; see ``check_vacf``."""
        if place is not None:
            check_vacf(curve, _squared_speed(place, self.atoms))

    def _moving(self, segment: Segment) -> Tensor:
        return segment.velocities

    def _compare(self, first: Tensor, later: Tensor) -> Tensor:
        return torch.einsum("...nd,...tnd->...t", first, later) / first.shape[-2]


class MSD(_LagObservable):
    """Mean square displacement <|x_i(s + t) - x_i(s)|^2>, nm^2, over particles and time origins.

    Parameters
    ----------
    lags, atoms, origins, origin_spacing, **options
        As ``VACF``. At lag zero the value is 0.

    Raises
    ------
    ObservableError
        If an argument is out of range.
    """

    entry = "msd"
    kind = "area"

    def check(self, curve: Curve, place: Place | None = None) -> None:
        """Raise TargetError where particles move further than free ones, 3RT/m t^2 in the mean."""
        if place is None:
            return
        free = _NEAR[1] * _squared_speed(place, self.atoms) * curve.x**2
        least = curve.y - 3 * np.nan_to_num(curve.spread)
        for k in np.flatnonzero((curve.x > 0) & (least > free)):
            raise doubt(
                curve,
                f"got {curve.y[k]:.4g} nm^2 at t = {curve.x[k]:.4g} ps, expected less than the "
                f"{free[k]:.4g} of particles that nothing holds; is it in another unit?",
                "MSD(t)",
            )

    def _compare(self, first: Tensor, later: Tensor) -> Tensor:
        return (later - first[..., None, :, :]).square().sum(dim=-1).mean(dim=-1)


class IncoherentScattering(_LagObservable):
    """Self-intermediate scattering function of an isotropic liquid,

        F_s(q, t) = <exp(i q . dx)> = <sin(q d) / (q d)>,    d = |x_i(s + t) - x_i(s)|,

    the mean over all directions of q, which need not fit the box (Hansen and McDonald, Theory of
    Simple Liquids, 4th ed., sec. 7.4).

    Parameters
    ----------
    q : float, sequence of float or Quantity
        Wavenumbers, 1/nm.
    lags, atoms, origins, origin_spacing, **options
        As ``VACF``.

    Raises
    ------
    ObservableError
        If an argument is out of range.

    Notes
    -----
    Values are ordered by q first: ``value.reshape(len(q), len(lags))``.
    """

    def __init__(
        self,
        q: Any,
        lags: int | ArrayLike,
        atoms: ArrayLike | None = None,
        origins: int = 1,
        origin_spacing: int | None = None,
        **options: Any,
    ) -> None:
        self.q: Array = np.atleast_1d(value_in_md_units(q, "wavenumber"))
        if self.q.ndim != 1 or not self.q.size or not np.all((self.q > 0) & np.isfinite(self.q)):
            raise ObservableError(f"q: expected positive wavenumbers in 1/nm, got {q!r}")
        self.values_per_lag = len(self.q)
        super().__init__(lags, atoms, origins, origin_spacing, **options)

    def _compare(self, first: Tensor, later: Tensor) -> Tensor:
        d = torch.linalg.vector_norm(later - first[..., None, :, :], dim=-1)
        # torch.sinc(x) is sin(pi x) / (pi x) and has the right derivative at zero.
        parts = [torch.sinc(q / np.pi * d).mean(dim=-1) for q in self.q.tolist()]
        return torch.cat(parts, dim=-1)


class SelfVanHove(_LagObservable):
    """Distribution of displacements, 4 pi r^2 G_s(r, t), 1/nm, as a smooth histogram.

    Each displacement d = |x_i(s + t) - x_i(s)| becomes a Gaussian of standard deviation ``width``,
    of which each bin gets its part; what would fall below r = 0 is reflected:

        value_b = < Phi((e - d) / width) - Phi((-e - d) / width) >, e from r_b to r_{b+1},
                  divided by the width of a bin,

    Phi being the normal distribution function. So values times bin width sum to 1 once r_max is
    several widths beyond every displacement, for width to 0 it is the plain histogram, and a
    derivative with respect to positions exists everywhere. Broader by ``width`` than the true
    distribution (Hansen and McDonald, Theory of Simple Liquids, 4th ed., sec. 7.4).

    Parameters
    ----------
    r_max : float or Quantity
        Upper edge, nm; needs no box.
    bins : int
        Number of equal bins from r = 0.
    lags, atoms, origins, origin_spacing, **options
        As ``VACF``.
    width : float or Quantity, optional
        Standard deviation, nm. Default: that of one bin.

    Attributes
    ----------
    bins : SmoothBins
    edges : array [bins + 1], nm
    r : array [bins], nm, bin centres

    Raises
    ------
    ObservableError
        If an argument is out of range.

    Notes
    -----
    Values are ordered by r first: ``value.reshape(bins, len(lags))``.
    """

    def __init__(
        self,
        r_max: Any,
        bins: int,
        lags: int | ArrayLike,
        atoms: ArrayLike | None = None,
        width: Any = None,
        origins: int = 1,
        origin_spacing: int | None = None,
        **options: Any,
    ) -> None:
        self.bins = SmoothBins.of(r_max, bins, width)
        self.values_per_lag = len(self.r)
        super().__init__(lags, atoms, origins, origin_spacing, **options)

    def axis(self, timestep: float) -> Axis | None:
        """The bin centres, of a single lag."""
        return RDF.rules.axis(self.r) if len(self.lags) == 1 else None

    @property
    def edges(self) -> Array:
        """Edges of the bins, nm, shape [bins + 1]."""
        return self.bins.edges

    @property
    def r(self) -> Array:
        """Bin centres, nm, shape [bins]."""
        return self.bins.centres

    def _compare(self, first: Tensor, later: Tensor) -> Tensor:
        d = torch.linalg.vector_norm(later - first[..., None, :, :], dim=-1)
        counts = self.bins.count(d).transpose(-1, -2)  # [..., bins, lags]
        return (counts / (first.shape[-2] * self.edges[1])).flatten(start_dim=-2)


class Diffusion(SegmentObservable):
    """Coefficient of self-diffusion D, nm^2/ps, of particles in this box.

    Green-Kubo, with the trapezoidal rule over every step of a segment that lasts T:

        D(T) = 1/3 integral_0^T <v_i(0) . v_i(t)> dt,

    or Einstein, the slope of a straight line fitted by least squares to every step from ``start``:

        <|x_i(t) - x_i(0)|^2> = 6 D t + constant

    (Allen and Tildesley, Computer Simulation of Liquids, 2nd ed., sec. 2.7). Both are D only when
    T (Einstein: the time of ``start``) exceeds the decay of the velocity autocorrelation; of a
    shorter segment it is D(T), and the mean of D(t), roughly, over the fitted stretch. Neither is
    corrected for the finite size of the box.

    Parameters
    ----------
    steps : int
        Length of the segment, T.
    method : "green-kubo" or "einstein"
    start : int, optional
        First step of the fit, for Einstein only. Default: half the segment.
    atoms : sequence of int, optional
        Default all particles.
    **options
        As ``SegmentObservable``.

    Raises
    ------
    ObservableError
        If an argument is out of range.
    """

    entry = "diffusion"
    kind = "diffusion"

    def __init__(
        self,
        steps: int,
        method: str = "green-kubo",
        start: int | None = None,
        atoms: ArrayLike | None = None,
        **options: Any,
    ) -> None:
        super().__init__(steps, **options)
        if method not in DIFFUSION_METHODS:
            raise ObservableError(
                f"method: expected one of {', '.join(DIFFUSION_METHODS)}, got {method!r}"
            )
        if start is not None and method != "einstein":
            raise ObservableError(f"start: is for the Einstein method only, got {start!r}")
        self.method = method
        self.start = self.steps // 2 if start is None else at_least(0, "start", start)
        if self.start >= self.steps:
            raise ObservableError(
                f"start: expected a step before the last, {self.steps}, got {self.start}"
            )
        self.atoms = check_atoms(atoms)

    @classmethod
    def settings(cls, section: Section) -> dict[str, Any]:
        """Those of segments, how long they are, and the method; a value has to be positive."""
        section.number("value", above=0)
        return {
            "length": section.number("length"),
            "method": section.choice("method", DIFFUSION_METHODS, DIFFUSION_METHODS[0]),
            **super().settings(section),
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any], site: Site, curve: Curve | None) -> Diffusion:
        """Segments of a length in ps."""
        length = settings["length"]
        steps = round(length / site.timestep)
        if steps < _FEWEST_STEPS:
            raise ConfigurationError(
                f"target.length: {length:g} ps are {steps} steps of {site.timestep:g} ps, expected "
                f"at least {_FEWEST_STEPS}, and until the velocities have forgotten where they "
                "started",
                key="target.length",
                got=length,
            )
        return cls(steps, method=settings["method"], **cls.options(settings, site))

    def measure(self, segment: Segment) -> Tensor:
        """D of a segment, shape [..., 1].

        Raises
        ------
        ObservableError
            If the segment is too short or lacks a chosen atom.
        """
        part = segment.first(self.steps)
        times = torch.as_tensor(part.times, dtype=torch.float64)
        return (self._green_kubo if self.method == "green-kubo" else self._einstein)(part, times)

    def _green_kubo(self, segment: Segment, times: Tensor) -> Tensor:
        v = pick(segment.velocities, self.atoms)
        gaps = times.diff()
        weights = torch.zeros_like(times)
        weights[1:] += 0.5 * gaps
        weights[:-1] += 0.5 * gaps
        moved = torch.einsum("t,...tnd->...nd", weights, v)
        return (v[..., 0, :, :] * moved).sum(dim=-1).mean(dim=-1, keepdim=True) / 3

    def _einstein(self, segment: Segment, times: Tensor) -> Tensor:
        x = pick(segment.positions, self.atoms)
        dx = x[..., self.start :, :, :] - x[..., :1, :, :]
        t = times[self.start :] - times[self.start :].mean()
        slope = dx.square().sum(dim=-1).mean(dim=-1) @ (t / t.square().sum())
        return slope[..., None] / 6


class SegmentFunction(SegmentObservable):
    """Any function of a segment.

    Parameters
    ----------
    function : callable
        Takes a ``Segment`` of exactly ``steps`` steps and returns a Tensor [..., n_values], with
        the leading dimensions of the segment's tensors; for one value also [...].
    steps : int
        Length of the segment.
    n_values : int
        Number of values.
    reach : int or sequence of int, optional
        Last step that all values, or each of them, depend on; a smaller one makes the derivative
        cheaper and less noisy. Default: the last.
    **options
        As ``SegmentObservable``.

    Raises
    ------
    ObservableError
        If an argument is out of range.
    """

    def __init__(
        self,
        function: Callable[[Segment], Tensor],
        steps: int,
        n_values: int = 1,
        reach: int | ArrayLike | None = None,
        **options: Any,
    ) -> None:
        super().__init__(steps, **options)
        if not callable(function):
            raise ObservableError(f"function: expected a function of a Segment, got {function!r}")
        self.function = function
        self.n_values = at_least(1, "n_values", n_values)
        self._reach = self._check_reach(self.steps if reach is None else reach)

    def identity(self) -> dict[str, Any]:
        """The function by its name and a checksum of its code, and what each value depends on."""
        return super().identity() | {"reach": self._reach.tolist()}

    def reach(self) -> IntArray:
        """Last step that each value depends on, int [n_values]."""
        return self._reach

    def measure(self, segment: Segment) -> Tensor:
        """What the function returns, shape [..., n_values].

        Raises
        ------
        ObservableError
            If the segment is too short, or the function returns something of another shape.
        """
        values = self.function(segment.first(self.steps))
        batch = segment.positions.shape[:-3]
        return shaped("the function of a segment", values, (*batch, self.n_values))

    def _check_reach(self, reach: int | ArrayLike) -> IntArray:
        if np.ndim(reach) == 0:
            reach = np.full(self.n_values, reach)
        last = whole_numbers("reach", reach)
        if len(last) != self.n_values or last.min() < 0 or last.max() > self.steps:
            raise ObservableError(
                f"reach: expected {self.n_values} steps of 0 .. {self.steps}, got {last.tolist()}"
            )
        return last


def _check_lags(lags: int | ArrayLike) -> IntArray:
    if np.ndim(lags) == 0:
        lags = np.arange(at_least(1, "lags", lags) + 1)  # type: ignore[arg-type]
    steps = whole_numbers("lags", lags)
    if not steps.size or steps[0] < 0 or steps[-1] < 1 or np.any(np.diff(steps) < 1):
        raise ObservableError(
            "lags: expected increasing whole numbers of steps, from 0 at least, to 1 at least, "
            f"got {steps.tolist()}"
        )
    return steps


def lags_for(t: Array, timestep: float) -> IntArray:
    """Lags, in steps, that reach over the times ``t`` (ps, ascending): as fine, but at most 20."""
    first = int(np.floor(t[0] / timestep + 1e-6))
    last = max(int(np.ceil(t[-1] / timestep - 1e-6)), first + 1)
    spacing = max(float(np.median(np.diff(t))) / timestep, 1.0)
    intervals = int(np.clip(np.ceil((last - first) / spacing - 1e-6), 1, _MOST_LAGS - 1))
    return np.unique(np.round(np.linspace(first, last, intervals + 1)).astype(np.int64))


def _squared_speed(place: Place, atoms: IntArray | None) -> float:
    """<v^2> of some particles by equipartition, 3RT/m averaged, nm^2/ps^2."""
    masses = place.masses if atoms is None else place.masses[atoms]
    inverse = np.divide(1.0, masses, out=np.zeros_like(masses), where=masses > 0)
    return float(3 * MOLAR_GAS_CONSTANT * place.temperature * inverse.mean())


def check_vacf(curve: Curve, squared_speed: float) -> None:
    """Raise when numbers that start at t = 0 cannot be a velocity autocorrelation function.

    Equipartition gives C(0) = <v^2> = 3RT/m exactly, and less where constraints hold.

    Parameters
    ----------
    curve : C over t, ps; says nothing where it starts after t = 0
    squared_speed : 3RT/m, averaged over the particles [nm^2/ps^2]

    Raises
    ------
    TargetError
        C(0) is not between 0.4 and 1.3 times ``squared_speed``. path names the file.
    """
    if curve.x[0] > 0:
        return
    found = float(curve.y[0])
    if not _NEAR[0] * squared_speed < found < _NEAR[1] * squared_speed:
        raise doubt(
            curve,
            f"got C(0) = {found:.4g}, expected about 3RT/m = {squared_speed:.4g} nm^2/ps^2; is it "
            "normalised to C(0) = 1, per component, or in another unit?",
            "C(t)",
        )
