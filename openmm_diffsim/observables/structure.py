"""The radial distribution function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..errors import ObservableError
from ..statistics.kernels import PairHistogram
from ..units import value_in_md_units
from .base import Array, Conditions, Frame, IntArray, Observable, Particles, Recorder


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

    Attributes
    ----------
    edges : array [bins + 1], nm
    r : array [bins], nm, bin centres
    """

    def __init__(
        self,
        r_max: Any,
        bins: int,
        atoms: ArrayLike | None = None,
        atoms2: ArrayLike | None = None,
        r_min: Any = 0.0,
        intramolecular: bool = False,
    ) -> None:
        low = float(value_in_md_units(r_min, "length"))
        high = float(value_in_md_units(r_max, "length"))
        if not 0 <= low < high or bins < 1:
            raise ObservableError(
                f"RDF: expected 0 <= r_min < r_max and bins >= 1, got r_min = {low} nm, "
                f"r_max = {high} nm, bins = {bins}",
                r_min=low,
                r_max=high,
                bins=bins,
            )
        self.edges: Array = np.linspace(low, high, bins + 1)
        self.atoms = None if atoms is None else np.asarray(atoms, dtype=np.int64)
        self.atoms2 = self.atoms if atoms2 is None else np.asarray(atoms2, dtype=np.int64)
        self.intramolecular = intramolecular
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
        self.n_pairs = _count_ordered_pairs(first, second, molecules)
        if self.n_pairs == 0:
            raise ObservableError("RDF: the selections hold no pair to count", n_pairs=0)

    def record(self, frame: Frame, counts: Sequence[IntArray]) -> Array:
        if frame.box is None:
            raise ObservableError("RDF: needs a periodic box, the System has none")
        return np.asarray(counts[0] * (frame.volume / self.n_pairs) / self.shells)


def _selection(atoms: NDArray[np.int64] | None, n: int, name: str) -> NDArray[np.bool_]:
    chosen = np.ones(n, dtype=bool)
    if atoms is not None:
        if len(atoms) == 0 or atoms.min() < 0 or atoms.max() >= n:
            got = f"{atoms.min()} .. {atoms.max()}" if len(atoms) else "no atom"
            raise ObservableError(
                f"RDF: {name} must be indices 0 .. {n - 1}, got {got}", limit=n - 1, got=got
            )
        chosen[:] = False
        chosen[atoms] = True
    return chosen


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
