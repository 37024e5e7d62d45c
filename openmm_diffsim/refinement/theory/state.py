"""Liquid-state theory for a state point: what it says about the observables of its targets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...curve import interpolation_matrix
from ...observables import RDF, Observable
from ...potentials import n_pairs_of_types, pair_index
from ...samples import View
from ...statistics.kernels import largest_range
from ...units import beta
from .liquid import Interaction, LiquidStructure

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]

_MOST_BINS = 200  # the theory solves dense equations of twice as many unknowns per pair of types
_FEWEST_PARTICLES = 10  # of a kind


class LiquidTheory:
    """Partial g(r) of the particles that pair potentials act on, and the response they imply.

    Particles on which all pair potentials act alike are one species. The partial g(r) are
    recorded beside the targets, to half the box. Theory takes these particles for a simple fluid;
    whatever else the System holds counts only through g(r).

    Parameters
    ----------
    state_point : StatePoint
    bin_width : float, nm

    Attributes
    ----------
    rdfs : list of RDF, one per pair of species; empty where theory has no say (no pair potential,
        no box, or a species with fewer than 10 particles)
    species_of : int [particles], -1 for those that no pair potential acts on
    n_of_species : array [species]
    """

    def __init__(self, state_point: Any, bin_width: float) -> None:
        self._pairs = state_point.potential.pairs()
        self._types = state_point.pair_types()
        self.n_coefficients = len(state_point.potential.coefficients(state_point.temperature))
        self.rdfs: list[RDF] = []
        self.species_of = _species(self._types, state_point.n_particles)
        members = [np.flatnonzero(self.species_of == s) for s in range(self.species_of.max() + 1)]
        self.n_of_species = np.array([float(len(some)) for some in members])
        box = state_point.box() if members else None
        if box is None or self.n_of_species.min() < _FEWEST_PARTICLES:
            return
        cutoff = max(pair.basis.cutoff for _, pair in self._pairs)
        margin = 1.0 if state_point.pressure is None else 0.93  # the box may shrink
        reach = min(margin * largest_range(box), 2.5 * cutoff)
        self._merged = max(1, int(np.ceil(reach / bin_width / _MOST_BINS - 1e-9)))
        bins = int(reach / (self._merged * bin_width) + 1e-9) * self._merged
        for a, first in enumerate(members):
            for second in members[a:]:
                self.rdfs.append(RDF(bins * bin_width, bins, atoms=first, atoms2=second))

    @cached_property
    def columns(self) -> Mask:
        """Of which coefficients theory knows the response, bool [coefficients]."""
        known = np.zeros(self.n_coefficients, dtype=bool)
        for where, _ in self._pairs:
            known[where] = True
        return known

    @cached_property
    def interactions(self) -> list[Interaction]:
        """What each pair potential does between each pair of species."""
        representative = [np.argmax(self.species_of == s) for s in range(len(self.n_of_species))]
        rows, columns = np.triu_indices(len(representative))
        found = []
        for (_, pair), types in zip(self._pairs, self._types, strict=True):
            of_species = types[representative]
            a, b = of_species[rows], of_species[columns]
            index = pair_index(pair.n_types)[a, b]
            n_rows = n_pairs_of_types(pair.n_types)
            found.append(Interaction(pair.basis, np.where((a < 0) | (b < 0), -1, index), n_rows))
        return found

    def structure(self, view: View) -> LiquidStructure | None:
        """The liquid as these frames see it, or None where theory has no say."""
        if not self.rdfs:
            return None
        volume = float(view.weights.detach() @ view.samples.volumes)
        fine, g = self.rdfs[0].r, np.array([view.average(o).numpy(force=True) for o in self.rdfs])
        n = np.arange(len(fine))
        shells = ((n + 1.0) ** 3 - n**3).reshape(-1, self._merged)
        merged = (g.reshape(len(g), -1, self._merged) * shells).sum(axis=-1) / shells.sum(axis=-1)
        r, b = fine.reshape(-1, self._merged).mean(axis=1), beta(view.samples.temperature)
        return LiquidStructure(
            r, merged, self.n_of_species, volume, b, self.interactions, (fine, g)
        )

    def jacobian(
        self, structure: LiquidStructure, observables: Sequence[Observable], coefficients: Array
    ) -> tuple[Array, Mask]:
        """d<A>/dc of all values of all observables, and which of them theory knows.

        Returns
        -------
        array [values, coefficients], zero in columns that theory does not know; bool array [values]
        """
        liquid = _Liquid(self, structure, coefficients[self.columns])
        rows, known = [], []
        for observable in observables:
            part = np.zeros((observable.n_values, self.n_coefficients))
            found = observable.liquid_response(liquid)
            if found is not None:
                part[:, self.columns] = found
            rows.append(part)
            known.append(np.full(len(part), found is not None))
        return np.concatenate(rows), np.concatenate(known)

    def covariance(
        self, structure: LiquidStructure, observables: Sequence[Observable]
    ) -> tuple[Array, Array]:
        """Covariance of all values of all observables in one frame, and their counting noise.

        The shot noise of counting pairs depends on the width of the bins and is computed for
        those of each RDF; the rest is smooth and is interpolated.

        Returns
        -------
        array [values, values], zero where theory does not know it; array [values], the variance
        that pairs would have which know nothing of each other, NaN likewise
        """
        n_values = sum(o.n_values for o in observables)
        n_pairs, n_bins = structure.g.shape
        smooth = structure.rdf_covariance().reshape(n_pairs * n_bins, n_pairs * n_bins)
        shot = np.maximum(structure.g, 0) / structure.ideal_counts
        smooth = smooth - np.diag(shot.ravel())
        mapping = np.zeros((n_values, n_pairs * n_bins))
        own = np.full(n_values, np.nan)
        start = 0
        for observable in observables:
            here = slice(start, start + observable.n_values)
            start += observable.n_values
            counted = observable.counted_pairs(self.species_of)
            if counted is None:
                continue
            grid = interpolation_matrix(structure.r, counted.r)
            mapping[here] = np.concatenate([share * grid for share in counted.shares], axis=1)
            width = structure.r[1] - structure.r[0]
            wider = width * 4 * np.pi * counted.r**2 / counted.shells
            own[here] = grid @ (counted.shares[:, None] ** 2 * shot).sum(axis=0) * wider
        return mapping @ smooth @ mapping.T + np.diag(np.nan_to_num(own)), own

    def shares(self, observable: Observable) -> Array | None:
        """Share of each pair of species in the pairs that it counts; None if others count."""
        counted = observable.counted_pairs(self.species_of)
        return None if counted is None else counted.shares

    def pair_of(self, observable: Observable) -> tuple[int, int] | None:
        """Which of the ``pairs``, and which of its pairs of types, a g(r) is of alone, or None."""
        shares = self.shares(observable)
        if shares is None or shares.max() < 1 - 1e-9:
            return None
        species = int(shares.argmax())
        acting = [(k, int(i.row_of_pair[species])) for k, i in enumerate(self.interactions)]
        acting = [(k, row) for k, row in acting if row >= 0]
        return acting[0] if len(acting) == 1 else None


class _Liquid:
    """What ``Observable.liquid_response`` is given."""

    def __init__(
        self, theory: LiquidTheory, structure: LiquidStructure, coefficients: Array
    ) -> None:
        self.species_of = theory.species_of
        self._structure = structure
        self._coefficients = coefficients

    def of_g(self, shares: Array, r: Array) -> Array:
        return self._structure.response_at(shares, r)

    def of_pressure(self) -> Array:
        response = self._structure.rdf_response()
        return self._structure.pressure_response(self._coefficients, response)[None]


def _species(types: Sequence[IntArray], n_particles: int) -> IntArray:
    """A number for particles whose types are the same in all potentials, -1 for those in none."""
    if not types:
        return np.full(n_particles, -1, dtype=np.int64)
    kinds, species = np.unique(np.stack(types, axis=1), axis=0, return_inverse=True)
    present = (kinds >= 0).any(axis=1)
    number = np.where(present, np.cumsum(present) - 1, -1)
    return np.asarray(number[species.reshape(-1)], dtype=np.int64)
