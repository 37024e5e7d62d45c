"""The distribution of angles between neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import trapezoid
from vesin import NeighborList

from ..curve import Curve, CurveRules
from ..errors import ConfigurationError, ObservableError
from ..limits import LIMITS, checked_number, checked_whole, shown
from ..statistics.kernels import PairHistogram, count_angles, largest_range
from ..units import value_in_md_units
from .arguments import check_atoms
from .base import Array, Frame, IntArray, Observable, Particles, Recorder
from .bonded import TupleDistribution, check_one_choice, chosen_tuples
from .plausible import doubt
from .site import Place, Section, Site

_ROUNDING = 1e-3  # rad, how far beyond pi an angle may have been digitised
_SMALLEST = 0.1  # rad: pi degrees are less
_BINS = replace(LIMITS["bins"], least=2)  # one bin is no curve
_NEAR = (0.8, 1.25)  # of the integral of P
_COVERED = 0.8  # share of 0 .. pi: less of it says nothing about the integral


class AngleDistribution(TupleDistribution):
    """Distribution of the angles theta = j-i-k at a particle i, 1/rad, of neighbours or triples.

    In each frame

        P(theta_b) = n_b / (sum_b n_b dtheta),

    with n_b the angles in bin b: of the ``triples`` (j, i, k) that are given or, with ``r_max``, of
    all pairs of particles j, k that are both closer to i than that. So the sum of P dtheta is 1 in
    every frame, and random directions give sin(theta) / 2. Where the number of angles fluctuates
    from frame to frame, the average over frames is a mean of ratios; the ratio of the means of n_b
    differs from it by O(1/N).

    Measured O-O-O angles of water go with r_max = 0.318 nm, as in Thaler and Zavadlav, Nat. Commun.
    12, 6884 (2021), who smear the angles by their bin and the cutoff by 10^-4 nm.

    Parameters
    ----------
    r_max : float or Quantity, optional
        How far a neighbour may be, nm; at most half the box.
    bins : int
        Number of equal bins from 0 to pi.
    atoms : sequence of int, optional
        Both the particles and their neighbours are of these; default all.
    triples : sequence of (int, int, int), or "bonded", optional
        In place of ``r_max``: these angles, each at its second particle; nearest images count.
        "bonded": all between two bonds of the System, but of three particles that are all bonded.

    Attributes
    ----------
    edges : array [bins + 1], rad
    theta : array [bins], rad, bin centres
    r_max : float, nm; None with ``triples``

    Raises
    ------
    ObservableError
        If an argument is out of range, or not one of ``r_max`` and ``triples`` is given; when
        recorded, if there is no angle, or r_max exceeds half the box.
    """

    entry = "angles"
    symbol = "P(theta)"
    kind = "angular_density"
    rules = CurveRules(
        "P(theta)",
        "theta",
        "P",
        "angle",
        least_y=-0.05,
        expected_y="P of about 0 or more",
        units={"rad": (1.0, 1.0), "degree": (np.pi / 180, 180 / np.pi)},
    )
    size, tuples_key = 3, "triples"

    def __init__(
        self,
        r_max: Any = None,
        bins: int = 60,
        atoms: ArrayLike | None = None,
        triples: Any = None,
    ) -> None:
        if (r_max is None) == (triples is None):
            raise ObservableError(
                f"AngleDistribution: got r_max = {shown(r_max)} and triples = {shown(triples)}, "
                "expected one of the two: how far neighbours may be, or which angles count"
            )
        self.n_values = checked_whole("bins", bins, ObservableError, _BINS)
        self.edges = np.linspace(0.0, np.pi, self.n_values + 1)
        self.triples = None if triples is None else self._choose(triples, atoms)
        self.atoms = check_atoms(atoms)
        self.r_max = None if r_max is None else float(value_in_md_units(r_max, "length"))
        if self.r_max is not None:
            checked_number("r_max", self.r_max, ObservableError)

    @property
    def theta(self) -> Array:
        """Bin centres, rad, shape [bins]."""
        return self.centers

    def recorder(self, particles: Particles) -> Recorder:
        """Counts angles; raises ObservableError if an atom index is out of range."""
        if self.triples is not None:
            return super().recorder(particles)
        return _AngleRecorder(self, particles.n_particles)

    def counted_tuples(self, particles: Particles) -> IntArray | None:
        """The triples; None of neighbours, which differ from frame to frame."""
        return None if self.triples is None else super().counted_tuples(particles)

    @classmethod
    def settings(cls, section: Section) -> dict[str, Any]:
        """How far a neighbour may be or which triples count, the bins, and a selection."""
        own = super().settings(section)
        told = own[cls.tuples_key] is not None or own["names"] is not None
        r_max = section.number("r_max", None) if told else section.number("r_max")
        return own | {"r_max": r_max, "bins": section.integer("bins", 60, at_least=8)}

    @classmethod
    def from_settings(cls, settings: dict[str, Any], site: Site, curve: Curve | None) -> Observable:
        """As they are.

        Raises
        ------
        ConfigurationError
            If neighbours would be beyond half the box, or no atoms have such names.
        """
        r_max, bins = settings["r_max"], settings["bins"]
        if r_max is None:
            return cls(bins=bins, **chosen_tuples(cls, settings, site))
        check_one_choice(settings, ("r_max", cls.tuples_key, "names"))
        if r_max > site.reach:
            raise ConfigurationError(
                f"target.r_max: {r_max} nm is beyond half the box, {site.reach:.4f} nm; take more "
                "particles or a smaller r_max",
                key="target.r_max",
                got=r_max,
                expected=site.reach,
            )
        return cls(r_max, bins, site.select(settings["atoms"]))

    def check(self, curve: Curve, place: Place | None = None) -> None:
        """Raise TargetError for angles beyond pi, or all angles and an integral that is not 1.

        Also for angles that all are so small as those in rad are when read in degrees.
        """
        last = float(curve.x[-1])
        if last > np.pi + _ROUNDING:
            raise doubt(
                curve,
                f"got angles up to {last:.4g} rad, expected at most pi; are they in degrees?",
                self.symbol,
            )
        if last < _SMALLEST:
            raise doubt(
                curve,
                f"got angles up to {np.degrees(last):.4g} degrees only; were they in rad and read "
                "as degrees?",
                self.symbol,
            )
        integral = float(trapezoid(curve.y, curve.x))
        covered = last - float(curve.x[0]) > _COVERED * np.pi
        if covered and not _NEAR[0] < integral < _NEAR[1]:
            raise doubt(
                curve,
                f"the integral of P over theta is {integral:.4g}, expected 1; is P in another "
                "unit than 1/rad, or divided by sin(theta)?",
                self.symbol,
            )


class _AngleRecorder:
    histograms: tuple[PairHistogram, ...] = ()

    def __init__(self, observable: AngleDistribution, n_particles: int) -> None:
        atoms, r_max = observable.atoms, observable.r_max
        assert r_max is not None
        if atoms is not None and atoms.max() >= n_particles:
            raise ObservableError(
                f"AngleDistribution: atoms must be indices 0 .. {n_particles - 1}, "
                f"got {atoms.max()}",
                limit=n_particles - 1,
                got=int(atoms.max()),
            )
        self.atoms = slice(None) if atoms is None else atoms
        self.r_max = r_max
        self.bins = observable.n_values
        self.neighbors = NeighborList(cutoff=self.r_max, full_list=True, sorted=True)

    def record(self, frame: Frame, counts: Sequence[IntArray]) -> Array:
        if frame.box is not None and self.r_max > largest_range(frame.box) + 1e-9:
            limit = largest_range(frame.box)
            raise ObservableError(
                f"AngleDistribution: r_max = {self.r_max:.4f} nm is beyond half the box, "
                f"{limit:.4f} nm; take a larger box or a smaller r_max",
                r_max=self.r_max,
                limit=limit,
            )
        positions = frame.positions[self.atoms]
        box = np.zeros((3, 3)) if frame.box is None else frame.box
        centres, vectors = self.neighbors.compute(positions, box, frame.box is not None, "iD")
        heads = np.searchsorted(centres, np.arange(len(positions) + 1))
        n = count_angles(heads, vectors, self.bins)
        if not n.any():
            raise ObservableError(
                f"AngleDistribution: no particle has two neighbours within {self.r_max:.4f} nm, so "
                "there is no angle to count; take a larger r_max",
                r_max=self.r_max,
            )
        return np.asarray(n / (n.sum() * np.pi / self.bins))
