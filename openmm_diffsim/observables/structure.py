"""The radial distribution function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..curve import Axis, Curve, CurveRules
from ..errors import ConfigurationError, ObservableError, TargetError
from ..limits import checked_number, checked_whole
from ..statistics.kernels import PairHistogram
from ..statistics.molecules import minimum_image, pairs_within
from ..units import value_in_md_units
from .arguments import check_atoms
from .base import (
    Array,
    Conditions,
    CountedPairs,
    Frame,
    IntArray,
    Observable,
    Particles,
    Recorder,
)
from .plausible import check_rdf
from .site import Place, Section, Site

_FINEST_BIN, _USUAL_BIN, _COARSEST_BIN = 0.006, 0.015, 0.03  # of the distance of the first peak
_LEAST_PEAK = 1.1  # of g: what is lower is none


class RDF(Observable):
    """Radial distribution function g(r) between two selections of particles.

    For each frame, and averaged over frames,

        g(r_b) = n_b V / (N_pairs 4 pi/3 (r_{b+1}^3 - r_b^3)),

    with n_b the ordered pairs (first, second) whose minimum-image distance falls in bin b, and
    N_pairs the number of ordered pairs that are counted: N_a N_b for two separate selections,
    N (N - 1) for one, less the intramolecular ones when those are left out. Shells are exact and
    an ideal gas gives 1 in expectation, in any ensemble. V is that of the frame, so NPT is right
    too.

    In each frame the same estimator as ``mdtraj.compute_rdf`` on the same pairs (over frames of
    varying volume, mdtraj divides the mean count by the mean of 1/V). freud's default divides by
    N^2: multiply it by N / (N - 1), or use its ``normalization_mode="finite_size"``.

    Parameters
    ----------
    r_max : float or Quantity
        Upper edge, nm; at most half the box. May exceed the cutoff of the potential.
    bins : int
        Number of equal bins.
    atoms : sequence of int, optional
        First selection; default all particles.
    atoms2 : sequence of int, optional
        Second selection; default the first.
    r_min : float or Quantity
        Lower edge, nm.
    intramolecular : bool
        Count pairs within one molecule too. Default: leave them out.
    exclude_bonds : int, optional
        Of the pairs within one molecule leave out only those so many bonds apart or fewer: 1 for
        1-2 pairs, 2 for 1-3 too, 3 for 1-4 too (LAMMPS' special_bonds, GROMACS' nrexcl). The bonds
        are those of the System, as in ``Potential.attach``; without any it is refused. It
        implies ``intramolecular``.

    Attributes
    ----------
    edges : array [bins + 1], nm
    r : array [bins], nm, bin centres
    """

    entry = "rdf"
    symbol = "g(r)"
    rules = CurveRules(
        "g(r)",
        "r",
        "g",
        "length",
        least_y=-0.5,
        expected_y="g of about 0 or more (h(r) = g(r) - 1 is not g(r))",
        growth=2.0,
        units={"nm": (1.0, 1.0), "angstrom": (0.1, 1.0), "A": (0.1, 1.0)},
    )
    is_histogram = True
    is_structure = True
    tends_to = 1.0
    shift = 1.0

    def __init__(
        self,
        r_max: Any,
        bins: int,
        atoms: ArrayLike | None = None,
        atoms2: ArrayLike | None = None,
        r_min: Any = 0.0,
        intramolecular: bool = False,
        exclude_bonds: int | None = None,
    ) -> None:
        low = float(value_in_md_units(r_min, "length"))
        high = float(value_in_md_units(r_max, "length"))
        if not 0 <= low < high:
            raise ObservableError(
                f"RDF: expected 0 <= r_min < r_max, got r_min = {low} nm, r_max = {high} nm",
                r_min=low,
                r_max=high,
            )
        checked_number("r_max", high, ObservableError)
        bins = checked_whole("bins", bins, ObservableError)
        self.edges: Array = np.linspace(low, high, bins + 1)
        self.atoms = check_atoms(atoms, "RDF: atoms")
        self.atoms2 = self.atoms if atoms2 is None else check_atoms(atoms2, "RDF: atoms2")
        if exclude_bonds is not None:
            exclude_bonds = checked_whole("exclude_bonds", exclude_bonds, ObservableError)
        self.intramolecular = intramolecular or exclude_bonds is not None
        self.exclude_bonds = exclude_bonds or 0
        self.n_values = bins

    @property
    def r(self) -> Array:
        """Bin centres, nm, shape [bins]."""
        return 0.5 * (self.edges[1:] + self.edges[:-1])

    @property
    def shells(self) -> Array:
        """Volumes of the shells, nm^3, shape [bins]."""
        return 4 * np.pi / 3 * np.diff(self.edges**3)

    def recorder(self, particles: Particles) -> Recorder:
        """Counts pairs; raises ObservableError if an atom index is out of range."""
        return _RDFRecorder(self, particles)

    def values(self, records: Tensor, conditions: Conditions) -> Tensor:
        """g(r) of each frame, shape [frames, bins]."""
        return records

    def counted_pairs(self, species_of: IntArray) -> CountedPairs | None:
        """Shares of the pairs of species; None if other particles count too."""
        n = len(species_of)
        first = species_of[np.arange(n) if self.atoms is None else self.atoms]
        second = species_of[np.arange(n) if self.atoms2 is None else self.atoms2]
        if first.min() < 0 or second.min() < 0:
            return None
        size = int(species_of.max()) + 1
        both = np.outer(
            np.bincount(first, minlength=size) / len(first),
            np.bincount(second, minlength=size) / len(second),
        )
        rows, columns = np.triu_indices(size)
        shares = np.where(rows == columns, 0.5, 1.0) * (both + both.T)[rows, columns]
        return CountedPairs(shares, self.r, self.shells)

    def axis(self, timestep: float) -> Axis:
        """The bin centres."""
        return self.rules.axis(self.r)

    @classmethod
    def settings(cls, section: Section) -> dict[str, Any]:
        """Selections, and the window, which has to fit the box."""
        return {
            "window": section.pair("window", "nm"),
            "atoms": section.text("atoms", None),
            "atoms2": section.text("atoms2", None),
            "exclude_bonds": section.integer("exclude_bonds", None),
            "intramolecular": section.flag("intramolecular"),
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any], site: Site, curve: Curve | None) -> RDF:
        """Bins as fine as the data, up to their end or half the box."""
        assert curve is not None
        window, other = settings["window"], settings["atoms2"]
        if window is not None and window[1] > site.reach:
            raise ConfigurationError(
                f"target.window: ends at {window[1]} nm, beyond half the box, {site.reach:.4f} nm; "
                "take more particles or a smaller window",
                key="target.window",
                got=window,
                expected=site.reach,
            )
        if curve.x[-1] > site.reach * (1 + 1e-9) and window is None:
            site.warn(
                f"{curve.path}: reaches to {curve.x[-1]:.4g} nm, compared only up to half the box, "
                f"{site.reach:.4g} nm; more particles would let you use the rest"
            )
        atoms2 = None if other is None else site.select(other, "atoms2")
        atoms = site.select(settings["atoms"])
        counted = {key: settings[key] for key in ("exclude_bonds", "intramolecular")}
        return cls.for_curve(curve, site.reach, atoms, atoms2, **counted)

    @classmethod
    def for_curve(
        cls,
        curve: Curve,
        reach: float,
        atoms: IntArray | None = None,
        atoms2: IntArray | None = None,
        exclude_bonds: int | None = None,
        intramolecular: bool = False,
    ) -> RDF:
        """Bins as fine as a curve, and centred on its points where these are regular.

        Up to the last point or ``reach`` (nm), whichever comes first.
        """
        steps = np.diff(curve.x)
        peak = float(curve.x[np.argmax(curve.y)])
        spacing = float(np.median(steps))
        low, width = 0.0, _USUAL_BIN * peak
        if np.all(np.abs(steps - spacing) < 1e-3 * spacing):
            parts = np.ceil(spacing / (_COARSEST_BIN * peak))
            width = max(spacing / parts, _FINEST_BIN * peak)
            low = width * (round(float(curve.x[0]) / width - 0.5, 6) % 1.0)
        bins = int((min(reach, float(curve.x[-1]) + 0.5 * width) - low) / width + 1e-6)
        r_max = low + bins * width
        return cls(r_max, bins, atoms, atoms2, low, intramolecular, exclude_bonds)

    def check(self, curve: Curve, place: Place | None = None) -> None:
        """Raise TargetError where it is no g(r), or none of this density; see ``check_rdf``.

        The density is that of the rarer of the two kinds, and of molecules where only pairs of
        different ones count: of bonded sites more fit into a volume than their size allows.
        """
        alone = not self.intramolecular
        known = place and place.number_density(self.atoms, self.atoms2, molecules=alone)
        check_rdf(curve, known, self.edges[-1])

    def contact(self, curve: Curve, least: float) -> float | None:
        """The first r from which on g >= ``least`` up to its first peak, nm."""
        return float(curve.x[rise_of(curve.y, least)]) if (curve.y > 0.5).any() else None

    def nearest_distance(self, curve: Curve) -> float | None:
        """Where g is highest, nm; None where it has no peak, as in a dilute repulsive fluid."""
        highest = int(np.argmax(curve.y))
        return float(curve.x[highest]) if curve.y[highest] > _LEAST_PEAK else None


class _RDFRecorder:
    def __init__(self, rdf: RDF, particles: Particles) -> None:
        n = particles.n_particles
        first = _selection(rdf.atoms, n, "atoms")
        second = _selection(rdf.atoms2, n, "atoms2")
        everything = rdf.intramolecular or particles.n_molecules == n
        molecules = None if everything else particles.molecule_of
        self.histograms: tuple[PairHistogram, ...] = (
            PairHistogram(rdf.edges, first, second, molecules),
        )
        self.shells = rdf.shells
        self._edges = rdf.edges
        self._bonded, self._times = _bonded_pairs(rdf, particles, first, second)
        self.n_pairs = _count_ordered_pairs(first, second, molecules) - int(self._times.sum())
        if self.n_pairs == 0:
            within = "so few bonds apart" if rdf.intramolecular else "within one molecule"
            raise ObservableError(
                f"RDF: there is no pair to count between {_words(first)} and {_words(second)}, but "
                f"for those {within}, which are left out; take other atoms, intramolecular=True or "
                "a smaller exclude_bonds",
                n_pairs=0,
            )

    def record(self, frame: Frame, counts: Sequence[IntArray]) -> Array:
        if frame.box is None:
            raise ObservableError("RDF: needs a periodic box, the System has none")
        counted = counts[0] - self._excluded(frame.positions, frame.box)
        return np.asarray(counted * (frame.volume / self.n_pairs) / self.shells)

    def _excluded(self, positions: Array, box: Array) -> Array:
        """What is counted and should not be, [bins]."""
        i, j = self._bonded.T
        r = np.linalg.norm(minimum_image(positions[i] - positions[j], box), axis=1)
        return np.asarray(np.histogram(r, self._edges, weights=self._times)[0])


def _bonded_pairs(
    rdf: RDF, particles: Particles, first: NDArray[np.bool_], second: NDArray[np.bool_]
) -> tuple[IntArray, IntArray]:
    """Pairs [pairs, 2] that too few bonds lie between, and how often each would be counted."""
    if rdf.exclude_bonds and not (first | second)[particles.bonds].any():
        raise ObservableError(
            f"RDF: exclude_bonds: got {rdf.exclude_bonds}, but no bond is known of any of the "
            f"{int((first | second).sum())} atoms chosen, so none can be counted; give bonds (in "
            "the System, or in the topology of a trajectory), or leave exclude_bonds out",
            exclude_bonds=rdf.exclude_bonds,
        )
    pairs = pairs_within(particles.bonds, particles.n_particles, rdf.exclude_bonds)
    i, j = pairs.T
    times = (first[i] & second[j]).astype(np.int64) + (first[j] & second[i])
    return pairs[times > 0], times[times > 0]


def _selection(atoms: NDArray[np.int64] | None, n: int, name: str) -> NDArray[np.bool_]:
    chosen = np.ones(n, dtype=bool)
    if atoms is not None:
        if atoms.max() >= n:
            got = f"{atoms.min()} .. {atoms.max()}"
            raise ObservableError(
                f"RDF: {name} must be indices 0 .. {n - 1}, got {got}", limit=n - 1, got=got
            )
        chosen[:] = False
        chosen[atoms] = True
    return chosen


def _words(chosen: NDArray[np.bool_]) -> str:
    indices = np.flatnonzero(chosen)
    return f"atoms {indices[0]} .. {indices[-1]} ({len(indices)} of {len(chosen)})"


def _count_ordered_pairs(
    first: NDArray[np.bool_], second: NDArray[np.bool_], molecules: IntArray | None
) -> int:
    total = int(first.sum()) * int(second.sum()) - int((first & second).sum())
    if molecules is None:
        return total
    size = int(molecules.max()) + 1
    a = np.bincount(molecules[first], minlength=size)
    b = np.bincount(molecules[second], minlength=size)
    both = np.bincount(molecules[first & second], minlength=size)
    return total - int((a * b - both).sum())


def rise_of(g: Array, least: float) -> int:
    """Index of the first point from which on g >= ``least`` up to the foot of its first peak.

    Ripples of a measured g(r) inside the core do not count.

    Raises
    ------
    TargetError
        If g never exceeds one half.
    """
    risen = np.flatnonzero(g > 0.5)
    if len(risen) == 0:
        raise TargetError(f"g(r) never exceeds 0.5; its largest value is {g.max():.3g}")
    low = np.flatnonzero(g[: risen[0]] < least)
    return int(low[-1]) + 1 if len(low) else 0
