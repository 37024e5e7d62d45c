"""What an observable is: what is recorded per frame, its value, its axis, its names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..curve import Axis, Curve, CurveRules
from ..errors import ObservableError
from ..statistics.kernels import PairHistogram, PairSums, largest_range
from ..units import UNIT_NAMES
from .identity import plain, public
from .plausible import check_usual
from .site import Place, Section, Site

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

_RISEN, _COUNTED = 0.05, 2e-3  # of a g(r): it has risen; pairs are found
_DEEP = 0.7  # of where it has risen: deep in the core


def _no_pairs() -> IntArray:
    return np.zeros((0, 2), dtype=np.int64)


@dataclass(frozen=True)
class Charges:
    """Charges of all particles, q = fixed + along z, with what is learned of them, z."""

    fixed: Array
    """[particles], e."""
    along: Array
    """dq/dz, [particles, learned]."""


@dataclass(frozen=True)
class Particles:
    """What stays the same from frame to frame."""

    n_particles: int
    molecule_of: IntArray  # [particles], index of the molecule of each particle
    masses: Array  # [particles], amu
    bonds: IntArray = field(default_factory=_no_pairs)
    """[bonds, 2], what holds molecules together, as far as that is known."""
    constraints: IntArray = field(default_factory=_no_pairs)
    """[constraints, 2], pairs at a fixed distance."""
    charges: Charges | None = None
    """None where no single NonbondedForce has them."""

    @property
    def n_molecules(self) -> int:
        """Number of molecules: what bonds and constraints hold together."""
        return int(self.molecule_of.max()) + 1 if self.n_particles else 0

    @property
    def freedom(self) -> IntArray:
        """Degrees of freedom of each molecule, int [molecules].

        Three for each particle that has a mass, less one for each constraint.
        """
        n = self.n_molecules
        massive = np.bincount(self.molecule_of[self.masses > 0], minlength=n)
        held = self.constraints[(self.masses[self.constraints] > 0).any(axis=1)]
        return 3 * massive - np.bincount(self.molecule_of[held[:, 0]], minlength=n)

    @property
    def are_rigid(self) -> bool:
        """Is every molecule a single site, or a body that only moves and turns?"""
        massive = np.bincount(self.molecule_of[self.masses > 0], minlength=self.n_molecules)
        of_body = np.array([0, 3, 5, 6])[np.minimum(massive, 3)]
        return bool((self.freedom <= of_body).all())


@dataclass(frozen=True)
class AxisVirials:
    """W_a = -dU/d ln L_a along each axis of the box, moving whole molecules; W is their sum."""

    rest: Array  # of all but the learned forces, kJ/mol, [3]
    features: Array  # of each feature of the learned ones, dW_a/dc, [3, coefficients]


@dataclass(frozen=True)
class Frame:
    """One configuration, as a recorder sees it."""

    positions: Array  # [particles, 3], nm
    box: Array | None  # [3, 3], nm, reduced form
    volume: float  # nm^3, NaN without a box
    rest_virial: float  # of all but the learned force, kJ/mol; NaN where nobody asked for it
    axes: AxisVirials | None = None  # None where nobody asked for it, or without a box


@dataclass(frozen=True)
class Conditions:
    """What an observable may need, besides its own record, to give its value in each frame."""

    coefficients: Tensor  # of the potential, [coefficients]
    temperature: float  # K
    learned_virial: Callable[[Tensor], Tensor]  # of coefficients; kJ/mol, [frames]
    volume: Tensor  # [frames], nm^3
    sampled_coefficients: Callable[[], Tensor]  # [frames, coefficients]
    learned_energy: Callable[[Tensor], Tensor]  # of coefficients; kJ/mol, [frames]
    rest_energy: Tensor  # of all other forces, kJ/mol, [frames]
    weights: Callable[[], Tensor]  # of the frames, normalised, [frames]
    pressure: float | None  # bar; None at constant volume
    free_charges: Callable[[Tensor], Tensor]  # of coefficients; z of ``Charges``, e, [learned]


@dataclass(frozen=True)
class CountedPairs:
    """A g(r) as a mean of partial ones."""

    shares: Array  # [pairs of species], of the pairs that are counted; the upper triangle
    r: Array  # [n_values], nm, bin centres
    shells: Array  # [n_values], nm^3


class Liquid(Protocol):
    """What liquid-state theory knows: how averages answer to the coefficients of potentials."""

    species_of: IntArray
    """[particles], -1 for those that theory leaves out."""

    def of_g(self, shares: Array, r: Array) -> Array:
        """Of a mean of partial g(r), at distances r, [len(r), coefficients]."""

    def of_pressure(self) -> Array:
        """Of the pressure, bar, [1, coefficients]."""


class Recorder(Protocol):
    """Makes one record per frame, of the configuration and of what is counted of its pairs."""

    histograms: tuple[PairHistogram, ...]
    """What to count in every frame; their edges may reach to half the box."""

    def record(self, frame: Frame, counts: Sequence[IntArray]) -> Array:
        """What to keep of this frame, shape [n_recorded].

        ``counts`` are int arrays [bins], one for each of the ``histograms``.
        """


def record_frame(
    recorders: Sequence[Recorder],
    frame: Frame,
    sums_over_pairs: Callable[..., PairSums],
) -> tuple[list[Array], PairSums]:
    """The record of each recorder, and the sums of this frame, from one pass over its pairs.

    ``sums_over_pairs(histograms=...)`` makes that pass.

    Raises
    ------
    ObservableError
        If a histogram reaches beyond half the box.
    """
    histograms = [histogram for recorder in recorders for histogram in recorder.histograms]
    if frame.box is not None:
        _check_ranges(histograms, largest_range(frame.box))
    sums = sums_over_pairs(histograms=histograms)
    counts = iter([frames[0] for frames in sums.counts])
    return [r.record(frame, [next(counts) for _ in r.histograms]) for r in recorders], sums


def _check_ranges(histograms: Sequence[PairHistogram], limit: float) -> None:
    reach = max((float(h.edges[-1]) for h in histograms), default=0.0)
    if reach > limit + 1e-9:
        raise ObservableError(
            f"pairs are to be counted up to r_max = {reach:.4f} nm, but half the box is "
            f"{limit:.4f} nm; take a larger box or a smaller r_max",
            r_max=reach,
            limit=limit,
        )


class Observable:
    """A quantity whose average is compared with experiment.

    To add one: make a ``Recorder``, which says what pairs to count, and turn its records into
    ``values``. All else that the package asks of an observable is below, with a default: its
    ``axis`` where it is a curve, its name and keys in a configuration, what a measured curve may
    be, how it is drawn. A subclass with an ``entry`` of its own can be named in a configuration.
    """

    entry: ClassVar[str | None] = None
    """Its name in a configuration and in output files, such as "rdf"."""
    symbol: str = ""
    """What a figure calls its values, such as "g(r)". Default: the name of the class."""
    rules: ClassVar[CurveRules | None] = None
    """What a measured curve of it may be; None for what is no curve."""
    is_histogram: ClassVar[bool] = False
    """Is it counted in bins, so that the errors of different points hang together?"""
    is_structure: ClassVar[bool] = False
    """Is it a g(r), whose deviation tells a frozen or broken run from a good one?"""
    tends_to: ClassVar[float] = 0.0
    """What a curve tends to: the line in a figure."""
    shift: ClassVar[float] = 0.0
    """How far apart several curves in one panel stand; those at 0 differ in style."""

    usual: ClassVar[tuple[float, float] | None] = None
    """Between what its values lie, in their md unit: beyond it, a unit was forgotten."""

    kind: str = "dimensionless"  # of a value, one of ``units.UNIT_NAMES``
    n_values: int = 1
    needs_virial: bool = False
    needs_axes: bool = False  # the ``axes`` of a frame?
    needs_molecules: bool = False  # whole ones, whatever a box cut?
    needs_box: bool = False  # a periodic one?
    needs_pressure: bool = False  # does it say something at constant pressure only?
    steps: int = 0  # of the trajectory segment that a value takes besides the frame

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if vars(cls).get("entry"):
            _register(cls)

    # What is measured --------------------------------------------------------------------------

    @property
    def is_dynamic(self) -> bool:
        """Is it measured on trajectory segments?"""
        return self.steps > 0

    def recorder(self, particles: Particles) -> Recorder:
        """A recorder for the given particles.

        Raises
        ------
        ObservableError
            If the observable's own selection does not fit the particles.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no recorder(): give it one that returns a Recorder"
        )

    def values(self, records: Tensor, conditions: Conditions) -> Tensor:
        """Value in each frame, shape [frames, n_values], from records [frames, n_recorded]."""
        raise NotImplementedError(
            f"{type(self).__name__} has no values(): give it one that makes values of records"
        )

    def axis(self, timestep: float) -> Axis | None:
        """Where the values are, for a Simulation's timestep in ps; None for what is no curve."""
        return None

    def segment_timestep(self, timestep: float) -> float | None:
        """Of its own trajectory segments, ps, for that of the Simulation; None without segments."""
        return None

    def terms(self, state_points: Sequence[Any]) -> tuple[tuple[Any, Observable], ...]:
        """The averages that it takes: (state point, observable) of each. Here: its own, at one.

        Raises
        ------
        ObservableError
            If the number of state points is another one, or the volume is constant where it must
            not be.
        """
        if len(state_points) != 1:
            raise ObservableError(
                f"{self.label} is measured at one state point, got {len(state_points)}; take a "
                "FunctionOfAverages for what combines several",
                got=len(state_points),
                expected=1,
            )
        if self.needs_pressure:
            self.check_pressure(state_points[0].pressure)
        return ((state_points[0], self),)

    def parts(self) -> tuple[Observable, ...]:
        """What is recorded of it at one state point. Here: itself."""
        return (self,)

    def combine(self, *averages: Tensor) -> Tensor:
        """The value [n_values] that the averages of all ``terms`` give. Here: the average."""
        (average,) = averages
        return average

    def check_pressure(self, pressure: float | None) -> float:
        """The pressure, bar; ObservableError where there is none, as the volume is constant."""
        if pressure is None:
            raise ObservableError(
                f"{self.label}: expected a state point at constant pressure, got one at constant "
                "volume; add a barostat, such as openmm.MonteCarloBarostat, to its System"
            )
        return pressure

    def identity(self) -> dict[str, Any]:
        """Everything that it was made from, as plain data: what is public in it, and its class.

        Two observables of the same identity have the same records of the same frames.

        Raises
        ------
        ObservableError
            If an attribute has no plain form.
        """
        return {"observable": type(self).__qualname__, **plain(public(self))}

    # In a configuration ------------------------------------------------------------------------

    @classmethod
    def settings(cls, section: Section) -> dict[str, Any]:
        """Its own keys of a ``[[target]]``, checked: what ``from_settings`` needs.

        Those of every target (file or value, uncertainty, window, weight ...) are read elsewhere.

        Raises
        ------
        ConfigurationError
            If a value cannot be.
        """
        return {}

    @classmethod
    def measured_in(cls, unit: Any) -> type[Observable]:
        """The class that a configuration means by its name beside a ``unit``. Here: itself."""
        return cls

    @classmethod
    def from_settings(cls, settings: dict[str, Any], site: Site, curve: Curve | None) -> Observable:
        """The observable of these settings, for a measured curve (None where it is a value).

        Here: the settings are arguments, and ``atoms`` a selection.

        Raises
        ------
        ConfigurationError, ObservableError
            If the settings do not fit the site or the curve.
        """
        chosen = {key: site.select(settings[key]) for key in settings if key == "atoms"}
        return cls(**settings | chosen)

    def check(self, curve: Curve, place: Place | None = None) -> None:
        """Raise TargetError when a measured curve cannot be of this observable, at this place.

        What looks like a slip of unit or normalisation: ``plausible.doubt`` makes the error. None
        where nothing is known of the place.
        """

    def check_values(self, values: Array) -> None:
        """Raise TargetError when measured values, in md units, cannot be of this observable."""
        check_usual(self.label, values, self.usual, self.unit)

    # What liquid-state theory may say of it ----------------------------------------------------

    def counted_pairs(self, species_of: IntArray) -> CountedPairs | None:
        """The partial g(r) that it is a mean of; None if it is none.

        ``species_of`` is the species of each particle, -1 for those that theory leaves out.
        """
        return None

    def counted_tuples(self, particles: Particles) -> IntArray | None:
        """The bonds, angles or dihedral angles that it is the distribution of; None if it is none.

        [tuples, n]. ObservableError where there are none, or an index is out of range.
        """
        return None

    def liquid_response(self, liquid: Liquid) -> Array | None:
        """d<A>/dc as theory knows it, [values, coefficients]; None if it does not."""
        counted = self.counted_pairs(liquid.species_of)
        return None if counted is None else liquid.of_g(counted.shares, counted.r)

    # What a curve of it says -------------------------------------------------------------------

    def contact(self, curve: Curve, least: float) -> float | None:
        """Where it rises to ``least``, nm: pairs are not found closer. None if it does not say."""
        return None

    def first_pairs(self, curve: Curve) -> float | None:
        """Where pairs begin to be found at all, nm; None if it does not say.

        Ripples of a measured curve deep in the core, within their errors, are none.
        """
        rise = self.contact(curve, _RISEN)
        if rise is None:
            return None
        deep = curve.x < _DEEP * rise
        ripples = np.sqrt(np.mean(curve.y[deep] ** 2)) if deep.any() else 0.0
        if curve.error is not None and deep.any():
            ripples = min(ripples, np.median(curve.error[deep]))
        return self.contact(curve, float(np.clip(3 * ripples, _COUNTED, _RISEN)))

    def nearest_distance(self, curve: Curve) -> float | None:
        """Distance of nearest neighbours, nm; None if it does not say."""
        return None

    # What it is called -------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """In output files: the ``entry``, or else the name of the class in small letters."""
        return self.entry or type(self).__name__.lower()

    @property
    def label(self) -> str:
        """In figures: the ``symbol``, or else the name of the class."""
        return self.symbol or type(self).__name__

    @property
    def unit(self) -> str:
        """The md unit of a value, such as "bar"; empty for a plain number."""
        return UNIT_NAMES[self.kind]

    @property
    def column(self) -> str:
        """A short name of the values, the "g" of a symbol "g(r)"; empty without brackets."""
        name, bracket, _ = self.symbol.partition("(")
        return name.lower() if bracket else ""


ENTRIES: dict[str, type[Observable]] = {}
"""Every observable that a configuration can name, by its entry."""


def _register(cls: type[Observable]) -> None:
    assert cls.entry is not None
    known = ENTRIES.get(cls.entry, cls)
    if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ObservableError(
            f"entry {cls.entry!r} of {cls.__qualname__} is that of {known.__qualname__} already; "
            "choose another",
            got=cls.entry,
        )
    ENTRIES[cls.entry] = cls
