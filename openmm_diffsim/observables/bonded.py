"""Distributions of bond lengths and dihedral angles, and what counts tuples of particles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import trapezoid
from torch import Tensor

from ..curve import Axis, Curve, CurveRules
from ..errors import ConfigurationError, ObservableError
from ..limits import checked_number, checked_whole
from ..statistics.internal import COORDINATES
from ..statistics.kernels import PairHistogram
from ..statistics.molecules import chains_of
from ..units import value_in_md_units
from .arguments import check_atoms, check_tuples
from .base import Array, Conditions, Frame, IntArray, Observable, Particles, Recorder
from .plausible import doubt
from .site import Place, Section, Site

BONDED = "bonded"
"""In place of tuples: all that the System's bonds make."""
_NEAR = (0.8, 1.25)  # of the integral of p
_FADED = 0.05  # of the largest p: both ends of a curve that shows all of it
_ROUNDING = 1e-3  # rad, how far beyond pi an angle may have been digitised
_BINS = 60


class TupleDistribution(Observable):
    """Distribution p(q) of an internal coordinate of chosen tuples of particles.

        p(q_b) = n_b / (N dq)

    in each frame, with n_b of all N tuples in bin b; so the sum of p dq is the share of tuples
    between the first and the last edge, 1 where none is beyond.
    """

    size: ClassVar[int]
    """Particles in a tuple."""
    tuples_key: ClassVar[str]
    """What an argument and a configuration call the tuples."""
    rules: ClassVar[CurveRules]
    is_histogram = True
    edges: Array
    atoms: IntArray | None

    @property
    def _tuples(self) -> Any:
        return getattr(self, self.tuples_key)

    def _choose(self, tuples: Any, atoms: ArrayLike | None) -> Any:
        """The tuples, checked; ObservableError where ``atoms`` are given as well."""
        self.atoms = check_atoms(atoms)
        if isinstance(tuples, str) and tuples == BONDED:
            return tuples
        if atoms is not None:
            raise ObservableError(
                f"{self.tuples_key}: got atoms as well, expected one of the two: {self.tuples_key} "
                "says which particles count"
            )
        return check_tuples(self.tuples_key, tuples, self.size)

    @property
    def centers(self) -> Array:
        """Bin centres, [bins]."""
        return 0.5 * (self.edges[1:] + self.edges[:-1])

    def recorder(self, particles: Particles) -> Recorder:
        """Counts tuples; ObservableError where there are none, or an index is out of range."""
        return TupleRecorder(self._chosen(particles), self.edges)

    def counted_tuples(self, particles: Particles) -> IntArray | None:
        """Those that are given, or all that bonds make, [tuples, n]."""
        return self._chosen(particles)

    def _chosen(self, particles: Particles) -> IntArray:
        return tuples_among(self._tuples, self.size, self.atoms, self.tuples_key, particles)

    def values(self, records: Tensor, conditions: Conditions) -> Tensor:
        """p(q) of each frame, shape [frames, bins]."""
        return records

    def axis(self, timestep: float) -> Axis:
        """The bin centres."""
        return self.rules.axis(self.centers)

    @classmethod
    def settings(cls, section: Section) -> dict[str, Any]:
        """Which tuples: themselves, by the names of their atoms, or all bonded ones of a choice."""
        return tuple_settings(cls.tuples_key, cls.size, section)

    def check(self, curve: Curve, place: Place | None = None) -> None:
        """TargetError where a curve that fades at both ends has an integral that is not 1."""
        integral = float(trapezoid(curve.y, curve.x))
        faded = max(curve.y[0], curve.y[-1]) < _FADED * curve.y.max()
        if faded and not _NEAR[0] < integral < _NEAR[1]:
            raise doubt(
                curve,
                f"the integral of {self.rules.y} over {self.rules.x} is {integral:.4g}, expected "
                f"1; is it in another unit than {self.unit}, or divided by a Jacobian?",
                self.symbol,
            )


class BondDistribution(TupleDistribution):
    """Distribution p(r) of bond lengths, 1/nm.

    In each frame p(r_b) = n_b / (N dr), with n_b of all N bonds in bin b: the integral is 1 where
    no bond is beyond the bins. No Jacobian is divided out: free particles give p(r) ~ r^2.

    Parameters
    ----------
    r_min, r_max : float or Quantity
        First and last edge, nm.
    bins : int
        Number of equal bins.
    bonds : sequence of (int, int), or "bonded"
        Which pairs; their nearest images count. Default: all bonds of the System, as
        ``exclude_bonds`` of ``RDF`` counts them, but for those of particles without mass.
    atoms : sequence of int, optional
        Without a list of ``bonds``: only those between these particles.

    Attributes
    ----------
    edges : array [bins + 1], nm
    r : array [bins], nm, bin centres

    Raises
    ------
    ObservableError
        If an argument is out of range; when recorded, if there is no bond.
    """

    entry = "bonds"
    symbol = "p(r)"
    kind = "linear_density"
    size, tuples_key = 2, "bonds"
    rules = CurveRules(
        "p(r)",
        "r",
        "p",
        "length",
        least_y=-0.05,
        expected_y="p of about 0 or more",
        units={"nm": (1.0, 1.0), "angstrom": (0.1, 10.0), "A": (0.1, 10.0)},
    )

    def __init__(
        self,
        r_min: Any,
        r_max: Any,
        bins: int = _BINS,
        bonds: Any = BONDED,
        atoms: ArrayLike | None = None,
    ) -> None:
        low, high = (float(value_in_md_units(r, "length")) for r in (r_min, r_max))
        if not 0 <= low < high:
            raise ObservableError(
                f"BondDistribution: expected 0 <= r_min < r_max, got r_min = {low} nm, r_max = "
                f"{high} nm",
                r_min=low,
                r_max=high,
            )
        checked_number("r_max", high, ObservableError)
        self.n_values = checked_whole("bins", bins, ObservableError)
        self.edges = np.linspace(low, high, self.n_values + 1)
        self.bonds = self._choose(bonds, atoms)

    @property
    def r(self) -> Array:
        """Bin centres, nm, shape [bins]."""
        return self.centers

    @classmethod
    def from_settings(cls, settings: dict[str, Any], site: Site, curve: Curve | None) -> Observable:
        """Bins about the points of the curve, where these are regular; else 60 as far as it goes.

        Raises
        ------
        ConfigurationError
            If no atoms have such names, or a bond would be beyond half the box.
        """
        assert curve is not None
        steps = np.diff(curve.x)
        width = float(np.median(steps))
        regular = np.all(np.abs(steps - width) < 1e-3 * width)
        low, high, bins = float(curve.x[0]), float(curve.x[-1]), _BINS
        if regular:
            low, high, bins = low - 0.5 * width, high + 0.5 * width, len(curve)
        if low < 0:
            low, bins = low + width, bins - 1
        return cls(low, high, bins, **chosen_tuples(cls, settings, site))


class DihedralDistribution(TupleDistribution):
    """Distribution p(phi) of dihedral angles, 1/rad, phi from -pi to pi and 0 for cis.

    In each frame p(phi_b) = n_b / (N dphi), with n_b of all N angles in bin b: its integral is 1,
    and free rotation gives 1 / (2 pi). The sign is IUPAC's.

    Parameters
    ----------
    bins : int
        Number of equal bins from -pi to pi.
    quadruples : sequence of (int, int, int, int), or "bonded"
        Which angles: between the planes of the first and the last three particles. Default: all
        chains of three bonds of the System.
    atoms : sequence of int, optional
        Without a list of ``quadruples``: only those of these particles.

    Attributes
    ----------
    edges : array [bins + 1], rad
    phi : array [bins], rad, bin centres

    Raises
    ------
    ObservableError
        If an argument is out of range; when recorded, if there is no such angle.
    """

    entry = "dihedrals"
    symbol = "p(phi)"
    kind = "angular_density"
    size, tuples_key = 4, "quadruples"
    rules = CurveRules(
        "p(phi)",
        "phi",
        "p",
        "angle",
        least_x=-np.inf,
        least_y=-0.05,
        expected_y="p of about 0 or more",
        units={"rad": (1.0, 1.0), "degree": (np.pi / 180, 180 / np.pi)},
    )

    def __init__(
        self, bins: int = 72, quadruples: Any = BONDED, atoms: ArrayLike | None = None
    ) -> None:
        self.n_values = checked_whole("bins", bins, ObservableError)
        self.edges = np.linspace(-np.pi, np.pi, self.n_values + 1)
        self.quadruples = self._choose(quadruples, atoms)

    @property
    def phi(self) -> Array:
        """Bin centres, rad, shape [bins]."""
        return self.centers

    @classmethod
    def settings(cls, section: Section) -> dict[str, Any]:
        """Which angles, and the bins."""
        return super().settings(section) | {"bins": section.integer("bins", 72, at_least=8)}

    @classmethod
    def from_settings(cls, settings: dict[str, Any], site: Site, curve: Curve | None) -> Observable:
        """As they are; ConfigurationError where no atoms have such names."""
        return cls(settings["bins"], **chosen_tuples(cls, settings, site))

    def check(self, curve: Curve, place: Place | None = None) -> None:
        """TargetError for angles beyond pi to either side, or a whole turn that is not 1."""
        ends = curve.x[[0, -1]]
        if np.abs(ends).max() > np.pi + _ROUNDING:
            raise doubt(
                curve,
                f"got angles from {ends[0]:.4g} to {ends[1]:.4g} rad, expected -pi to pi; are they "
                "in degrees, or from 0 to 360? Then take 360 from those beyond 180",
                self.symbol,
            )
        integral = float(trapezoid(curve.y, curve.x))
        whole = ends[1] - ends[0] > 0.9 * 2 * np.pi
        if whole and not _NEAR[0] < integral * 2 * np.pi / (ends[1] - ends[0]) < _NEAR[1]:
            raise doubt(
                curve,
                f"the integral of p over phi is {integral:.4g}, expected 1; is p in another unit "
                "than 1/rad?",
                self.symbol,
            )


class TupleRecorder:
    """Counts tuples [tuples, n] in bins of equal width, and makes a density of the counts."""

    histograms: tuple[PairHistogram, ...] = ()

    def __init__(self, tuples: IntArray, edges: Array) -> None:
        self.tuples = tuples
        self._edges = edges
        self._coordinate = COORDINATES[tuples.shape[1]]
        self._norm = 1 / (len(tuples) * (edges[1] - edges[0]))

    def record(self, frame: Frame, counts: Sequence[IntArray]) -> Array:
        q = self._coordinate(frame.positions, self.tuples, frame.box)
        return np.asarray(np.histogram(q, self._edges)[0] * self._norm)


def tuples_among(
    given: Any, size: int, atoms: IntArray | None, key: str, particles: Particles
) -> IntArray:
    """The tuples that are given, or all that bonds between ``atoms`` make, [tuples, size].

    Raises
    ------
    ObservableError
        If there is none, or an index is out of range.
    """
    if isinstance(given, str):
        chosen = particles.masses > 0
        if atoms is not None:
            chosen &= np.isin(np.arange(len(chosen)), atoms)
        given = chains_of(particles.bonds[chosen[particles.bonds].all(axis=1)], size)
        if not len(given):
            raise ObservableError(
                f"{key}: the bonds that are known of the {int(chosen.sum())} atoms chosen make "
                f"none; give them, {key}=[{tuple(range(size))}, ...]"
            )
    if given.max() >= particles.n_particles:
        raise ObservableError(
            f"{key}: expected indices 0 .. {particles.n_particles - 1}, got {given.max()}",
            limit=particles.n_particles - 1,
            got=int(given.max()),
        )
    return np.asarray(given)


# In a configuration -------------------------------------------------------------------------------


def tuple_settings(key: str, size: int, section: Section) -> dict[str, Any]:
    """Which tuples a ``[[target]]`` names."""
    return {
        key: section.tuples(key, size),
        "names": section.text("names", None),
        "atoms": section.text("atoms", None),
    }


def chosen_tuples(cls: Any, settings: dict[str, Any], site: Site) -> dict[str, Any]:
    """Arguments of a ``TupleDistribution``: tuples, or the atoms that they are among.

    Raises
    ------
    ConfigurationError
        If more than one choice is made, or no bonded atoms have these names.
    """
    key = cls.tuples_key
    check_one_choice(settings, (key, "names", "atoms"))
    if settings[key] is not None:
        return {key: settings[key]}
    if settings["names"] is None:
        return {key: BONDED, "atoms": site.select(settings["atoms"])}
    return {key: _named(settings["names"], cls.size, site)}


def check_one_choice(settings: dict[str, Any], keys: Sequence[str]) -> None:
    """ConfigurationError where more than one of these keys is given."""
    made = [key for key in keys if settings[key] is not None]
    if len(made) > 1:
        raise ConfigurationError(
            f"target.{made[1]}: got {made[0]} as well, expected one of the two",
            key=f"target.{made[1]}",
        )


def _named(names: str, size: int, site: Site) -> IntArray:
    """Bonded atoms of these names, in either direction; "N-CA-C" for one."""
    wanted = names.split("-")
    bonds = [(bond[0].index, bond[1].index) for bond in site.topology.bonds()]
    name_of = [atom.name for atom in site.topology.atoms()]
    chains = chains_of(np.array(bonds, dtype=np.int64).reshape(-1, 2), size).tolist()
    called = [[name_of[i] for i in chain] for chain in chains]
    found = [c for c, own in zip(chains, called, strict=True) if wanted in (own, own[::-1])]
    if not found:
        raise ConfigurationError(
            f"target.names: got {names!r}, expected the names of {size} atoms in order, as "
            f"'N-CA-C', that are bonded so in the topology, which has {len(bonds)} bonds",
            key="target.names",
            got=names,
        )
    return np.array(found, dtype=np.int64)
